/**
 * Finds the residual stream of a graph: between which value (the embedding) and which output it runs.
 */
import type { Graph, Value } from '../../../ir/core.js';
import { isFloat } from '../../../ir/type.js';
import { constantOf } from '../values/constants.js';
import { type ElementTypes, inferElementTypes } from '../values/element-types.js';
import { flowsOf, type Point, pointOf, type ResidualStream, sumOutput } from './residual-stream.js';
import { stagesBetween } from './stages.js';

/** Finds the residual stream of `graph`: the embedding and output that give the most residual stages. */
export function findResidualStream(graph: Graph): ResidualStream {
  const types = inferElementTypes(graph);
  const none = { stages: [], endingAt: new Map(), position: new Map(), embedding: null, output: null };
  let best: ResidualStream = { graph, types, ...none };
  let most = 0;
  for (const source of embeddingCandidates(graph, types)) {
    const reached = reachedFrom(graph, source);
    for (const output of outputCandidates(graph, reached)) {
      const { stages, position } = stagesBetween(types, reached, output);
      const count = stages.filter((stage) => stage.isResidual).length;
      if (count > most) {
        const endingAt = new Map(stages.map((stage) => [stage.end, stage]));
        best = { graph, types, stages, endingAt, position, embedding: source, output };
        most = count;
      }
    }
  }
  return best;
}

/** Floating-point values that come from integers and constants alone (an embedding look-up), and 3-D float inputs. */
function embeddingCandidates(graph: Graph, types: ElementTypes): Point[] {
  const found: Point[] = [];
  const isActivation = new Set<Value>();
  const inputs: Value[] = [];
  for (let at: Graph | null = graph; at; at = at.parent) inputs.push(...at.inputs);
  for (const value of inputs) {
    if (constantOf(value)) continue;
    isActivation.add(value);
    const type = value.type;
    if (type?.kind === 'tensor' && isFloat(type.dtype) && (type.shape === null || type.shape.length === 3)) {
      found.push(value);
    }
  }
  for (const node of graph.nodes()) {
    const active = node.inputs.filter((value) => value && isActivation.has(value));
    if (active.length === 0) continue;
    const output = node.output(0);
    for (const value of node.outputs) if (value) isActivation.add(value);
    // A quantised table is looked up first and dequantised afterwards.
    const isLookup = /^(Gather|Embed|DequantizeLinear$)/.test(node.opType);
    const readsFloat = active.some((value) => value && isFloat(types.get(value) ?? 'undefined') && !isTable(value));
    if (isLookup && output && !readsFloat && isFloat(types.get(output) ?? 'undefined')) {
      found.push(sumOutput(node) === null ? output : node);
    }
  }
  return found.slice(0, 16);
}

/** A matrix fed from outside: some files have their weights as graph inputs without a value. */
function isTable(value: Value): boolean {
  return value.isInput && value.type?.kind === 'tensor' && value.type.shape?.length === 2;
}

function reachedFrom(graph: Graph, source: Point): Map<Point, readonly Point[]> {
  const reached = new Map<Point, readonly Point[]>([[source, []]]);
  for (const node of graph.nodes()) {
    for (const [point, reads] of flowsOf(node)) {
      const from = reads.filter((read) => reached.has(read));
      if (from.length > 0 && !reached.has(point)) reached.set(point, from);
    }
  }
  return reached;
}

/**
 * Where the stream may end: the first output, the output computed last, and the last point of all. The latter matters
 * for graphs whose final norm nobody reads: some exporters wire the head to an earlier layer.
 */
function outputCandidates(graph: Graph, reached: ReadonlyMap<Point, unknown>): Point[] {
  const outputs = new Set(graph.outputs.map(pointOf).filter((point) => reached.has(point)));
  const first = outputs.values().next().value;
  let lastOutput: Point | undefined;
  let last: Point | undefined;
  for (const point of reached.keys()) {
    last = point;
    if (outputs.has(point)) lastOutput = point;
  }
  return [...new Set([first, lastOutput, last])].filter((point) => point !== undefined);
}
