/** Nodes that become branches of an If, or functions; other versions of the operators. */
import type { Random } from '../random.js';
import {
  childrenOf,
  copyMessage,
  type Field,
  integerField,
  type Message,
  messageField,
  textField,
  textOf,
  textsOf,
} from '../wire.js';
import { fieldOf, GRAPH, NODE, type Place, setBytes, setText, valueInfo } from './graph-parts.js';

/** A node becomes the one node of both branches of an If. */
export function wrapInIf({ graph, nodes }: Place, random: Random): void {
  const node = random.pick(nodes);
  const outputs = textsOf(node, NODE.output).filter((name) => name !== '');
  if (outputs.length === 0) return;
  const branch = (tag: string): Message => {
    const inner = copyMessage(node);
    for (const field of inner.fields)
      if (field.number === NODE.output && (field.value as Uint8Array).length > 0)
        setBytes(field, `${new TextDecoder().decode(field.value as Uint8Array)}.${tag}`);
    const results = outputs.map((name) => messageField(GRAPH.output, valueInfo(`${name}.${tag}`, 1, null)));
    return { kind: 'graph', fields: [messageField(GRAPH.node, inner), textField(2, tag), ...results] };
  };
  const attribute = (name: string): Field =>
    messageField(NODE.attribute, {
      kind: 'attribute',
      fields: [textField(1, name), messageField(6, branch(name)), integerField(20, 5)],
    });
  const tensor: Message = {
    kind: 'tensor',
    fields: [
      integerField(2, 9),
      textField(8, 'fuzz.condition'),
      { number: 9, type: 2, value: Uint8Array.of(random.below(2)) },
    ],
  };
  if (!childrenOf(graph, GRAPH.initializer).some((each) => textOf(each, 8) === 'fuzz.condition'))
    graph.fields.push(messageField(GRAPH.initializer, tensor));
  const choice: Message = {
    kind: 'node',
    fields: [
      textField(NODE.input, 'fuzz.condition'),
      ...outputs.map((name) => textField(NODE.output, name)),
      textField(NODE.op, 'If'),
      attribute('then_branch'),
      attribute('else_branch'),
    ],
  };
  fieldOf(graph, node).value = choice;
}

/** A node becomes a call of a function that is that node, or of one that calls itself. */
export function makeFunction({ nodes }: Place, random: Random, model: Message): void {
  const node = random.pick(nodes);
  const [inputs, outputs] = [textsOf(node, NODE.input), textsOf(node, NODE.output)];
  const name = `Fuzz${random.below(3)}`;
  const inner = copyMessage(node);
  if (random.chance(0.2)) setText(inner, NODE.op, name);
  if (random.chance(0.2)) setText(inner, NODE.domain, 'fuzz');
  const body: Message = {
    kind: 'function',
    fields: [
      textField(1, name),
      ...[...new Set(inputs)].filter((each) => each !== '').map((each) => textField(4, each)),
      ...outputs.map((each) => textField(5, each)),
      messageField(7, inner),
      ...childrenOf(model, 8).map((opset) => messageField(9, copyMessage(opset))),
      textField(10, 'fuzz'),
    ],
  };
  model.fields.push(messageField(25, body));
  if (!childrenOf(model, 8).some((opset) => textOf(opset, 1) === 'fuzz')) {
    model.fields.push(messageField(8, { kind: 'opset', fields: [textField(1, 'fuzz'), integerField(2, 1)] }));
  }
  const given = [...new Set(inputs)].filter((each) => each !== '');
  node.fields = [
    ...given.map((each) => textField(NODE.input, each)),
    ...outputs.map((each) => textField(NODE.output, each)),
    textField(NODE.op, name),
    textField(NODE.domain, 'fuzz'),
  ];
}

export function changeOpsets(_: Place, random: Random, model: Message): void {
  const opsets = childrenOf(model, 8);
  if (opsets.length === 0) return;
  const opset = random.pick(opsets);
  if (random.chance(0.3)) setText(opset, 1, random.pick(['', 'ai.onnx', 'com.microsoft', 'other']));
  else
    opset.fields = [
      ...opset.fields.filter(({ number }) => number !== 2),
      integerField(2, random.pick([0n, 1n, 7n, 11n, 13n, 17n, 18n, 21n, 23n, 99n, -1n])),
    ];
}
