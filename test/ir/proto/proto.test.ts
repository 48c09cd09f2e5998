import * as assert from 'uvu/assert';
import {
  allGraphs,
  allTensors,
  type Model,
  openModelBytes,
  parseModel,
  printModel,
  readWeight,
  type Tensor,
  topologicalIndex,
} from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import {
  codeOf,
  encoded,
  type FieldSpec,
  floats,
  info,
  message,
  modelOf,
  node,
  rawBytes,
  smallModel,
} from './fixtures.js';

const test = suite('ir/proto');

const open = (bytes: Uint8Array): Model => openModelBytes(bytes, '/nowhere');
const assertIdentical = (bytes: Uint8Array, what: string): void =>
  assert.ok(encoded(open(bytes)).equals(bytes), `${what} does not come out as it came in`);

test('reads what a small model says', () => {
  const model = open(smallModel());
  assert.is(model.irVersion, 10);
  assert.is(model.opset(''), 21);
  assert.is(model.graph.name, 'small');
  const [add] = [...model.graph.nodes()];
  assert.is(add?.name, 'add');
  assert.equal(
    add?.inputs.map((value) => value?.name),
    ['x', 'w'],
  );
  assert.equal(model.graph.value('x')?.type, { kind: 'tensor', dtype: 'float', shape: [2] });
  const weight = model.graph.value('w')?.constant?.weight;
  assert.equal(weight && [...readWeight(weight)], [...rawBytes(1, 2)]);
  assertIdentical(smallModel(), 'a small model');
});

/** The default domain by its long name, in a node, an import, and a function with a node and an import of its own. */
function longDomains(): Uint8Array {
  const long: FieldSpec = [7, 'ai.onnx'];
  const opset = message([1, 'ai.onnx'], [2, 21]);
  const body = node('Neg', ['a'], ['b'], long);
  return message(
    [1, 10],
    [
      7,
      message(
        [1, node('Neg', ['x'], ['h'], long)],
        [1, node('twice', ['h'], ['y'], long)],
        [11, info('x')],
        [12, info('y')],
      ),
    ],
    [8, opset],
    [25, message([1, 'twice'], [4, 'a'], [5, 'b'], [7, body], [9, opset], [10, 'ai.onnx'])],
  );
}

test('the default domain has one name here, and keeps the one of the file there', () => {
  const model = open(longDomains());
  assert.is(model.opset(''), 21);
  assert.equal(
    [...model.graph.nodes()].map((each) => `${each.domain}|${each.op}`),
    ['|Neg', '|twice'],
  );
  assert.is(model.functions[0]?.domain, '');
  assertIdentical(longDomains(), 'a model that spells the default domain out');
  const again = parseModel(printModel(model));
  assert.ok(encoded(again).equals(longDomains()), 'its text loses the spelling');
});

/** Unknown fields of every wire type that a length can be known of. */
const UNKNOWN: readonly FieldSpec[] = [
  [900, 'text of a later version'],
  [901, 12345678901234n],
  [902, message([1, 'inner'], [77, message([5, 'deeper'])])],
];

test('keeps unknown fields at every level', () => {
  const type = message(
    [1, message([1, 1], [2, message([1, message([1, 2], ...UNKNOWN)], ...UNKNOWN)], ...UNKNOWN)],
    ...UNKNOWN,
  );
  const value = (name: string) => message([1, name], [2, type], ...UNKNOWN);
  const tensor = message(
    [1, 2],
    [2, 1],
    [8, 'w'],
    [9, rawBytes(1, 2)],
    [16, message([1, 'k'], [2, 'v'], ...UNKNOWN)],
    ...UNKNOWN,
  );
  const body = message([1, node('Identity', ['w'], ['inner'], ...UNKNOWN)], [12, value('inner')], ...UNKNOWN);
  const graphAttribute = message([1, 'then_branch'], [6, body], [20, 5], ...UNKNOWN);
  const intAttribute = message([1, 'axis'], [3, 0], [20, 2], ...UNKNOWN);
  const call = node(
    'If',
    ['x'],
    ['y'],
    [5, graphAttribute],
    [5, intAttribute],
    [10, message([1, 'id'], ...UNKNOWN)],
    ...UNKNOWN,
  );
  const annotation = message([1, 'x'], [2, message([1, 'k'], ...UNKNOWN)], ...UNKNOWN);
  const sparse = message(
    [1, message([1, 1], [2, 1], [8, 's'], [9, rawBytes(1)])],
    [2, message([1, 1], [2, 7])],
    [3, 4],
    ...UNKNOWN,
  );
  const graph = message(
    [1, call],
    [5, tensor],
    [11, value('x')],
    [12, value('y')],
    [13, value('w')],
    [14, annotation],
    [15, sparse],
    ...UNKNOWN,
  );
  const fn = message(
    [1, 'f'],
    [4, 'a'],
    [5, 'b'],
    [7, node('Identity', ['a'], ['b'], ...UNKNOWN)],
    [9, message([1, ''], [2, 21], ...UNKNOWN)],
    [11, message([1, 'alpha'], ...UNKNOWN)],
    [12, value('b')],
    ...UNKNOWN,
  );
  const bytes = message(
    [1, 14],
    [7, graph],
    [8, message([1, ''], [2, 21], ...UNKNOWN)],
    [20, message([1, graph], ...UNKNOWN)],
    [25, fn],
    [26, message([1, 'd'], ...UNKNOWN)],
    ...UNKNOWN,
  );
  assertIdentical(bytes, 'a model with unknown fields');
  // They also survive a change of the message they are in.
  const model = open(bytes);
  const [first] = [...model.graph.nodes()];
  if (first) first.metadata = [['seen', 'yes']];
  model.docString = 'changed';
  const again = open(encoded(model));
  assert.is(again.docString, 'changed');
  const count = (haystack: Uint8Array) =>
    Buffer.from(haystack).toString('latin1').split('text of a later version').length;
  assert.is(count(encoded(again)), count(bytes));
});

test('keeps fields in an order that is not ascending, also when entries come and go', () => {
  const parts: readonly FieldSpec[] = [
    [12, info('y')],
    [1, node('Add', ['x', 'w'], ['t'])],
    [5, floats('w', [1, 2])],
    [2, 'shuffled'],
    [1, node('Relu', ['t'], ['y'])],
    [11, info('x')],
  ];
  const bytes = message([8, message([2, 21], [1, ''])], [7, message(...parts)], [1, 10]);
  assertIdentical(bytes, 'a shuffled model');
  const model = open(bytes);
  model.graph.addNode({ opType: 'Neg', inputs: [model.graph.value('y') ?? null], outputs: ['z'] });
  const again = open(encoded(model));
  assert.is(again.graph.nodeCount, 3);
  assert.equal(
    [...again.graph.nodes()].map(({ opType }) => opType),
    ['Add', 'Relu', 'Neg'],
  );
});

test('keeps what another writer would leave out or write otherwise', () => {
  // Present though default; name after op_type; a tag and a value that take more bytes than they need.
  const defaults = message([1, 'x'], [2, 'y'], [4, 'Relu'], [3, ''], [6, ''], [7, '']);
  const overlong = Uint8Array.from([...message([4, 'Abs']), 0x8a, 0x00, 1, 0x79, 0x92, 0x00, 1, 0x7a]);
  const attribute = Uint8Array.from([...message([1, 'axis']), 0x18, 0x81, 0x80, 0x00, 0xa0, 0x01, 0x02]);
  const bytes = modelOf(
    [1, defaults],
    [1, overlong],
    [1, node('Neg', ['z'], ['w'], [5, attribute])],
    [10, ''],
    [11, info('x')],
    [12, info('w')],
  );
  assertIdentical(bytes, 'a model in an unusual form');
  const model = open(bytes);
  const [, abs, neg] = [...model.graph.nodes()];
  assert.is(abs?.opType, 'Abs');
  assert.is(neg?.intAttribute('axis'), 1);
});

test('an attribute without a type, without its value, or with a reference comes out as it came in', () => {
  const attributes: readonly Uint8Array[] = [
    message([1, 'untyped'], [3, 7]),
    message([1, 'silent'], [20, 2]),
    message([1, 'loud'], [3, 0], [20, 2]),
    message([1, 'empty'], [20, 7]),
    message([1, 'ref'], [20, 1], [21, 'alpha']),
    message([1, 'text'], [4, 'abc'], [13, 'said'], [20, 3]),
    message([1, 'type'], [14, message([1, message([1, 1])])], [20, 13]),
    message([1, 'sparse'], [22, message([3, 4])], [20, 11]),
    message([1, 'tensor'], [5, floats('', [1])], [20, 4]),
    message([1, 'tensors'], [10, floats('', [1])], [10, floats('', [2])], [20, 9]),
  ];
  const bytes = modelOf([1, node('Op', [], ['y'], ...attributes.map((item) => [5, item] as const))], [12, info('y')]);
  assertIdentical(bytes, 'a node with odd attributes');
  const [op] = [...open(bytes).graph.nodes()];
  assert.equal(
    [...(op?.attributes.values() ?? [])].map(({ kind }) => kind),
    ['int', 'int', 'int', 'ints', 'ref', 'string', 'opaque', 'opaque', 'tensor', 'tensors'],
  );
});

test('decodes typed data to little-endian bytes and writes them as they came', () => {
  const packed = (...values: readonly bigint[]) => {
    const wire = message(...values.map((value) => [1, value] as const));
    return Uint8Array.from(wire.filter((_, i) => wire[i] !== 8 || (i > 0 && (wire[i - 1] as number) > 127)));
  };
  const cases: readonly [name: string, code: number, field: FieldSpec, dims: number, bytes: Uint8Array][] = [
    ['float', 1, [4, rawBytes(1, -2)], 2, rawBytes(1, -2)],
    ['int64', 7, [7, packed(3n, -1n)], 2, new Uint8Array(BigInt64Array.of(3n, -1n).buffer)],
    ['int32', 6, [5, packed(3n, -1n)], 2, new Uint8Array(Int32Array.of(3, -1).buffer)],
    ['int8', 3, [5, packed(3n, -1n)], 2, new Uint8Array(Int8Array.of(3, -1).buffer)],
    ['float16', 10, [5, packed(0x3c00n, 0xc000n)], 2, new Uint8Array(Uint16Array.of(0x3c00, 0xc000).buffer)],
    ['bool', 9, [5, packed(1n, 0n)], 2, Uint8Array.of(1, 0)],
    ['uint64', 13, [11, packed(3n, 1n << 40n)], 2, new Uint8Array(BigUint64Array.of(3n, 1n << 40n).buffer)],
    [
      'double',
      11,
      [10, new Uint8Array(Float64Array.of(1.5, -2).buffer)],
      2,
      new Uint8Array(Float64Array.of(1.5, -2).buffer),
    ],
    ['uint4', 21, [5, packed(0x21n, 0x3n)], 3, Uint8Array.of(0x21, 0x3)],
  ];
  for (const [name, code, field, dims, expected] of cases) {
    const bytes = modelOf([5, message([1, dims], [2, code], field, [8, 'w'])]);
    const tensor = open(bytes).graph.value('w')?.initializer as Tensor;
    assert.is(tensor.storage, 'typed', name);
    assert.is(tensor.dtype, name);
    assert.ok(tensor.weight);
    assert.equal([...readWeight(tensor.weight)], [...expected], name);
    assertIdentical(bytes, name);
  }
  // Elements one by one, as proto2 writers before "packed" did.
  const unpacked = modelOf([5, message([1, 2], [2, 7], [7, 5], [7, 6], [8, 'w'])]);
  const weight = open(unpacked).graph.value('w')?.initializer?.weight;
  assert.equal(weight && [...new BigInt64Array(readWeight(weight).buffer)], [5n, 6n]);
  assertIdentical(unpacked, 'unpacked elements');
  const strings = modelOf([5, message([1, 2], [2, 8], [6, 'a'], [6, 'bc'], [8, 'w'])]);
  assert.equal(
    open(strings)
      .graph.value('w')
      ?.initializer?.strings?.map((text) => Buffer.from(text).toString()),
    ['a', 'bc'],
  );
  assertIdentical(strings, 'strings');
});

test('value_info goes to its value; what is about nobody keeps its place', () => {
  const bytes = modelOf(
    [1, node('Relu', ['x'], ['t'])],
    [1, node('Relu', ['t'], ['y'])],
    [11, info('x')],
    [12, info('y')],
    [13, info('gone')],
    [13, info('t', [7])],
    [13, info('t', [8])],
  );
  assertIdentical(bytes, 'value_info');
  const model = open(bytes);
  assert.equal(model.graph.value('t')?.type, { kind: 'tensor', dtype: 'float', shape: [7] });
  assert.is(model.graph.valueInfo.size, 1);
});

test('a new type or a new name is written', () => {
  const model = open(smallModel());
  const x = model.graph.value('x');
  const y = model.graph.value('y');
  assert.ok(x && y);
  x.type = { kind: 'tensor', dtype: 'float16', shape: ['batch', null, 3] };
  model.graph.renameValue(y, 'z');
  const again = open(encoded(model));
  assert.equal(again.graph.value('x')?.type, { kind: 'tensor', dtype: 'float16', shape: ['batch', null, 3] });
  assert.equal(
    again.graph.outputs.map(({ name, type }) => [name, type]),
    [['z', { kind: 'tensor', dtype: 'float', shape: [2] }]],
  );
});

test('sorts nodes that are out of order, and writes them in their order while nobody changes the graph', () => {
  const bytes = modelOf(
    [1, node('Relu', ['b'], ['y'])],
    [1, node('Relu', ['x'], ['a'])],
    [1, node('Relu', ['a'], ['b'])],
    [11, info('x')],
    [12, info('y')],
  );
  const model = open(bytes);
  assert.equal(
    [...model.graph.nodes()].map(({ outputs }) => outputs[0]?.name),
    ['a', 'b', 'y'],
  );
  assert.ok(encoded(model).equals(bytes));
  model.graph.addNode({ opType: 'Neg', inputs: [model.graph.value('y') ?? null], outputs: ['n'] });
  const sorted = [...open(encoded(model)).graph.nodes()];
  assert.equal(
    sorted.map(({ outputs }) => outputs[0]?.name),
    ['a', 'b', 'y', 'n'],
  );
});

test('subgraphs read values around them; a value defined after them is not visible', () => {
  const branch = (name: string) => message([1, node('Relu', [name], ['inner'])], [12, info('inner')]);
  const ifNode = (name: string) =>
    node('If', ['c'], ['y'], [5, message([1, 'then_branch'], [6, branch(name)], [20, 5])]);
  const bytes = modelOf(
    [1, node('Relu', ['x'], ['t'])],
    [1, ifNode('t')],
    [11, info('x')],
    [11, info('c')],
    [12, info('y')],
  );
  assertIdentical(bytes, 'a model with a subgraph');
  const model = open(bytes);
  const t = model.graph.value('t');
  assert.is(t?.useCount, 1);
  assert.is(t?.uses[0]?.node.graph.parentNode?.opType, 'If');
  // Captures count as dependencies: the node that defines t is sorted before the If.
  const late = modelOf(
    [1, ifNode('t')],
    [1, node('Relu', ['x'], ['t'])],
    [11, info('x')],
    [11, info('c')],
    [12, info('y')],
  );
  assert.equal(
    [...open(late).graph.nodes()].map(({ opType }) => opType),
    ['Relu', 'If'],
  );
  // A subgraph may hand out a value of the graph around it.
  const through = message([12, info('x')]);
  const hand = node('If', ['c'], ['y'], [5, message([1, 'then_branch'], [6, through], [20, 5])]);
  assertIdentical(modelOf([1, hand], [11, info('x')], [11, info('c')], [12, info('y')]), 'a handed out value');
  assert.is(
    codeOf(() => open(modelOf([1, ifNode('y')], [11, info('c')], [12, info('y')]))),
    'OF_CYCLE',
  );
});

test('functions have graphs of their own', () => {
  const fn = message(
    [1, 'twice'],
    [4, 'a'],
    [5, 'b'],
    [6, 'alpha'],
    [7, node('Add', ['a', 'a'], ['b'], [5, message([1, 'k'], [20, 2], [21, 'alpha'])])],
    [8, 'doubles'],
    [9, message([1, ''], [2, 18])],
    [10, 'local'],
    [11, message([1, 'beta'], [3, 4], [20, 2])],
    [12, info('b')],
  );
  const bytes = message(
    [1, 10],
    [7, message([1, node('twice', ['x'], ['y'], [7, 'local'])], [11, info('x')], [12, info('y')])],
    [25, fn],
  );
  assertIdentical(bytes, 'a function');
  const [twice] = open(bytes).functions;
  assert.equal(twice?.attributeNames, ['alpha']);
  assert.is(twice?.body.value('a')?.useCount, 2);
  assert.equal(
    twice?.opsets.map(({ domain, version }) => [domain, version]),
    [['', 18]],
  );
});

test('walks reach every graph and every tensor, subgraphs and function bodies included', () => {
  const inner = message([1, node('Relu', ['c'], ['i'])], [2, 'inner'], [5, floats('c', [1])], [12, info('i')]);
  const constant = node('Constant', [], ['k'], [5, message([1, 'value'], [5, floats('t', [2])], [20, 4])]);
  const branch = node('If', ['x'], ['y'], [5, message([1, 'then_branch'], [6, inner], [20, 5])]);
  const bytes = message(
    [1, 10],
    [7, message([1, constant], [1, branch], [2, 'main'], [5, floats('w', [3])], [11, info('x')])],
    [25, message([1, 'f'], [4, 'a'], [5, 'b'], [7, node('Relu', ['a'], ['b'])])],
  );
  const model = open(bytes);
  assert.equal(
    [...allGraphs(model)].map(({ name }) => name),
    ['main', 'inner', 'f'],
  );
  assert.equal(
    [...allTensors(model)].map(({ name }) => name),
    ['w', 'c', 't'],
  );
  assert.equal(
    [...topologicalIndex(model.graph)].map(([{ opType }, i]) => [opType, i]),
    [
      ['Constant', 0],
      ['If', 1],
    ],
  );
});

test.run();
