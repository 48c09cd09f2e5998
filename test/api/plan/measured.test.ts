/** What a plan was measured as is what applying it makes, on models whose layers are not where one looks first. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { PlanFile } from '../../../api/plan/plan-file.js';
import { type Model, saveModel } from '../../../ir/index.js';
import { goldenInput } from '../../helpers/golden-check.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('plans as measured');

/** Six sequences of sixteen tokens of a vocabulary of eleven. */
const IDS = Array.from({ length: 6 }, (_, row) => Array.from({ length: 16 }, (_, i) => (row * 7 + i * (row + 3)) % 11));

/** Plans the model, applies the plan, and measures the result on the same text. */
async function planAndApply(folder: string, model: Model, ...argv: string[]): Promise<PlanFile> {
  const path = (name: string): string => join(folder, name);
  await saveModel(model, path('model.onnx'));
  const write = (name: string, rows: readonly number[][]): void =>
    writeFileSync(path(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  write('ids.jsonl', IDS);
  write(
    'fit.jsonl',
    IDS.map((row) => row.map((id) => (id + 3) % 11)),
  );
  const run = async (...words: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runCli(...words);
    assert.is(code, 0, stderr);
    return stdout;
  };
  const data = ['--data', path('fit.jsonl'), '--held-out', path('ids.jsonl'), '--device', 'h100x8', '--quiet'];
  await run('plan', path('model.onnx'), '-o', path('plan.json'), ...data, ...argv);
  const plan = JSON.parse(readFileSync(path('plan.json'), 'utf8')) as PlanFile;
  await run(path('model.onnx'), path('out.onnx'), '--plan', path('plan.json'), '--quiet');
  // The exit code is not asked: random weights decode another text than they prefill.
  const text = ['--data', path('ids.jsonl'), '--generate', '0', '--json', '--quiet'];
  const { stdout } = await runCli('verify', path('model.onnx'), path('out.onnx'), ...text);
  const { kl } = (JSON.parse(stdout) as { text: { quality: { kl: number } } }).text.quality;
  const { check } = plan.chosen;
  assert.ok(check.kl > 0 && Math.abs(kl - check.kl) < 1e-4 * check.kl, `measured ${check.kl}, applied ${kl}`);
  return plan;
}

test('a run over a gap in the numbers of layers', () =>
  inWorkspace(async (folder) => {
    // Layers 0, 1, 3 and 4.
    const model = goldenInput('pipeline/adds', (text) =>
      text.replace(/_([23])(?=_)/g, (_, layer) => `_${Number(layer) + 1}`),
    );
    const { layers, chosen } = await planAndApply(
      folder,
      model,
      '--remove-attention',
      '1,3,4',
      '--keep-last',
      '0',
      '--no-recover',
    );
    assert.equal(
      layers.map(({ layer }) => layer),
      [0, 1, 3, 4],
    );
    assert.equal(chosen.runs, [[1, 3, 4]]);
  }));

test('a merged decoder', () =>
  inWorkspace(async (folder) => {
    const model = goldenInput('pipeline/merged-decoder');
    const asked = ['--remove-attention', '1', '--lead', '--keep-last', '0', '--no-recover'];
    const plan = await planAndApply(folder, model, ...asked);
    assert.equal(plan.layers, [
      { layer: 0, attention: true, ffn: true, linear: [], ffnWidth: 6 },
      { layer: 1, attention: true, ffn: true, linear: [], ffnWidth: 10 },
    ]);
    assert.equal(plan.chosen.runs, [[0, 1]]);
    assert.is(plan.scores.layers.length, 2);
    const { originalSeconds, secondsPerAttention, secondsPerFfn } = plan.cost;
    assert.ok(originalSeconds > 2 * (secondsPerAttention + secondsPerFfn), String(originalSeconds));
  }));

test('layers that are functions, and FFNs that follow one another without any removal', () =>
  inWorkspace(async (folder) => {
    const model = goldenInput('inline-functions/layers');
    const plan = await planAndApply(folder, model, '--max-kl', '100', '--keep-last', '0', '--no-recover');
    assert.equal(plan.layers, [
      { layer: 0, attention: false, ffn: true, linear: [], ffnWidth: 6 },
      { layer: 1, attention: false, ffn: true, linear: [], ffnWidth: 6 },
    ]);
    assert.equal([plan.chosen.removeAttention, plan.chosen.runs], [[], [[0, 1]]]);
    assert.ok(plan.cost.originalSeconds > 2 * plan.cost.secondsPerFfn);
  }));

test('maps in the places of attentions, alone and between the FFNs of a run', () =>
  inWorkspace(async (folder) => {
    const model = goldenInput('pipeline/adds');
    const alone = await planAndApply(folder, model, '--remove-attention', '1,3', '--fuse', 'never');
    const { linearizeAttention, removeAttention } = alone.chosen;
    assert.equal([...linearizeAttention, ...removeAttention].sort(), [1, 3]);
    assert.ok(linearizeAttention.length > 0, 'nothing was fitted, so that nothing was tried');
    assert.equal(
      alone.fit?.maps.map(({ layer }) => layer),
      [1, 3],
    );
    const fused = await planAndApply(folder, model, '--remove-attention', '1-3', '--keep-last', '0');
    assert.equal(fused.chosen.runs, [[1, 2, 3]]);
    assert.ok(fused.chosen.linearizeAttention.length > 0);
  }));

test('maps in blocks of bits are measured as what they mean', () =>
  inWorkspace(async (folder) => {
    const model = goldenInput('pipeline/adds');
    const layers = ['--remove-attention', '1,3', '--fuse', 'never'];
    const dense = await planAndApply(folder, model, ...layers);
    const quantised = await planAndApply(folder, model, ...layers, '--quantize-maps', '4');
    assert.equal([dense.options.quantizeMaps, quantised.options.quantizeMaps], [null, 4]);
    assert.equal(quantised.chosen.linearizeAttention, dense.chosen.linearizeAttention);
    assert.is.not(quantised.chosen.check.kl, dense.chosen.check.kl);
  }));

test('maps of low rank are measured as what they are, and read back', () =>
  inWorkspace(async (folder) => {
    const model = goldenInput('linearize/skip-norms');
    const layers = ['--remove-attention', '1', '--fuse', 'never'];
    const whole = await planAndApply(folder, model, ...layers);
    const low = await planAndApply(folder, model, ...layers, '--map-rank', '3');
    assert.equal([whole.options.mapRank, low.options.mapRank], [null, 3]);
    assert.equal([whole.chosen.linearizeAttention, low.chosen.linearizeAttention], [[1], [1]]);
    assert.is.not(low.chosen.check.kl, whole.chosen.check.kl);
    const { originalSeconds, bytesPerSecond, ranks } = low.cost;
    const faster = whole.chosen.predictedSeconds - low.chosen.predictedSeconds;
    const bytes = faster * bytesPerSecond * ranks;
    assert.ok(Math.abs(bytes - 4 * (8 * 8 - 2 * 3 * 8)) < 0.5 + 1e-9 * originalSeconds, `${bytes} bytes less`);
    const shown = await runCli('inspect', join(folder, 'out.onnx'));
    const data = await runCli('inspect', join(folder, 'out.onnx'), '--json');
    assert.match(shown.stdout, /linear of rank 3/);
    const { layers: found } = JSON.parse(data.stdout) as { layers: { linears: { slot: string; rank: number }[] }[] };
    assert.equal(
      found.flatMap(({ linears }) => linears.map(({ slot, rank }) => [slot, rank])),
      [['attention', 3]],
    );
  }));

test('maps of low rank are searched with as such', () =>
  inWorkspace(async (folder) => {
    const search = ['--max-kl', '100', '--max-evaluations', '8', '--map-rank', '1'];
    const plan = await planAndApply(folder, goldenInput('pipeline/adds'), ...search);
    assert.ok(plan.chosen.linearizeAttention.length + plan.chosen.linearizeFfn.length > 0);
    assert.ok(plan.fit !== null && plan.options.mapRank === 1);
  }));

test('a searched plan with maps of attentions and FFNs', () =>
  inWorkspace(async (folder) => {
    const plan = await planAndApply(folder, goldenInput('pipeline/adds'), '--max-kl', '100', '--max-evaluations', '8');
    assert.ok(
      plan.evaluated.some(({ maps }) => maps === 'alone') && plan.evaluated.some(({ maps }) => maps === 'together'),
    );
    assert.ok(plan.chosen.predictedSpeedup > 1);
    assert.is(plan.scores.mappedAttention.length, 4);
  }));

test('a removal that was asked for and cannot be is refused, not passed over', () =>
  inWorkspace(async (folder) => {
    const [model, data, out] = ['model.onnx', 'ids.jsonl', 'plan.json'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await saveModel(goldenInput('remove-attention/shared-keys-refused'), model);
    writeFileSync(data, IDS.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const words = ['plan', model, '-o', out, '--data', data, '--device', 'h100x8', '--quiet', '--remove-attention'];
    for (const [layers, expected] of [
      ['0', /OF_CANNOT_REMOVE .*layer 0/],
      ['9', /OF_NO_SUCH_LAYER .*9/],
    ] as const) {
      const { code, stderr } = await runCli(...words, layers);
      assert.is.not(code, 0);
      assert.match(stderr, expected);
    }
    assert.not(existsSync(out));
  }));

test('maps beside blocks that are made parallel are refused: they would be fitted on another function', () =>
  inWorkspace(async (folder) => {
    const [model, data, out] = ['model.onnx', 'ids.jsonl', 'out.onnx'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await saveModel(goldenInput('pipeline/adds'), model);
    writeFileSync(data, IDS.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const windows = ['--parallelize-blocks', '2-3', '--remove-attention', '1', '--recover', '--data', data];
    const { code, stderr } = await runCli(model, out, ...windows);
    assert.is(code, 2, stderr);
    assert.match(stderr, /OF_USAGE .*--recover.*parallel/s);
    assert.not(existsSync(out));
  }));

test.run();
