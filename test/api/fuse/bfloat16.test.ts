/** bfloat16 models are checked through fp32 twins, because onnxruntime has no bfloat16 kernels on a CPU. */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import { prepare } from '../../../api/fuse/prepared.js';
import { fuse } from '../../../api/index.js';
import {
  concat,
  Diagnostic,
  openModel,
  parseModel,
  printModel,
  readWeight,
  saveModel,
  Tensor,
  type Weight,
} from '../../../ir/index.js';
import { concatFfn, definePass, factsOf } from '../../../passes/index.js';
import { changeType, floatTwin, usesBfloat16, verifyPair } from '../../../runtime/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('bfloat16');

/** Our trained model with bfloat16 in every place of float16. */
async function bfloat16Model(folder: string): Promise<string> {
  const path = join(folder, 'tales-bf16.onnx');
  await saveModel(changeType(openModel(TALES12), 'float16', 'bfloat16'), path);
  return path;
}

const EVERYWHERE = `<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
g (bfloat16[2] x, bool flag) => (bfloat16[2] y) <
  bfloat16[2] w = {1.0, -3.140625}, float[1] kept = {0.1}
> {
  c = Constant <value: tensor = bfloat16[2] {0.5, 2.0}> ()
  wide = Cast <to: int = 1> (x)
  narrow = Cast <to: int = 16, saturate: int = 1> (wide)
  unnamed = Add (narrow, w)
  y = If (flag) <
    then_branch = t () => (bfloat16[2] a) <bfloat16[2] v = {3.0, 4.0}> { a = Add (unnamed, v) },
    else_branch = e () => (bfloat16[2] b) { b = local.twice (c) }
  >
}
<domain: "local", opset_import: ["" : 21]>
twice (x) => (y) { two = Constant <value: tensor = bfloat16 {2.0}> ()  y = Mul (x, two) }
`;

test('a twin has float in every place of bfloat16, with the same numbers', () => {
  const model = parseModel(EVERYWHERE);
  assert.ok(usesBfloat16(model));
  const before = printModel(model);
  const twin = printModel(floatTwin(model));
  assert.not(usesBfloat16(model));
  const weight = model.graph.value('w')?.initializer?.weight as Weight;
  assert.equal([...new Float32Array(readWeight(weight).buffer)], [1, -3.140625]);
  // Every widening is written as an expression over the old constant: without those, nothing but the word has changed.
  const evaluated = twin.replace(/\["expr": "cast\(float, bfloat16(\[\d+\])?(\{[^}]*\})\)"[^\]]*\]/g, '$2');
  const expected = before.replaceAll('bfloat16', 'float').replace('to: int = 16', 'to: int = 1');
  assert.is(evaluated.replaceAll(' = {', ' {'), expected.replaceAll(' = {', ' {'));
  assert.is(printModel(floatTwin(model)), twin, 'a twin is its own twin');
});

test('twins are equal whether their constants are in memory or in a temporary file, which goes away', () =>
  inWorkspace(async (folder) => {
    const path = await bfloat16Model(folder);
    const inMemory = await prepare(floatTwin(openModel(path)), folder);
    const inFile = await prepare(floatTwin(openModel(path)), folder, 0);
    assert.ok(typeof inMemory.location !== 'string' && typeof inFile.location === 'string');
    const { worst, positions } = await verifyPair(inMemory, inFile);
    assert.is(worst.relative, 0);
    assert.ok(positions > 0);
    await inFile.discard();
    await inFile.discard();
    assert.equal(readdirSync(folder), ['tales-bf16.onnx']);
  }));

test('a fused bfloat16 model is checked against the parallel one, and measured against the original', () =>
  inWorkspace(async (folder) => {
    const output = join(folder, 'out.onnx');
    const report = await fuse({ input: await bfloat16Model(folder), output, removeAttention: [3, 4, 5, 6] });
    const { checks } = report;
    assert.is(factsOf(report, concatFfn)[0]?.fusedWidth, 1056);
    assert.is(checks.skipped, null);
    assert.ok(checks.algebra?.pass);
    assert.is(checks.algebra.precision, 'bfloat16 (through an fp32 twin)');
    assert.is(checks.algebra.tolerance, 1e-2);
    // Norms were folded and rounded to bfloat16 once: not nothing, and far less than a wrong weight would do.
    assert.ok(checks.algebra.maxRelative > 1e-5 && checks.algebra.maxRelative < 2e-3, `${checks.algebra.maxRelative}`);
    assert.ok(checks.algebra.positions > 0);
    assert.ok((checks.drift?.kl ?? 0) > 0);
    assert.ok(usesBfloat16(openModel(output)), 'what is written is bfloat16');
    assert.equal(readdirSync(folder).sort(), ['out.onnx', 'tales-bf16.onnx']);
  }));

/** A bug that fused graphs of every shape would let through: the parts of the down projection in the wrong order. */
const shuffle = definePass({
  id: 'shuffle-down',
  summary: 'puts the parts of fused down projections in another order',
  effect: 'reassociates',
  options: {},
  statistics: {},
  run({ graph }) {
    for (const value of graph.initializers) {
      const weight = value.initializer?.weight;
      if (weight?.op !== 'concat' || !/\.down\.weight$/.test(value.name)) continue;
      const parts = [...weight.parts].reverse();
      graph.replaceInitializer(value, new Tensor(value.name, weight.dtype, weight.dims, concat(parts, weight.axis)));
    }
  },
});

test('a wrong fused weight of a bfloat16 model fails the check, and nothing is written', () =>
  inWorkspace(async (folder) => {
    const input = await bfloat16Model(folder);
    const output = join(folder, 'out.onnx');
    const pipeline = 'remove-attention{layers=3-6},parallelize-ffn,concat-ffn,shuffle-down';
    try {
      await fuse({ input, output, pipeline, passes: [shuffle] });
      assert.unreachable('the check let it pass');
    } catch (error) {
      assert.instance(error, Diagnostic);
      assert.is((error as Diagnostic).code, 'OF_CHECK_FAILED');
    }
    assert.not(existsSync(output));
    assert.equal(readdirSync(dirname(output)), ['tales-bf16.onnx']);
  }));

test.run();
