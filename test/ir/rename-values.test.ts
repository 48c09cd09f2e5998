/** Renaming several values at once. */
import * as assert from 'uvu/assert';
import { Graph, type Value } from '../../ir/core.js';
import { tensorType } from '../../ir/type.js';
import { suite } from '../helpers/suite.js';

const renaming = suite('rename values');
const type = tensorType('float', [1]);

function threeInputs(): { graph: Graph; a: Value; b: Value; c: Value } {
  const graph = new Graph();
  const [a, b, c] = ['a', 'b', 'c'].map((name) => graph.addInput(name, type)) as [Value, Value, Value];
  return { graph, a, b, c };
}

renaming('lets names change places and keeps readers', () => {
  const { graph, a, b, c } = threeInputs();
  const node = graph.addNode({ opType: 'Add', inputs: [a, b], outputs: ['sum'] });
  graph.renameValues(
    new Map([
      [a, 'b'],
      [b, 'c'],
      [c, 'a'],
    ]),
  );
  assert.equal([a.name, b.name, c.name], ['b', 'c', 'a']);
  assert.is(graph.value('b'), a);
  assert.is(graph.value('a'), c);
  assert.equal(
    node.inputs.map((value) => value?.name),
    ['b', 'c'],
  );
});

renaming('may give a name that a removed value had', () => {
  const { graph, a, b } = threeInputs();
  graph.removeInput(a);
  assert.throws(() => graph.renameValue(b, 'a'), /cannot rename/);
  graph.renameValues(new Map([[b, 'a']]));
  assert.is(b.name, 'a');
  assert.is(graph.names.fresh('a'), 'a_1');
});

renaming('refuses a name that stays with another value, and changes nothing', () => {
  const { graph, a, b, c } = threeInputs();
  const wrong: [string, Map<Value, string>][] = [
    ['taken', new Map([[a, 'z'] as const, [b, 'c'] as const])],
    ['given twice', new Map([[a, 'z'] as const, [b, 'z'] as const])],
    ['empty', new Map([[a, '']])],
  ];
  const revision = graph.revision;
  for (const [what, names] of wrong) assert.throws(() => graph.renameValues(names), RangeError, what);
  assert.equal([a.name, b.name, c.name], ['a', 'b', 'c']);
  assert.is(graph.revision, revision);
});

renaming('refuses names of the graphs around and inside', () => {
  const { graph, a } = threeInputs();
  const inner = new Graph(graph);
  const value = inner.addNode({ opType: 'Identity', inputs: [a], outputs: ['deep'] }).output(0) as Value;
  inner.addOutput(value);
  graph.addNode({
    opType: 'If',
    inputs: [a],
    outputs: ['chosen'],
    attributes: { then_branch: { kind: 'graph', value: inner } },
  });
  assert.throws(() => graph.renameValues(new Map([[a, 'deep']])), /taken/);
  assert.throws(() => inner.renameValues(new Map([[value, 'b']])), /taken/);
  assert.throws(() => inner.renameValues(new Map([[a, 'free']])), /no value of/);
  inner.renameValues(new Map([[value, 'free']]));
  assert.is(inner.value('free'), value);
});

renaming.run();
