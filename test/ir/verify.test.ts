import * as assert from 'uvu/assert';
import {
  Graph,
  inlineWeight,
  LocalFunction,
  Model,
  type Node,
  Tensor,
  type Value,
  verifyModel,
} from '../../ir/index.js';
import { suite } from '../helpers/suite.js';
import { parseGraph } from './text/fixtures.js';

const test = suite('ir/verify');

const TWO_BRANCHES = `g (float[2] x, bool c) => (y) <float[2] w = {1, 2}> {
  [add] a = Add (x, w)
  [if] y = If (c) <
    then_branch: graph = t () => (p) { [n] p = Mul (a, w) },
    else_branch: graph = e () => (p) { [n] p = Relu (a) }
  >
}`;

interface Parts {
  readonly model: Model;
  readonly graph: Graph;
  readonly nodes: readonly Node[];
  readonly value: (name: string) => Value;
}

function partsOf(text = TWO_BRANCHES): Parts {
  const model = parseGraph(text);
  const { graph } = model;
  const value = (name: string): Value => {
    const found = graph.value(name);
    assert.ok(found);
    return found;
  };
  return { model, graph, nodes: [...graph.nodes()], value };
}

const floats = (name: string, dims: number[], bytes = 4 * dims.reduce((a, b) => a * b, 1)): Tensor =>
  new Tensor(name, 'float', dims, inlineWeight(new Uint8Array(bytes), 'float', dims));

test('a sound model has no violations', () => {
  assert.equal(verifyModel(partsOf().model), []);
  assert.equal(verifyModel(new Model(10, [], new Graph())), []);
});

/** What is done to a sound model, and the one line that has to say so. */
const BREACHES: readonly [what: string, breach: (parts: Parts) => void, ...expected: RegExp[]][] = [
  [
    'an operand without its use',
    ({ value }) => value('a').useSet.clear(),
    /^E3 node 'n' \(Mul\), operand 0 \('a'\): the value does not count this use$/,
    /^E3 node 'n' \(Relu\), operand 0 \('a'\)/,
  ],
  [
    'a use without its operand',
    ({ nodes }) => {
      nodes[0]!.slots[1] = null;
    },
    /^E3 graph 'g', value 'w': counts a use by node 'add' \(Add\), operand 1, which is none$/,
    /^E3 node 'add' \(Add\): operand 1 is absent, yet counted/,
  ],
  [
    'a use by a graph that nobody holds any more',
    ({ nodes }) => nodes[1]!.attributeMap.delete('else_branch'),
    /^E3 graph 'g', value 'a': counts a use by node 'n' \(Relu\), operand 0, which is none$/,
  ],
  [
    'an operand that comes later',
    ({ graph, nodes }) => graph.moveNode(nodes[0]!, null),
    /^E2 node 'n' \(Mul\), operand 0 \('a'\): is read before it is defined$/,
    /^E2 node 'n' \(Relu\)/,
  ],
  [
    'a cycle',
    ({ nodes, value }) => nodes[0]!.setInput(0, value('a')),
    /^E2 node 'add' \(Add\), operand 0 \('a'\): is read before it is defined$/,
  ],
  [
    'a result read inside the node that makes it',
    ({ nodes, value }) => [...nodes[1]!.subgraphs[0]!.nodes()][0]!.setInput(0, value('y')),
    /^E2 node 'n' \(Mul\), operand 0 \('y'\)/,
  ],
  [
    'an operand of a graph that is not around',
    ({ nodes }) => nodes[0]!.setInput(0, nodes[1]!.subgraphs[0]!.value('p')!),
    /^E1 node 'add' \(Add\), operand 0 \('p'\): is not the value that this name finds here$/,
    /^E1 node 'add' \(Add\), operand 0 \('p'\): is a value of a graph that is not around this one$/,
  ],
  [
    'an operand hidden by a value of the same name',
    ({ nodes }) => nodes[1]!.subgraphs[0]!.addInput('a', null),
    /^E1 node 'n' \(Mul\), operand 0 \('a'\): is not the value that this name finds here$/,
  ],
  [
    'a result with the name of a value around it',
    ({ nodes }) => nodes[1]!.subgraphs[0]!.addNode({ opType: 'Neg', inputs: [], outputs: ['x'] }, { exact: true }),
    /^V6 node 'x' \(Neg\): its result 'x' has the name of a value around its graph$/,
  ],
  [
    'an output count that is wrong',
    ({ value }) => {
      value('y').outputCount = 0;
    },
    /^E4 graph 'g', value 'y': is 1 times an output, counts 0$/,
  ],
  [
    'a torn list of nodes',
    ({ nodes }) => {
      nodes[1]!.prev = null;
    },
    /^N1 node 'if' \(If\): the list of nodes is torn before it$/,
  ],
  [
    'a node that says it was removed',
    ({ nodes }) => {
      nodes[1]!.attached = false;
    },
    /^N1 node 'if' \(If\): is not a node of graph 'g'$/,
    /^V2 graph 'g', value 'y': its producer does not list it$/,
  ],
  [
    'two nodes of one name in one graph',
    ({ graph, value }) =>
      graph.addNode({ opType: 'Neg', name: 'add', inputs: [value('x')], outputs: ['z'] }, { exact: true }),
    /^N2 node 'add' \(Neg\): another node has this name$/,
  ],
  [
    'an attribute without a name',
    ({ nodes }) => nodes[0]!.setAttribute('', { kind: 'int', value: 1n }),
    /^N3 node 'add' \(Add\): an attribute has no name$/,
  ],
  [
    'a reference to an attribute outside of functions',
    ({ nodes }) => nodes[0]!.setAttribute('k', { kind: 'ref', value: 'alpha', type: 1 }),
    /^N3 node 'add' \(Add\): attribute 'k' refers to a function's/,
  ],
  [
    'a subgraph that belongs to another node',
    ({ nodes }) => {
      nodes[1]!.subgraphs[0]!.parentNode = nodes[0]!;
    },
    /^N4 node 'if' \(If\): its graph 't' in node 'add' \(Add\) belongs elsewhere$/,
  ],
  [
    'a domain that is not imported',
    ({ graph, value }) => graph.addNode({ opType: 'Op', domain: 'my.own', inputs: [value('x')], outputs: ['z'] }),
    /^N5 node 'z' \(my\.own\.Op\): the domain 'my\.own' is not imported$/,
  ],
  [
    'a tensor of another name',
    ({ value }) => {
      value('w').initializer!.name = 'v';
    },
    /^V4 graph 'g', value 'w': its tensor is named 'v'$/,
  ],
  [
    'an initializer whose weight has another shape',
    ({ graph, value }) => {
      const weight = floats('w', [3]).weight;
      graph.replaceInitializer(value('w'), new Tensor('w', 'float', [2], weight));
    },
    /^V4 graph 'g', value 'w': its weight is float\[3\] of 12 bytes, not float\[2\] of 8$/,
  ],
  [
    'an initializer with too few bytes',
    ({ graph, value }) => graph.replaceInitializer(value('w'), floats('w', [2], 4)),
    /^V4 graph 'g', value 'w': its weight is float\[2\] of 4 bytes, not float\[2\] of 8$/,
  ],
  [
    'a constant in an attribute with too few bytes',
    ({ nodes }) => nodes[0]!.setAttribute('value', { kind: 'tensor', value: floats('k', [2], 4) }),
    /^V4 node 'add' \(Add\), tensor 'k': its weight is/,
  ],
  [
    'an initializer declared as another type',
    ({ value }) => {
      value('w').type = { kind: 'tensor', dtype: 'float16', shape: [2] };
    },
    /^V5 graph 'g', value 'w': is declared float16, holds float$/,
  ],
  [
    'value_info about a value of another graph',
    ({ graph, nodes }) => graph.valueInfo.add(nodes[1]!.subgraphs[0]!.value('p')!),
    /^V5 graph 'g': value_info lists the foreign value 'p'$/,
  ],
  [
    'an input that is not marked',
    ({ value }) => {
      value('x').inputFlag = false;
    },
    /^V2 graph 'g', value 'x': nothing defines it$/,
    /^V3 graph 'g': the input 'x' is not marked as one$/,
  ],
  [
    'a value renamed behind the back of its graph',
    ({ value }) => value('a').setNameInternal('b'),
    /^V1 graph 'g', value 'b': is not what its graph knows by this name$/,
    /^V1 graph 'g', value 'b': has a name that could be given away again$/,
    /^V2 node 'add' \(Add\): its result 0 \('b'\) is not a value of its graph$/,
    /^E1 node 'n' \(Mul\), operand 0 \('b'\)/,
    /^E1 node 'n' \(Relu\)/,
  ],
  [
    'an ir_version too low for private initializers',
    ({ model }) => {
      model.irVersion = 3;
    },
    /^M2 model: ir_version is 3, initializer 'w', which is no input, needs 4$/,
  ],
  [
    'an ir_version too low for functions, which are there twice',
    ({ model }) => {
      model.irVersion = 7;
      for (let i = 0; i < 2; i++) model.functions.push(new LocalFunction('my', 'F', '', new Graph(), [], []));
    },
    /^M1 function 'my\.F': is defined twice$/,
    /^M2 model: ir_version is 7, function 'my\.F' needs 8$/,
  ],
  [
    'an operator in a function whose domain only the model imports',
    ({ model }) => {
      const body = new Graph();
      body.addNode({ opType: 'QuickGelu', domain: 'com.microsoft', inputs: [], outputs: ['y'] });
      model.functions.push(new LocalFunction('my', 'F', '', body, [], [{ domain: 'ai.onnx', version: 21 }]));
    },
    /^N5 node 'y' \(com\.microsoft\.QuickGelu\): the domain 'com\.microsoft' is not imported$/,
  ],
];

for (const [what, breach, ...expected] of BREACHES) {
  test(`reports ${what}`, () => {
    const parts = partsOf();
    breach(parts);
    const found = verifyModel(parts.model);
    assert.is(found.length, expected.length, found.join('\n'));
    for (const pattern of expected) {
      assert.ok(
        found.some((line) => pattern.test(line)),
        `${pattern} is not in\n${found.join('\n')}`,
      );
    }
  });
}

test('siblings may share names of values and nodes, and a later value hides nothing', () => {
  const { model } = partsOf(`g (bool c) => (y, q) {
    y = If (c) <a = t () => (p) { [n] p = Op () }, b = e () => (p) { [n] p = Op () }>
    p = Op ()
    q = If (c) <a = t () => (r) { [n] r = Relu (p) }>
  }`);
  assert.equal(verifyModel(model), []);
});

test('a value may be an output twice, and of a graph that it is not in', () => {
  const { model } = partsOf(`g (x, bool c) => (y, y, x) { y = If (c) <a = t () => (x, x) {}, b = e () => (x) {}> }`);
  assert.equal(verifyModel(model), []);
});

test('what passes do through the methods of the core breaks nothing', () => {
  const { model, graph, nodes, value } = partsOf();
  const relu = graph.addNode(
    { opType: 'Relu', name: 'add', inputs: [value('a'), null], outputs: ['a', null] },
    { after: nodes[0]! },
  );
  graph.replaceUses(value('a'), relu.output(0)!);
  relu.setInput(0, value('a'));
  graph.renameValue(value('w'), 'weight');
  const dead = graph.addNode({ opType: 'Neg', inputs: [value('x')], outputs: ['dead'] });
  graph.removeNode(dead);
  assert.equal(verifyModel(model), []);
});

test('fifty thousand nodes in a chain are verified without recursion', () => {
  const model = new Model(10, [{ domain: '', version: 21 }], new Graph());
  let last = model.graph.addInput('x', null);
  for (let i = 0; i < 50_000; i++) {
    const [node, weight] = [`n${i}`, model.graph.addInitializer(`w${i}`, floats('', [1]))];
    last = model.graph.addNode({ opType: 'Add', name: node, inputs: [last, weight], outputs: [node] }).output(0)!;
  }
  model.graph.addOutput(last);
  assert.equal(verifyModel(model), []);
});

test.run();
