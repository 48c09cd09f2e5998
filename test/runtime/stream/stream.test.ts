/** A decoder in pieces is the decoder: as it is, with branches gone, with runs, and with maps in the places of branches. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { saveFits } from '../../../api/plan/fit-file.js';
import { GatedText } from '../../../api/plan/gated.js';
import { openModel, referenceOf, saveModel } from '../../../ir/index.js';
import { fuseSteps, runPipeline } from '../../../passes/index.js';
import {
  type BranchChange,
  cutPieces,
  type Fits,
  ForcedScorer,
  type LayerChoice,
  type LinearMap,
  measureQuality,
  NO_CHANGE,
  openSession,
  qualityOf,
  readSignature,
  StreamRunner,
  StreamText,
  tokenBatches,
  type WalkPlan,
} from '../../../runtime/index.js';
import { goldenInput } from '../../helpers/golden-check.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('runtime: pieces of a decoder');

const sequences = (vocabulary: number, rows: number, length: number): number[][] =>
  Array.from({ length: rows }, (_, row) =>
    Array.from({ length }, (_, i) => (1 + row * 7 + i * (2 * row + 3)) % Math.min(vocabulary, 97)),
  );

/** Runs `work` with the model at `path` in pieces over a little text, all of it unseen. */
async function withText(
  path: string,
  work: (text: StreamText, at: (layer: number, part: 'attention' | 'ffn') => number) => Promise<void>,
): Promise<void> {
  const model = cutPieces(path);
  const rows = sequences(model.signature.vocabulary ?? 11, 4, 12);
  const runner = new StreamRunner(model);
  const text = new StreamText(runner, [], tokenBatches(rows, model.signature, { rows: 3 }));
  try {
    await text.prepare();
    await work(text, (layer, part) =>
      model.pieces.findIndex((piece) => piece.kind === 'branch' && piece.layer === layer && piece.part === part),
    );
  } finally {
    await text.release();
    await runner.release();
  }
}

const judged = async (text: StreamText, changes: [number, BranchChange][], runs: WalkPlan['runs'] = []) =>
  qualityOf((await text.judge({ changes: new Map(changes), runs }, { withOverlap: true })).judgements);

/** Quality of the model that steps make, run whole, on the same text. */
async function rewritten(path: string, options: Parameters<typeof fuseSteps>[0]) {
  const scorers: ForcedScorer[] = [];
  const sessions = [];
  const changed = openModel(path);
  runPipeline(changed, fuseSteps(options));
  const signature = readSignature(openModel(path));
  for (const model of [openModel(path), changed]) {
    const session = await openSession(referenceOf(model));
    sessions.push(session);
    scorers.push(new ForcedScorer(session, readSignature(model)));
  }
  const [a, b] = scorers as [ForcedScorer, ForcedScorer];
  const batches = tokenBatches(sequences(signature.vocabulary ?? 11, 4, 12), signature, { rows: 3 });
  try {
    return (
      await measureQuality(
        batches,
        (batch) => a.scores(batch),
        (batch) => b.scores(batch),
      )
    ).quality;
  } finally {
    for (const session of sessions) await session.release();
  }
}

const near = (found: number, expected: number, tolerance: number, what: string): void =>
  assert.ok(
    Math.abs(found - expected) <= tolerance * Math.max(1e-6, Math.abs(expected)),
    `${what}: ${found}, not ${expected}`,
  );

const MODELS = [
  'pipeline/adds',
  'pipeline/merged-decoder',
  'inline-functions/layers',
  'linearize/skip-norms',
  'linearize/parallel-block',
  'linearize/packed',
];

for (const name of MODELS) {
  test(`as it is, the pieces of ${name} are the model`, () =>
    inWorkspace(async (folder) => {
      const path = join(folder, 'model.onnx');
      await saveModel(goldenInput(name), path);
      await withText(path, async (text) => {
        const quality = await judged(text, []);
        assert.ok(Math.abs(quality.kl) < 1e-6 && quality.top1 === 1, `${quality.kl}`);
      });
    }));
}

test('branches that go, and runs, are those of the rewritten model', async () => {
  const choice: LayerChoice = { ...NO_CHANGE, removeAttention: [3, 4, 5], removeFfn: [7], runs: [[3, 4]] };
  const whole = await rewritten(TALES12, { removeAttention: [3, 4, 5], removeFfn: [7], runs: [[3, 4]] });
  const gated = await GatedText.open(TALES12, sequences(256, 4, 12));
  const gates = await gated.quality(choice);
  await gated.release();
  near(gates.kl, whole.kl, 2e-2, 'gates');
  await withText(TALES12, async (text, at) => {
    const gone = [3, 4, 5].map((layer): [number, BranchChange] => [at(layer, 'attention'), 'remove']);
    const run: [number, number] = [at(3, 'ffn'), at(4, 'ffn')];
    const pieces = await judged(text, [...gone, [at(7, 'ffn'), 'remove']], [run]);
    near(pieces.kl, whole.kl, 2e-2, 'pieces');
    near(pieces.perplexity, whole.perplexity, 1e-3, 'perplexity');
    assert.is(pieces.top1, whole.top1);
    near(pieces.overlap ?? Number.NaN, whole.overlap, 1e-3, 'overlap');
    assert.is(pieces.positions, whole.positions);
    // Another plan is another function.
    const sequential = await judged(text, [...gone, [at(7, 'ffn'), 'remove']]);
    assert.ok(Math.abs(sequential.kl - pieces.kl) > 5e-3 * pieces.kl, `${sequential.kl}, ${pieces.kl}`);
  });
});

test('maps that were walked with are those that linearize puts into the file', () =>
  inWorkspace(async (folder) => {
    for (const name of ['linearize/skip-norms', 'linearize/packed', 'pipeline/adds']) {
      const path = join(folder, `${name.replace('/', '-')}.onnx`);
      await saveModel(goldenInput(name), path);
      await withText(path, async (text, at) => {
        const { pieces, hidden } = text.runner.model;
        const map: LinearMap = {
          weight: Float32Array.from({ length: hidden * hidden }, (_, i) => 0.1 * Math.sin(i)),
          bias: Float32Array.from({ length: hidden }, (_, i) => 0.1 * Math.cos(i)),
        };
        const [attention, ffn] = [at(1, 'attention'), at(0, 'ffn')];
        const fits: Fits = new Map(
          [ffn, attention].map((i) => [i, { kind: 'map', map, ridge: 0.1, unseen: { map: 0, bias: 1 } }]),
        );
        const maps = join(folder, 'maps.onnx-fuse-fit');
        await saveFits(maps, fits, pieces);
        const whole = await rewritten(path, { linearize: { attention: [1], ffn: [0], maps }, fuse: false });
        const walked = await judged(text, [
          [ffn, map],
          [attention, map],
        ]);
        assert.ok(walked.kl > 1e-4, 'the maps change the model');
        near(walked.kl, whole.kl, 1e-4, name);
      });
    }
  }));

test.run();
