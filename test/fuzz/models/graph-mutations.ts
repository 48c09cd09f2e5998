/** Changes of a graph that is read well: other operators, attributes, names, edges, sizes, weights, functions, subgraphs. */
import type { Random } from '../random.js';
import {
  childrenOf,
  copyMessage,
  type Field,
  integerField,
  isMessage,
  type Message,
  messageField,
  messagesIn,
  textField,
  textOf,
  textsOf,
} from '../wire.js';
import {
  changeNumber,
  fieldOf,
  floatField,
  GRAPH,
  INTEGERS,
  NODE,
  type Place,
  setBytes,
  setText,
  textIs,
} from './graph-parts.js';
import { changeInterface, changeSizes, changeWeights } from './weight-mutations.js';
import { changeOpsets, makeFunction, wrapInIf } from './wrap-mutations.js';

const OPERATORS = (
  'Add Sub Mul Div Pow Sum Min Max Relu Sigmoid Tanh Gelu Erf Identity Cast CastLike Dropout Softmax LayerNormalization ' +
  'SimplifiedLayerNormalization RMSNormalization MatMul Gemm Reshape Transpose Concat Split Slice Gather Shape Size Unsqueeze Squeeze ' +
  'Expand Where Clip ReduceMean ReduceSum Attention RotaryEmbedding DequantizeLinear QuantizeLinear MatMulInteger Conv TopK If Loop ' +
  'Scan Constant ConstantOfShape Range Einsum constructor __proto__ toString'
).split(' ');
const CONTRIB = (
  'SkipLayerNormalization SkipSimplifiedLayerNormalization GroupQueryAttention MultiHeadAttention Attention MatMulNBits FusedMatMul ' +
  'FastGelu BiasGelu QuickGelu RotaryEmbedding EmbedLayerNormalization MoE AllReduce'
).split(' ');
const ATTRIBUTES = (
  'axis axes perm epsilon alpha beta transA transB keepdims to split num_heads kv_num_heads q_num_heads block_size bits K N scale ' +
  'is_causal num_outputs allowzero start end value then_branch accuracy_level weight_prepacked stash_type do_rotary local_window_size'
).split(' ');
/** Makes one change. Does nothing where there is nothing to change. */
export function mutateGraph(model: Message, random: Random): void {
  const graphs = [...messagesIn(model)].map(([message]) => message).filter(({ kind }) => kind === 'graph');
  if (graphs.length === 0) return;
  const graph = random.pick(graphs);
  const nodes = childrenOf(graph, GRAPH.node);
  const names = [
    ...nodes.flatMap((node) => textsOf(node, NODE.output)),
    ...childrenOf(graph, GRAPH.initializer).map((each) => textOf(each, 8)),
    ...childrenOf(graph, GRAPH.input).map((each) => textOf(each, 1)),
  ];
  if (nodes.length === 0 || names.length === 0) return;
  const change = random.weighted([
    [changeOperator, 3],
    [changeAttribute, 4],
    [changeEdge, 5],
    [changeName, 2],
    [changeNodes, 3],
    [changeSizes, 3],
    [changeWeights, 4],
    [insertCopy, 4],
    [changeInterface, 3],
    [wrapInIf, 1],
    [makeFunction, 1],
    [changeOpsets, 1],
  ] as const);
  change({ graph, nodes, names }, random, model);
}

function changeOperator({ nodes }: Place, random: Random): void {
  const node = random.pick(nodes);
  const isContrib = random.chance(0.3);
  setText(node, NODE.op, random.pick(isContrib ? CONTRIB : OPERATORS));
  if (random.chance(0.8))
    setText(node, NODE.domain, isContrib ? 'com.microsoft' : random.pick(['', '', 'ai.onnx', 'my.domain']));
}

function changeAttribute({ nodes }: Place, random: Random): void {
  const node = random.pick(nodes);
  const attributes = node.fields.filter(({ number }) => number === NODE.attribute);
  const field = attributes.length > 0 && random.chance(0.8) ? random.pick(attributes) : null;
  if (!field || !isMessage(field.value)) {
    node.fields.push(messageField(NODE.attribute, randomAttribute(random)));
    return;
  }
  const way = random.below(10);
  if (way < 2) node.fields.splice(node.fields.indexOf(field), 1);
  else if (way < 4)
    field.value = {
      ...randomAttribute(random),
      fields: [textField(1, textOf(field.value, 1)), ...randomAttribute(random).fields.slice(1)],
    };
  else if (way < 5) node.fields.push(messageField(NODE.attribute, copyMessage(field.value)));
  else
    for (const inner of field.value.fields) if (inner.number !== 1 && inner.number !== 20) changeNumber(inner, random);
}

function randomAttribute(random: Random): Message {
  const name = textField(1, random.pick(ATTRIBUTES));
  const typed = (type: number, ...fields: Field[]): Message => ({
    kind: 'attribute',
    fields: [name, ...fields, integerField(20, type)],
  });
  switch (random.below(4)) {
    case 0:
      return typed(1, floatField(2, random.pick([0, 1, -1, 1e-5, 1e30, Number.NaN, Number.POSITIVE_INFINITY])));
    case 1:
      return typed(3, textField(4, random.pick(['', 'tanh', 'none', 'constructor'])));
    case 2:
      return typed(7, ...Array.from({ length: random.below(5) }, () => integerField(8, random.pick(INTEGERS))));
    default:
      return typed(2, integerField(3, random.pick(INTEGERS)));
  }
}

function changeEdge({ nodes, names }: Place, random: Random): void {
  const node = random.pick(nodes);
  const inputs = node.fields.filter(({ number }) => number === NODE.input);
  if (inputs.length === 0) return;
  const field = random.pick(inputs);
  switch (random.below(6)) {
    case 0:
      node.fields.splice(node.fields.indexOf(field), 1);
      return;
    case 1:
      field.value = new Uint8Array(0);
      return;
    case 2: {
      const other = random.pick(inputs);
      [field.value, other.value] = [other.value, field.value];
      return;
    }
    case 3:
      node.fields.push(textField(NODE.input, random.pick(names)));
      return;
    default:
      setBytes(field, random.pick(names));
  }
}

function changeName({ graph, names }: Place, random: Random): void {
  const from = random.pick(names);
  const to = random.pick([
    random.pick(names),
    `${from}.x`,
    'layers.3.x',
    '',
    'past_key_values.0.key',
    '\u202e',
    'tp.x',
    'fused.layers.0-1.x',
  ]);
  // All places of the name, or only one of them.
  const places = [...messagesIn(graph)].flatMap(([message]) =>
    message.fields.filter(
      ({ number, value }) =>
        isNameField(message, number) && value instanceof Uint8Array && new TextDecoder().decode(value) === from,
    ),
  );
  for (const field of random.chance(0.7) ? places : places.slice(0, 1)) setBytes(field, to);
}

function isNameField({ kind }: Message, number: number): boolean {
  if (kind === 'node') return number === NODE.input || number === NODE.output;
  return (kind === 'value' && number === 1) || (kind === 'tensor' && number === 8);
}

function changeNodes({ graph, nodes }: Place, random: Random): void {
  const node = random.pick(nodes);
  const field = fieldOf(graph, node);
  const at = graph.fields.indexOf(field);
  switch (random.below(5)) {
    case 0:
      graph.fields.splice(at, 1);
      return;
    case 1: {
      // The node goes, and what it read takes the place of what it gave.
      const [input, output] = [textsOf(node, NODE.input)[0], textsOf(node, NODE.output)[0]];
      graph.fields.splice(at, 1);
      if (input && output)
        for (const other of nodes)
          for (const each of other.fields)
            if (each.number === NODE.input && textIs(each, output)) setBytes(each, input);
      return;
    }
    case 2:
      graph.fields.splice(at, 1);
      graph.fields.splice(random.below(graph.fields.length + 1), 0, field);
      return;
    case 3: {
      const copy = copyMessage(node);
      for (const each of copy.fields)
        if (each.number === NODE.output)
          setBytes(each, `${textOf({ kind: 'node', fields: [each] }, NODE.output)}.copy`);
      graph.fields.splice(at + 1, 0, messageField(GRAPH.node, copy));
      return;
    }
    default:
      setText(
        node,
        NODE.name,
        random.pick(['', '/model/layers.0/mlp/x', '/model/layers.7/x', 'h.2-4.x', `${'n'.repeat(500)}`]),
      );
  }
}

/** A node that hands on what it reads, in the middle of an edge: most of these leave the model what it is. */
function insertCopy({ graph, nodes }: Place, random: Random): void {
  const node = random.pick(nodes);
  const inputs = node.fields.filter(({ number, value }) => number === NODE.input && (value as Uint8Array).length > 0);
  if (inputs.length === 0) return;
  const field = random.pick(inputs);
  const from = new TextDecoder().decode(field.value as Uint8Array);
  const to = `${from}.copy${random.below(1000)}`;
  const op = random.pick(['Identity', 'Identity', 'Dropout', 'Cast', 'Reshape', 'Transpose', 'Relu', 'Unsqueeze']);
  const copy: Message = {
    kind: 'node',
    fields: [textField(NODE.input, from), textField(NODE.output, to), textField(NODE.op, op)],
  };
  const attribute = (name: string, number: number, type: number, values: readonly number[]): void => {
    const fields = [textField(1, name), ...values.map((value) => integerField(number, value)), integerField(20, type)];
    copy.fields.push(messageField(NODE.attribute, { kind: 'attribute', fields }));
  };
  if (op === 'Cast') attribute('to', 3, 2, [random.pick([1, 1, 1, 10, 11])]);
  if (op === 'Transpose')
    attribute(
      'perm',
      8,
      7,
      random.pick([
        [0, 1, 2],
        [0, 2, 1],
        [1, 0],
        [0, 1],
      ]),
    );
  if (op === 'Reshape')
    copy.fields.push(textField(NODE.input, random.pick(nodes.flatMap((each) => textsOf(each, NODE.input)))));
  setBytes(field, to);
  graph.fields.splice(graph.fields.indexOf(fieldOf(graph, node)), 0, messageField(GRAPH.node, copy));
}
