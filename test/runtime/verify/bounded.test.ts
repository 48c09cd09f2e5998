/** Models that are run in pieces, because they are larger than memory: they give what the whole gives. */
import { dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import { silent } from '../../../api/basics/progress.js';
import { checkFused, failureOf } from '../../../api/fuse/check.js';
import { compareModels } from '../../../api/verify/verify.js';
import { Diagnostic, openModel, referenceOf, saveModel } from '../../../ir/index.js';
import { fuseSteps, runPipeline } from '../../../passes/index.js';
import { cutByWeights, cutSegment } from '../../../runtime/ranks/segments.js';
import { weightBytes } from '../../../runtime/session/memory.js';
import { bounded } from '../../../runtime/verify/bounded.js';
import { toleranceFor } from '../../../runtime/verify/tolerance.js';
import { verifyPair } from '../../../runtime/verify/verify.js';
import { TALES12 } from '../../helpers/paths.js';
import { writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('runtime: models in pieces');

const MIB = 2 ** 20;
/** What a session takes besides weights, and room for pieces of `mib`. */
const room = (mib: number): number => (256 + 4 * mib) * MIB;

const trained = (have: number) =>
  bounded({ location: TALES12, model: openModel(TALES12) }, () => openModel(TALES12), have);

test('a model that fits is left alone', () => {
  assert.not('pieceBytes' in trained(room(100)));
});

test('pieces hold at most so many bytes of weights, and all of the model together', () => {
  const bytes = 600 * 1024;
  const segments = cutByWeights(openModel(TALES12), bytes);
  const held = segments.map((segment) => {
    const model = openModel(TALES12);
    cutSegment(model, segment);
    return weightBytes(model);
  });
  assert.ok(segments.length > 6, `${segments.length} pieces`);
  // Small constants are in several.
  assert.ok(
    held.every((each) => each <= bytes),
    held.join(),
  );
  const [all, whole] = [held.reduce((sum, each) => sum + each, 0), weightBytes(openModel(TALES12))];
  assert.ok(all >= whole && all < 1.1 * whole, `${all} of ${whole}`);
});

test('a decoder in pieces gives the very same scores and caches, prefill and decode', () =>
  inWorkspace(async (folder) => {
    const path = writeSmallDecoder(folder, 'skip');
    const whole = { location: path, model: openModel(path) };
    const pieces = bounded(whole, () => openModel(path), room(1 / 8));
    assert.ok('pieceBytes' in pieces);
    const { worst, decode, cached, perOutput } = await verifyPair(whole, pieces, { batches: [2] });
    assert.is(worst.relative, 0);
    assert.ok(decode && cached.every(Boolean));
    assert.is(perOutput.length, whole.model.graph.outputs.length);
  }));

test('a trained one in fp16 rounds at the borders of pieces and nowhere else', async () => {
  const whole = { location: TALES12, model: openModel(TALES12) };
  const { worst, perOutput } = await verifyPair(whole, trained(room(1)), { batches: [1], tokens: [4, 4] });
  assert.is(perOutput.length, 25);
  assert.ok(worst.relative < toleranceFor(whole.model).relative, `${worst.relative}`);
});

test('an operator that does not fit by itself is said', async () => {
  const whole = { location: TALES12, model: openModel(TALES12) };
  let found: unknown;
  await verifyPair(whole, trained(room(0))).catch((error: unknown) => {
    found = error;
  });
  assert.ok(found instanceof Diagnostic);
  assert.is((found as Diagnostic).code, 'OF_MEMORY');
});

test('a fused model that is larger than memory is checked in pieces, and the check can fail', async () => {
  const steps = fuseSteps({ removeAttention: [3, 4, 5, 6] });
  const model = openModel(TALES12);
  const { facts } = runPipeline(model, steps);
  const request = { input: TALES12, steps, facts, talk: silent, memory: room(1) };
  const checks = await checkFused({ ...request, fused: { location: referenceOf(model), model } });
  assert.is(failureOf(checks), null);
  assert.match(checks.algebra?.precision ?? '', /run in pieces of at most 1(\.0+)? MiB of weights/);
  assert.ok((checks.algebra?.maxRelative ?? 0) > 0 && (checks.drift?.kl ?? 0) > 0.001);

  // Another model than was asked for: a check that passes it would be none.
  const wrong = openModel(TALES12);
  runPipeline(wrong, fuseSteps({ removeAttention: [2, 3, 4, 5] }));
  const failed = await checkFused({ ...request, fused: { location: referenceOf(wrong), model: wrong } });
  assert.is(failureOf(failed)?.code, 'OF_CHECK_FAILED');
});

test('two models that are larger than memory are compared in pieces, on text too, with the figures of the whole', () =>
  inWorkspace(async (folder) => {
    const model = openModel(TALES12);
    runPipeline(model, fuseSteps({ removeAttention: [3, 4, 5, 6] }));
    const fused = join(folder, 'fused.onnx');
    await saveModel(model, fused);
    const request = { data: join(dirname(TALES12), 'tales12.txt'), maxTokens: 300, timing: false };
    const whole = await compareModels(TALES12, fused, request);
    const pieces = await compareModels(TALES12, fused, { ...request, timing: true, memory: room(1) });
    const [own, other] = [whole.text?.quality, pieces.text?.quality];
    assert.ok(own && other && own.positions === other.positions && own.positions > 200);
    // fp16 is rounded at the borders of pieces.
    assert.ok(Math.abs(own.kl - other.kl) < 0.01 * own.kl, `${own.kl} ${other.kl}`);
    assert.ok('skipped' in (pieces.text?.decode.original ?? {}) && !('skipped' in (whole.text?.decode.original ?? {})));
    assert.is(pieces.continuations, undefined);
    const left = 'the models are larger than memory, and in pieces each token would read them from disk';
    assert.match(pieces.notes[0] ?? '', /^run in pieces of at most 1(\.0+)? MiB of weights, because/);
    for (const what of ['no continuations', 'a token was not timed'])
      assert.ok(pieces.notes.includes(`${what}: ${left}`));
  }));

test.run();
