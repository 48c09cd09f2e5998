/**
 * Calls of the model's own functions become the nodes of their bodies (ONNX IR, FunctionProto), so that decoders whose
 * layers were exported as functions can be read like any other. Functions of the domain com.microsoft are spare bodies of
 * operators that onnxruntime has itself: they stay.
 */

import type { Attribute, Graph, LocalFunction, Model, Node, Value } from '../../ir/core.js';
import { counted } from '../../ir/visible.js';
import { definePass } from '../framework/pass.js';
import type { Rewriter } from '../rewrite/rewriter.js';

const MOST_NODES = 1_000_000;

export const inlineFunctions = definePass({
  id: 'inline-functions',
  summary: "replace calls of the model's own functions by their bodies",
  effect: 'exact',
  isPreparation: true,
  isAuxiliary: true,
  options: {},
  statistics: { calls: 'calls replaced', functions: 'functions dropped' },
  run({ model, graph, rewriter, passed, missed, count }) {
    const functions = new Map(model.functions.map((item) => [keyOf(item.domain, item.name, item.overload), item]));
    const refused = new Set<LocalFunction>();
    const inlined = new Set<string>();
    // A body may call other functions: its nodes come right before the call and are met in the next round.
    for (let changed = true; changed && graph.nodeCount < MOST_NODES; ) {
      changed = false;
      for (const node of graph.nodes()) {
        const item = functions.get(keyOf(node.domain, node.opType, node.overload));
        if (!item || item.domain === 'com.microsoft' || refused.has(item)) continue;
        const reason = whyNot(model, item, functions) ?? whyNotHere(node, item);
        if (reason) {
          refused.add(item);
          missed(`the function ${item.domain}.${item.name} stays a call: ${reason}`);
          continue;
        }
        inline(node, item, rewriter);
        inlined.add(keyOf(item.domain, item.name, item.overload));
        changed = true;
        count('calls');
      }
    }
    if (inlined.size === 0) return;
    const stays = model.functions.filter((item) => !inlined.has(keyOf(item.domain, item.name, item.overload)));
    const called = calledFrom([graph, ...stays.map(({ body }) => body)], functions);
    const left = model.functions.filter((item) => stays.includes(item) || called.has(item));
    count('functions', model.functions.length - left.length);
    const bodies = inlined.size === 1 ? 'its body' : 'their bodies';
    passed(`the calls of ${counted(inlined.size, 'function')} were replaced by ${bodies}`);
    model.functions.splice(0, model.functions.length, ...left);
  },
});

function keyOf(domain: string, name: string, overload: string): string {
  return `${domain}\n${name}\n${overload}`;
}

function whyNot(model: Model, item: LocalFunction, functions: ReadonlyMap<string, LocalFunction>): string | null {
  for (const { domain, version } of item.opsets) {
    const own = model.opset(domain);
    if (own !== undefined && own !== version) return `it uses opset ${version} of '${domain}', the model ${own}`;
  }
  for (const node of item.body.nodes()) {
    if (node.subgraphs.length > 0) return `its body has a subgraph (${node.op})`;
    for (const attribute of node.attributes.values()) {
      if (attribute.kind === 'ref' && !item.attributeNames.includes(attribute.value)) {
        return `its attribute ${attribute.value} has a default`;
      }
    }
  }
  return reaches(item, item, functions, new Set()) ? 'it calls itself' : null;
}

/** Whether the call wants more than the body gives: such a model is broken, but that is not for an inliner to find out. */
function whyNotHere(call: Node, { body }: LocalFunction): string | null {
  const missing = call.outputs.find((result, i) => result && !isGiven(body, i, call));
  return missing ? `a call of it has the output '${missing.name}', which its body does not give` : null;
}

function isGiven(body: Graph, index: number, call: Node): boolean {
  const output = body.outputs[index];
  if (!output) return false;
  const place = body.inputs.indexOf(output);
  return place < 0 || call.input(place) !== null;
}

function reaches(
  from: LocalFunction,
  goal: LocalFunction,
  functions: ReadonlyMap<string, LocalFunction>,
  seen: Set<LocalFunction>,
): boolean {
  for (const node of from.body.nodes()) {
    const called = functions.get(keyOf(node.domain, node.opType, node.overload));
    if (!called || seen.has(called)) continue;
    if (called === goal) return true;
    seen.add(called);
    if (reaches(called, goal, functions, seen)) return true;
  }
  return false;
}

/** What graphs still call: in graphs inside their nodes too, and in the bodies of what is called. */
function calledFrom(
  graphs: readonly Graph[],
  functions: ReadonlyMap<string, LocalFunction>,
): ReadonlySet<LocalFunction> {
  const called = new Set<LocalFunction>();
  const open = [...graphs];
  for (let at = open.pop(); at; at = open.pop()) {
    for (const node of at.nodes()) {
      open.push(...node.subgraphs);
      const item = functions.get(keyOf(node.domain, node.opType, node.overload));
      if (!item || called.has(item)) continue;
      called.add(item);
      open.push(item.body);
    }
  }
  return called;
}

function inline(call: Node, { body }: LocalFunction, rewriter: Rewriter): void {
  const { graph } = call;
  const values = new Map<Value, Value | null>(body.inputs.map((value, i) => [value, call.input(i)]));
  const prefix = call.name || call.opType;
  for (const node of body.nodes()) {
    const made = graph.addNode(
      {
        opType: node.opType,
        domain: node.domain,
        name: node.name ? `${prefix}/${node.name}` : '',
        inputs: node.inputs.map((value) => (value ? (values.get(value) ?? null) : null)),
        outputs: node.outputs.map((value) => value && { name: `${prefix}/${value.name}`, type: value.type }),
        attributes: attributesOf(node, call),
      },
      { before: call },
    );
    made.overload = node.overload;
    made.docString = node.docString;
    made.metadata = node.metadata;
    for (const [i, value] of node.outputs.entries()) if (value) values.set(value, made.output(i));
  }
  for (const [i, output] of body.outputs.entries()) {
    const result = call.output(i);
    const value = values.get(output);
    if (!result || !value) continue;
    // An input that is handed through cannot take the place of an output.
    const isOwn = value.producer !== null && !body.inputs.includes(output) && !value.isGraphOutput;
    const source = isOwn ? value : identity(call, value, result);
    rewriter.replaceValue(result, source);
  }
  graph.removeNode(call);
}

function identity(before: Node, value: Value, like: Value): Value {
  const outputs = [{ name: `${like.name}/copy`, type: like.type }];
  return before.graph.addNode({ opType: 'Identity', inputs: [value], outputs }, { before }).output(0) as Value;
}

/** Attributes of a body node; references are what the call gives, or absent. */
function attributesOf(node: Node, call: Node): Record<string, Attribute> {
  const found = new Map<string, Attribute>();
  for (const [name, attribute] of node.attributes) {
    const given = attribute.kind === 'ref' ? call.attributes.get(attribute.value) : attribute;
    if (given) found.set(name, given);
  }
  return Object.fromEntries(found);
}
