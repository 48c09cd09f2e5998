import * as assert from 'uvu/assert';
import { Graph, Model, type Node } from '../../ir/core.js';
import { Names } from '../../ir/names.js';
import { tensorType } from '../../ir/type.js';
import { verifyModel } from '../../ir/verify.js';
import { suite } from '../helpers/suite.js';

const order = suite('order of nodes and names');

function relu(graph: Graph, at: { before?: Node; after?: Node } = {}): Node {
  return graph.addNode({ opType: 'Relu', inputs: [graph.inputs[0] ?? null], outputs: ['y'] }, at);
}

order('isBefore agrees with the list, however many nodes are put into one place', () => {
  const graph = new Graph();
  graph.addInput('x', tensorType('float', [1]));
  const last = relu(graph);
  const first = relu(graph, { before: last });
  // Always between the same two, from either side: far more than there are numbers between them.
  for (let i = 0; i < 300; i++) {
    relu(graph, { before: last });
    relu(graph, { after: first });
  }
  for (let i = 0; i < 100; i++) graph.moveNode([...graph.nodes()][1] as Node, last);
  graph.moveNode(first, null);
  const nodes = [...graph.nodes()];
  assert.is(nodes.length, 602);
  assert.is(nodes.at(-1), first);
  for (const [i, node] of nodes.entries()) {
    assert.is(nodes[i - 1]?.isBefore(node) ?? true, true);
    assert.is(node.isBefore(nodes[i - 1] ?? node), false);
  }
  assert.equal(verifyModel(new Model(10, [{ domain: '', version: 21 }], graph)), []);
});

order('a fresh name is the base, or the base and the first number that is free', () => {
  const names = new Names();
  assert.equal([names.fresh('a'), names.fresh('a'), names.fresh('a')], ['a', 'a_1', 'a_2']);
  names.claim('a_3');
  assert.equal([names.fresh('a'), names.fresh('a_1'), names.fresh('b')], ['a_4', 'a_1_1', 'b']);
});

order.run();
