/** What the official parser reads and the official printer writes (onnx 1.23: defs/parser.cc, defs/printer.cc). */
import * as assert from 'uvu/assert';
import { type Attribute, type Node, parseModel, verifyModel } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { parseGraph, roundTrip } from './fixtures.js';

const test = suite('ir/text official syntax');

function nodesOf(text: string): Node[] {
  return [...parseGraph(text).graph.nodes()];
}

/** The attributes of one node that reads x. */
function attributesOf(attributes: string): ReadonlyMap<string, Attribute> {
  const [node] = nodesOf(`g (float[N] x) => () { y = Op <${attributes}> (x) }`);
  assert.ok(node);
  return node.attributes;
}

function attributeValue(attribute: string): unknown {
  const found = attributesOf(`a ${attribute}`).get('a');
  assert.ok(found && 'value' in found);
  return found.value;
}

test('a model with everything in its header', () => {
  const model = parseModel(`
<
  ir_version: 7,
  opset_import: [ "ai.onnx.ml" : 10, "" : 13 ],
  producer_name: "ParserTest",
  producer_version: "1.0",
  domain: "ai.onnx.ml",
  model_version: 1,
  doc_string: "A parser test case model.",
  metadata_props: [ "somekey" : "somevalue", "key2" : "value2" ]
>
agraph (float[N] y, float[N] z) => (float[N] w)
{
    # This is a comment.
    x = foo(y, z) # More comments.
    w = bar(x, y)
}
`);
  assert.is(model.irVersion, 7);
  assert.equal(model.opsets, [
    { domain: 'ai.onnx.ml', version: 10 },
    { domain: '', version: 13 },
  ]);
  assert.is(model.modelVersion, 1n);
  assert.equal(model.metadata, [
    ['somekey', 'somevalue'],
    ['key2', 'value2'],
  ]);
  assert.is(model.graph.name, 'agraph');
  assert.is(model.graph.nodeCount, 2);
  assert.equal(verifyModel(model), []);
  roundTrip(model);
});

test('a graph without header and without name', () => {
  const model = parseModel('(float[2] x) => (float[2] y) { y = Relu(x) }');
  assert.is(model.graph.name, '');
  assert.is(model.opset(''), 21);
  assert.equal(verifyModel(model), []);
});

test('initializers, defaults of inputs and value_info', () => {
  const { graph } = parseGraph(`
agraph (float y = {1.0}, float[N] z) => (w)
<float[2] w1 = {1.0, 2.0}, float[3] w2 = {4.0, 5.0, 6.0}, float[N] x>
{
    x = foo(y, z, w1)
    w = bar(x, y, w2)
}`);
  assert.equal(
    graph.initializers.map((value) => value.name),
    ['y', 'w1', 'w2'],
  );
  assert.ok(graph.value('y')?.isInput);
  assert.is(graph.value('y')?.constant, null);
  assert.equal(
    [...graph.valueInfo].map((value) => value.name),
    ['x'],
  );
  assert.is(graph.value('w')?.type, null);
});

test('operands that are absent', () => {
  const cases: [text: string, names: (string | undefined)[]][] = [
    ['Op(y, , z)', ['y', undefined, 'z']],
    ['Op( , z)', [undefined, 'z']],
    ['Op("", z)', [undefined, 'z']],
    ['Op(y, "", z)', ['y', undefined, 'z']],
    ['Op()', []],
    ['Op("")', [undefined]],
    ['Op(,)', [undefined]],
    ['Op(y,)', ['y']],
  ];
  for (const [text, names] of cases) {
    const [node] = nodesOf(`g (y, z) => () { x = ${text} }`);
    assert.equal(
      node?.inputs.map((value) => value?.name),
      names,
      text,
    );
  }
});

test('labels, domains, overloads, and attributes on either side', () => {
  const nodes = nodesOf(`g (y) => () {
    [node1] a = com.example.foo <k = 1> (y)
    b, "" = foo:bar (y) <k = 2>
    = Print (a)
    [] c = Last (b)
  }`);
  assert.equal(
    nodes.map((node) => [node.name, node.op, node.overload, node.intAttribute('k')]),
    [
      ['node1', 'com.example.foo', '', 1],
      ['', 'foo', 'bar', 2],
      ['', 'Print', '', undefined],
      ['', 'Last', '', undefined],
    ],
  );
  assert.equal(
    nodes[1]?.outputs.map((value) => value?.name),
    ['b', undefined],
  );
});

test('attributes with and without types', () => {
  assert.is(attributeValue('= 2'), 2n);
  assert.is(attributeValue('= -9223372036854775808'), -9223372036854775808n);
  assert.is(attributeValue('= 0.625'), 0.625);
  assert.is(attributeValue('= 1e1'), 10);
  assert.is(attributeValue(': float = 2'), 2);
  assert.is(attributeValue(': float = -0'), -0);
  assert.is(attributeValue('= -inf'), Number.NEGATIVE_INFINITY);
  assert.ok(Number.isNaN(attributeValue('= NaN')));
  assert.is(attributeValue('= 0.1'), Math.fround(0.1));
  assert.equal(attributeValue('= [2, 4, 6]'), [2n, 4n, 6n]);
  assert.equal(attributeValue('= [0.125, 1, inf]'), [0.125, 1, Number.POSITIVE_INFINITY]);
  assert.equal(attributeValue(': ints = []'), []);
  assert.equal(attributeValue('= "a\\"st\\\\ring\\n"'), new TextEncoder().encode('a"st\\ringn'));
  assert.is((attributeValue('= ["abc", "def"]') as Uint8Array[]).length, 2);
  assert.is(attributeValue(': ints = @xyz'), 'xyz');
  assert.equal(attributesOf('a = float[3]').get('a')?.kind, 'opaque');
  assert.equal(attributesOf('a = float[3] {1, 2, 3}').get('a')?.kind, 'tensor');
  assert.equal(attributesOf('a: tensor = float[2] named = {1, 2}, b = 1').get('a')?.kind, 'tensor');
});

test('graphs in attributes, with or without types', () => {
  const model = parseGraph(`
iftest (bool b, float[128] X, float[128] Y) => (float[128] Z)
{
  Z = If (b) <
      then_branch = g1 () => (float[128] z_then) { z_then = Identity(X) },
      else_branch: graph = "g/2" () => (float[128] z_else) { z_else = Identity(Y) }
      >
}`);
  const [node] = [...model.graph.nodes()];
  assert.equal(
    node?.subgraphs.map((graph) => graph.name),
    ['g1', 'g/2'],
  );
  assert.is(node?.subgraphs[0]?.parentNode, node);
  assert.is(model.graph.value('X')?.useCount, 1);
  assert.equal(verifyModel(model), []);
  roundTrip(model);
});

test('functions, with types and defaults of attributes', () => {
  const model = parseModel(`
<
  ir_version: 9,
  opset_import: [ "" : 15, "custom_domain" : 1]
>
agraph (float[N] x) => (float[N] out)
{
  out = custom_domain.foo<alpha=2.0, gamma=3.0>(x)
}

<
domain: "custom_domain",
opset_import: [ "" : 15],
doc_string: "function foo"
>
  foo
  <alpha: float=4.0, gamma>
  (float[N] X) => (C) <float[N] constant_alpha_x>
  {
      constant_alpha = Constant<value_float: float=@alpha>()
      constant_gamma = Constant<value_float: float=@gamma>()
      constant_alpha_x = Mul(constant_alpha, X)
      C = Add(constant_alpha_x, constant_gamma)
  }
`);
  const [item] = model.functions;
  assert.is(item?.docString, 'function foo');
  assert.equal(item?.attributeNames, ['gamma']);
  assert.equal(
    [...(item?.body.valueInfo ?? [])].map((value) => value.name),
    ['X', 'constant_alpha_x'],
  );
  assert.equal(verifyModel(model), []);
  const { text } = roundTrip(model);
  assert.ok(text.includes('foo <gamma, alpha: float = 4.0> (X) => (C) <'), text);
});

test('quoted names anywhere a name may stand', () => {
  const { graph } = parseGraph(`
"a graph name" (float[N, 128] "input/X", float[128,10] "input W", float[10] B) => (float[N] C)
{
    "some/temp" = MatMul("input/X", "input W")
    S = Add("some/temp", B)
    C = Softmax(S)
}`);
  assert.is(graph.name, 'a graph name');
  assert.is(graph.value('some/temp')?.useCount, 1);
});

test('text of the official printer', () => {
  const model = parseModel(`<
   ir_version: 10,
   opset_import: ["" : 21]
>
g (float[N] x, bool c) => (float[N] y)\u0020
   <float[2] w =  {1,2.5}, int64 "s/1" =  {3}, string[2] t = {"a", "b"}, float[N] v>
{
   [n] v = Add (x, w)
   y = If (c) <then_branch: graph = t_1 () => (float[N] p)\u0020
         <float q =  {1}>
      {
         p = Mul (v, q)
      }, else_branch: graph = e () => (float[N] r) {
         r = Foo <a: float = 1, b: ints = [1, 2], c: tensor = float[1] {1}> (v)
      }>
}`);
  assert.equal(verifyModel(model), []);
  assert.is(model.graph.value('v')?.useCount, 2);
  roundTrip(model);
});

test('nodes may stand in any order', () => {
  const { graph } = parseGraph('g (x) => (y) { y = Relu(t) t = Neg(x) }');
  assert.equal(
    [...graph.nodes()].map((node) => node.opType),
    ['Neg', 'Relu'],
  );
});

test.run();
