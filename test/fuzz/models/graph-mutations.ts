/** Changes of a graph that is read well: other operators, attributes, names, edges, sizes, weights, functions, subgraphs. */
import type { Random } from '../random.js';
import {
  bytesOf,
  childOf,
  childrenOf,
  copyMessage,
  type Field,
  integerField,
  integersOf,
  isMessage,
  type Message,
  messageField,
  messagesIn,
  textField,
  textOf,
  textsOf,
} from '../wire.js';

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
const INTEGERS = [
  -9_223_372_036_854_775_808n,
  -3n,
  -2n,
  -1n,
  0n,
  1n,
  2n,
  3n,
  4n,
  8n,
  16n,
  1000n,
  2n ** 31n,
  2n ** 53n,
  2n ** 62n,
];

/** Graph, node and value fields of onnx.proto, by what they are. */
const NODE = { input: 1, output: 2, name: 3, op: 4, attribute: 5, domain: 7 } as const;
const GRAPH = { node: 1, initializer: 5, input: 11, output: 12, info: 13 } as const;

interface Place {
  readonly graph: Message;
  readonly nodes: readonly Message[];
  readonly names: readonly string[];
}

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
  if (random.chance(0.2)) node.fields.splice(node.fields.indexOf(field), 1);
  else if (random.chance(0.2))
    field.value = {
      ...randomAttribute(random),
      fields: [textField(1, textOf(field.value, 1)), ...randomAttribute(random).fields.slice(1)],
    };
  else if (random.chance(0.1)) node.fields.push(messageField(NODE.attribute, copyMessage(field.value)));
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

function floatField(number: number, value: number): Field {
  return { number, type: 5, value: new Uint8Array(Float32Array.of(value).buffer) };
}

function changeNumber(field: Field, random: Random): void {
  if (typeof field.value === 'bigint')
    field.value = BigInt.asUintN(64, random.chance(0.5) ? field.value + 1n : random.pick(INTEGERS));
  else if (field.type === 5) field.value = floatField(0, random.pick([0, 1, -1, 1e-6, 1e-3, 1e30, Number.NaN])).value;
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

function changeSizes({ graph }: Place, random: Random): void {
  const dimensions = [...messagesIn(graph)].flatMap(([message]) => (message.kind === 'shape' ? message.fields : []));
  const tensors = childrenOf(graph, GRAPH.initializer);
  if (tensors.length > 0 && (dimensions.length === 0 || random.chance(0.3))) {
    const sizes = random.pick(tensors).fields.filter(({ number }) => number === 1);
    if (sizes.length > 0) changeNumber(random.pick(sizes), random);
    return;
  }
  if (dimensions.length === 0) return;
  const field = random.pick(dimensions);
  const size = random.pick([-1n, 0n, 1n, 2n, 4n, 16n, 2n ** 28n, 2n ** 60n]);
  field.value = {
    kind: 'dimension',
    fields: random.chance(0.6)
      ? [integerField(1, size)]
      : [textField(2, random.pick(['batch', 'b', '', 's', 'total']))],
  };
}

function changeWeights({ graph, names }: Place, random: Random): void {
  const tensors = childrenOf(graph, GRAPH.initializer);
  if (tensors.length === 0) return;
  const tensor = random.pick(tensors);
  const raw = tensor.fields.find(({ number, value }) => number === 9 && value instanceof Uint8Array);
  switch (random.below(7)) {
    case 0:
      if (raw) raw.value = new Uint8Array((raw.value as Uint8Array).length).fill(random.pick([0, 0, 255, 127, 0x7f]));
      return;
    case 1:
      graph.fields.splice(graph.fields.indexOf(fieldOf(graph, tensor)), 1);
      return;
    case 2:
      // Also a graph input, whose default it is.
      graph.fields.push(
        messageField(
          GRAPH.input,
          valueOf(textOf(tensor, 8), Number(integersOf(tensor, 2)[0] ?? 1n), integersOf(tensor, 1)),
        ),
      );
      return;
    case 3: {
      const constant: Message = {
        kind: 'node',
        fields: [textField(NODE.output, textOf(tensor, 8)), textField(NODE.op, 'Constant')],
      };
      const value: Message = {
        kind: 'attribute',
        fields: [textField(1, 'value'), messageField(5, tensor), integerField(20, 4)],
      };
      constant.fields.push(messageField(NODE.attribute, value));
      graph.fields.splice(graph.fields.indexOf(fieldOf(graph, tensor)), 1);
      graph.fields.unshift(messageField(GRAPH.node, constant));
      return;
    }
    case 4: {
      const type = tensor.fields.find(({ number }) => number === 2);
      if (type) type.value = BigInt(random.pick([0, 1, 2, 3, 7, 9, 10, 11, 16, 17, 21, 22, 99]));
      return;
    }
    case 5: {
      tensor.fields = tensor.fields.filter(({ number }) => number !== 9);
      const entry = (key: string, value: string): Field =>
        messageField(13, { kind: 'entry', fields: [textField(1, key), textField(2, value)] });
      const location = random.pick(['absent.bin', '../up.bin', '/etc/hostname', '', '.', 'model.onnx', 'a\0b']);
      tensor.fields.push(
        entry('location', location),
        entry('offset', random.pick(['0', '-1', '1e3', '9007199254740993', ''])),
        integerField(14, 1),
      );
      return;
    }
    default: {
      const [one, other] = [bytesOf(tensor, 9)[0], random.pick(tensors)];
      if (one && raw && random.chance(0.5)) raw.value = bytesOf(other, 9)[0] ?? one;
      else setText(tensor, 8, random.pick(names));
    }
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

function valueOf(name: string, type: number, dims: readonly bigint[] | null): Message {
  const shape: Message = {
    kind: 'shape',
    fields: (dims ?? []).map((dim) => messageField(1, { kind: 'dimension', fields: [integerField(1, dim)] })),
  };
  const tensorType: Message = {
    kind: 'tensorType',
    fields: [integerField(1, type), ...(dims ? [messageField(2, shape)] : [])],
  };
  return {
    kind: 'value',
    fields: [textField(1, name), messageField(2, { kind: 'type', fields: [messageField(1, tensorType)] })],
  };
}

function changeInterface({ graph, names }: Place, random: Random): void {
  const values = graph.fields.filter(
    ({ number }) => number === GRAPH.input || number === GRAPH.output || number === GRAPH.info,
  );
  switch (random.below(4)) {
    case 0:
      // Something inside is an output too.
      graph.fields.push(messageField(GRAPH.output, valueOf(random.pick(names), random.pick([1, 1, 1, 7]), null)));
      return;
    case 1:
      if (values.length > 0) graph.fields.splice(graph.fields.indexOf(random.pick(values)), 1);
      return;
    case 2:
      graph.fields.push(
        messageField(
          GRAPH.input,
          valueOf(random.chance(0.5) ? 'extra' : random.pick(names), random.pick([1, 7]), [2n, 3n]),
        ),
      );
      return;
    default: {
      const field = values.length > 0 ? random.pick(values) : null;
      const type = field && isMessage(field.value) ? childOf(field.value, 2) : null;
      const tensorType = type && childOf(type, 1);
      const element = tensorType?.fields.find(({ number }) => number === 1);
      if (element) element.value = BigInt(random.pick([0, 1, 6, 7, 9, 10, 16, 50]));
    }
  }
}

/** A node becomes the one node of both branches of an If. */
function wrapInIf({ graph, nodes }: Place, random: Random): void {
  const node = random.pick(nodes);
  const outputs = textsOf(node, NODE.output).filter((name) => name !== '');
  if (outputs.length === 0) return;
  const branch = (tag: string): Message => {
    const inner = copyMessage(node);
    for (const field of inner.fields)
      if (field.number === NODE.output && (field.value as Uint8Array).length > 0)
        setBytes(field, `${new TextDecoder().decode(field.value as Uint8Array)}.${tag}`);
    const results = outputs.map((name) => messageField(GRAPH.output, valueOf(`${name}.${tag}`, 1, null)));
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
function makeFunction({ nodes }: Place, random: Random, model: Message): void {
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

function changeOpsets(_: Place, random: Random, model: Message): void {
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

// Fields.

function fieldOf(parent: Message, value: Message): Field {
  return parent.fields.find((field) => field.value === value) as Field;
}
function textIs({ value }: Field, text: string): boolean {
  return value instanceof Uint8Array && new TextDecoder().decode(value) === text;
}
function setBytes(field: Field, text: string): void {
  field.value = new TextEncoder().encode(text);
}
function setText(message: Message, number: number, text: string): void {
  const field = message.fields.find((each) => each.number === number);
  if (field) setBytes(field, text);
  else message.fields.push(textField(number, text));
}
