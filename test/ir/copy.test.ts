/** Copies of models: the same text, and nothing shared that a change could reach. */
import * as assert from 'uvu/assert';
import { copyModel, parseModel, printModel, verifyModel } from '../../ir/index.js';
import { filterDocumentation } from '../../ir/proto/documentation.js';
import { registry } from '../../passes/index.js';
import { GOLDEN_ROOT, readGoldenTree } from '../helpers/golden.js';
import { goldenInput } from '../helpers/golden-check.js';
import { suite } from '../helpers/suite.js';

const test = suite('copies');

test('the copy of every model of the golden files prints like the model', () => {
  const { goldens } = readGoldenTree(GOLDEN_ROOT, [...registry.keys()]);
  assert.ok(goldens.length > 100, String(goldens.length));
  for (const { name } of goldens) {
    const model = goldenInput(name);
    // Doc strings are kept for the writer, which a copy does not serve.
    filterDocumentation(model, ({ key }) => key !== null);
    assert.is(printModel(copyModel(model)), printModel(model), name);
  }
});

test('a change of the copy leaves the model as it is', () => {
  const model = goldenInput('pipeline/merged-decoder');
  const before = printModel(model);
  const copy = copyModel(model);
  const inner = [...copy.graph.nodes()].find(({ op }) => op === 'If')?.subgraphs[0];
  assert.ok(inner);
  for (const graph of [copy.graph, inner]) for (const value of [...graph.outputs]) graph.removeOutput(value);
  for (const graph of [inner, copy.graph]) for (const node of [...graph.nodes()].reverse()) graph.removeNode(node);
  assert.is(printModel(model), before);
});

test('a graph inside a node can stand in its place, under the names of its results', () => {
  const model = goldenInput('pipeline/merged-decoder');
  const [then] = [...model.graph.nodes()].find(({ op }) => op === 'If')?.subgraphs ?? [];
  const copy = copyModel(model, { inPlaceOf: (node) => (node.op === 'If' ? (then ?? null) : null) });
  const names = (outputs: readonly { readonly name: string }[]) => outputs.map(({ name }) => name);
  assert.equal(names(copy.graph.outputs), names(model.graph.outputs));
  assert.not([...copy.graph.nodes()].some(({ op }) => op === 'If'));
  assert.is(copy.graph.nodeCount, (then?.nodeCount ?? 0) + model.graph.outputs.length);
});

test('what a branch calls like something around it gets another name where it stands in place of its If', () => {
  const model = parseModel(`<ir_version: 8, opset_import: ["" : 17]>
    g (bool c, float[2] x) => (float[2] y) {
      y = If (c) <then_branch = t () => (float[2] y) <float[2] w = {1, 2}> { z = Mul (x, w)  y = Abs (z) },
                  else_branch = e () => (float[2] y) { y = Neg (x) }>
      w = Neg (y)
      z = Identity (w)
    }`);
  const before = printModel(model);
  const copy = copyModel(model, { inPlaceOf: (node) => node.subgraphs[0] ?? null });
  assert.equal(
    [...copy.graph.nodes()].map(({ op, inputs, outputs }) => [op, inputs[0]?.name, outputs[0]?.name]),
    [
      ['Mul', 'x', 'z_1'],
      ['Abs', 'z_1', 'y_1'],
      ['Identity', 'y_1', 'y'],
      ['Neg', 'y', 'w'],
      ['Identity', 'w', 'z'],
    ],
  );
  assert.equal(
    [...copy.graph.initializers].map(({ name, initializer }) => [name, initializer?.name]),
    [['w_1', 'w_1']],
  );
  assert.is(printModel(model), before);
  assert.equal(verifyModel(copy), []);
});

test.run();
