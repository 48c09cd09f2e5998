/** One layer, two layers: everywhere a person reads. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { counted, saveModel } from '../../ir/index.js';
import { removeAttention, removeFfn, renameKv } from '../../passes/index.js';
import { GOLDEN_ROOT } from '../helpers/golden.js';
import { goldenInput } from '../helpers/golden-check.js';
import { ROOT } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { checkPlurals, inWorkspace, runCli } from '../helpers/workspace.js';

const test = suite('plurals');

test('what is counted is called one or several', () => {
  assert.is(counted(0, 'layer'), '0 layers');
  assert.is(counted(1, 'layer'), '1 layer');
  assert.is(counted(2, 'layer'), '2 layers');
  assert.is(counted(1, 'branch', { many: 'branches' }), '1 branch');
  assert.is(counted(3, 'branch', { many: 'branches' }), '3 branches');
  assert.is(counted(2e6, 'parameter', { text: '2.00 M' }), '2.00 M parameters');
});

test('a false plural is noticed, and what only looks like one is not', () => {
  for (const text of ['1 layers', 'and 1 more operators', 'with 1 KV-cache inputs', '2 ranks, 1 heads']) {
    assert.throws(() => checkPlurals(text), /it says/);
  }
  for (const text of ['1 layer', '11 layers', '0.1 tokens', 'layers 0 and 11', '5 x 1 heads', 'batch 8 x 1 tokens']) {
    checkPlurals(text);
  }
});

test('golden files and documents', () => {
  const golden = readdirSync(GOLDEN_ROOT, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.golden'),
  );
  const docs = readdirSync(join(ROOT, 'docs')).filter((file) => file.endsWith('.md'));
  assert.ok(golden.length > 100 && docs.length > 10);
  for (const path of [
    ...golden.map((file) => join(GOLDEN_ROOT, file)),
    ...docs.map((file) => join(ROOT, 'docs', file)),
  ])
    checkPlurals(readFileSync(path, 'utf8'));
});

test('passes say of one layer that it is one', () => {
  const cache = (layer: number) => ({ layer, kvInputs: [`past.${layer}`], kvOutputs: [] });
  assert.equal(removeAttention.facts?.describe([cache(4)] as never), [
    'attention removed from layer 4 with 1 KV-cache input',
  ]);
  assert.equal(removeAttention.facts?.describe([cache(4), cache(5)] as never), [
    'attention removed from layers 4-5 with 2 KV-cache inputs',
  ]);
  assert.equal(removeFfn.facts?.describe([{ layer: 2 }] as never), ['FFN removed from layer 2']);
  assert.equal(renameKv.facts?.describe([{ from: 'a', to: 'b' }]), ['1 cache renumbered']);
});

test('a run on one layer, and the plan of another, say so', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'in.onnx');
    await saveModel(goldenInput('pipeline/adds'), path);
    const { code, stdout, stderr } = await runCli(path, join(folder, 'out.onnx'), '--remove-attention', '1');
    assert.is(code, 0, stderr);
    assert.match(stdout, /^attention removed from layer 1\b/m);
  }));

test.run();
