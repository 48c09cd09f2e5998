/**
 * What maps in the places of branches are worth on a real model, on text that nothing was fitted or chosen on: removal, a bias
 * and a map at several sizes (front to back, the order is that of the maps' own KL), the time of a token and of a prompt, and the
 * front of speed against KL beside what LLM-Drop (arXiv 2406.15786, one shot, all FFNs fused that can be) and ShortGPT (arXiv
 * 2403.03853, whole blocks) choose.
 *
 *     node dist/test/bench/recover.js MODEL --data calib.txt --held-out heldout.txt --device machine.json [--json recover.json]
 *
 * `machine.json` is what `onnx-fuse bench --calibrate` writes. Without `--times` nothing is timed.
 */

import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stderrTalk } from '../../api/basics/progress.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { runsIfAny } from '../../api/plan/candidates.js';
import { deviceOf } from '../../api/plan/device.js';
import { saveFits } from '../../api/plan/fit-file.js';
import { measureSpeed } from '../../api/plan/measured-speed.js';
import { Measurement } from '../../api/plan/measurement.js';
import {
  type Action,
  choiceOf,
  draftMoves,
  findMove,
  fuseMove,
  keyOf,
  type PlanMove,
  walkOf,
  walkWith,
} from '../../api/plan/moves.js';
import { branchCosts } from '../../api/plan/plan.js';
import { fuseOptionsOf } from '../../api/plan/plan-file.js';
import { readPlanTexts } from '../../api/plan/texts.js';
import { commandSpec } from '../../cli/options/spec.js';
import { table } from '../../cli/text/table.js';
import { openModel } from '../../ir/index.js';
import { fuseSteps, layersOf, runPipeline } from '../../passes/index.js';
import { predictSecondsPerToken, type Quality, secondsSavedBy, workOf } from '../../runtime/index.js';
import { argumentsFor } from './arguments.js';

const args = argumentsFor(
  commandSpec({
    name: 'bench:recover',
    summary: 'What maps are worth on a real model',
    words: [{ name: 'model', describe: 'The model' }],
    flags: {
      data: { type: 'string', repeats: true, describe: '' },
      'held-out': { type: 'string', describe: '' },
      'max-tokens': { type: 'number', fallback: 8000, describe: '' },
      device: { type: 'string', describe: '' },
      sizes: { type: 'string', fallback: '1,4,8,12', describe: '' },
      contexts: { type: 'string', fallback: '64,1500,4000', describe: '' },
      times: { type: 'boolean', fallback: false, describe: '' },
      json: { type: 'string', describe: '' },
    },
  }),
);

/** Batches of the text to search on that the order of the moves is measured on. */
const SCORED = 2;

interface Row {
  readonly name: string;
  readonly size: number;
  readonly layers: readonly number[];
  readonly predictedSpeedup: number;
  readonly kl: number;
  readonly perplexityIncrease: number;
  readonly top1: number;
  readonly overlap: number | null;
}

const talk = stderrTalk();
const path = modelFile(args.model);
const original = openModel(path);
const { layers } = layersOf(original);
const texts = await readPlanTexts(
  path,
  original,
  { data: args.data ?? [], heldOut: args['held-out'], maxTokens: args['max-tokens'], own: { talk } },
  true,
);
if (args.device === undefined) throw new Error('give --device, the file that bench --calibrate wrote');
const device = deviceOf(args.device);
const started = performance.now();
const seconds = (): number => (performance.now() - started) / 1000;
const measurement = await Measurement.open(path, texts, {});
const { model } = measurement;
const costs = branchCosts(original, model, device, { recover: true, fuse: 'always', keepLast: 1, lead: false });
const originalSeconds = predictSecondsPerToken(workOf(original), device);
const drafts = draftMoves(model.pieces, layers, costs, true);
const speedupOf = (moves: readonly PlanMove[]): number => originalSeconds / (originalSeconds - secondsSavedBy(moves));
const moveOf = (action: Action, layer: number): PlanMove => {
  const move = findMove(drafts, layer, action);
  if (move) return move;
  throw new Error(`there is no move '${keyOf(action, layer)}'`);
};
const rows: Row[] = [];
const add = (name: string, chosen: readonly number[], moves: readonly PlanMove[], quality: Quality): void => {
  const { kl, perplexityIncrease, top1, overlap } = quality;
  const row = {
    name,
    size: chosen.length,
    layers: chosen,
    predictedSpeedup: speedupOf(moves),
    kl,
    perplexityIncrease,
    top1,
    overlap,
  };
  rows.push(row);
  talk.note(`${seconds().toFixed(0)} s  ${name} ${chosen.join()}: KL ${kl.toPrecision(4)}`);
};

const plainStart = performance.now();
await measurement.prepare((done, total) => talk.progress('running the original', done, total));
const plainSeconds = (performance.now() - plainStart) / 1000;

// The order: by the KL of each map alone, and of each removal alone, on the text to search on.
const scoreStart = performance.now();
const order: Record<string, number[]> = {};
for (const action of ['map attention', 'remove attention'] as const) {
  const scored: { layer: number; kl: number }[] = [];
  for (const { index } of layers) {
    const key = keyOf(action, index);
    if (!drafts.some((draft) => draft.key === key)) continue;
    talk.progress(`scoring: ${action}`, index, layers.length);
    scored.push({ layer: index, kl: (await measurement.alone(moveOf(action, index), SCORED)).kl });
  }
  order[action] = scored.sort((a, b) => a.kl - b.kl).map(({ layer }) => layer);
}
const scoreSeconds = (performance.now() - scoreStart) / 1000;
const at = (layer: number, part: 'attention' | 'ffn'): number =>
  model.pieces.findIndex((piece) => piece.kind === 'branch' && piece.layer === layer && piece.part === part);
const bySimilarity = (end: 'attention' | 'ffn'): number[] =>
  layers
    .filter(({ attention, ffn }) => attention && ffn)
    .map(({ index }) => ({ layer: index, score: measurement.distance(at(index, 'attention'), at(index, end) + 1) }))
    .sort((a, b) => a.score - b.score)
    .map(({ layer }) => layer);
const dropped = bySimilarity('attention');
const blocks = bySimilarity('ffn');

const ascending = (list: readonly number[]): number[] => [...list].sort((a, b) => a - b);
const sizes = args.sizes.split(',').map(Number);
const times: unknown[] = [];
for (const size of sizes) {
  const chosen = ascending((order['map attention'] ?? []).slice(0, size));
  const maps = chosen.map((layer) => moveOf('map attention', layer));
  const removals = chosen.map((layer) => moveOf('remove attention', layer));
  add('removed', chosen, removals, await measurement.checked(walkOf(removals, model.pieces)));
  const biases = await measurement.fitted(maps, { ridges: [] });
  add('bias', chosen, maps, await measurement.checked(walkWith(maps, model.pieces, biases.fits)));
  const fits = await measurement.finalFits(maps);
  add('map', chosen, maps, await measurement.checked(walkWith(maps, model.pieces, fits)));
  const own = ascending((order['remove attention'] ?? []).slice(0, size));
  const ownMoves = own.map((layer) => moveOf('remove attention', layer));
  add('removed, in the order of removal', own, ownMoves, await measurement.checked(walkOf(ownMoves, model.pieces)));
  const drop = ascending(dropped.slice(0, size));
  const runs = runsIfAny(path, drop, {}).map((run) => fuseMove(run, costs));
  const dropMoves = [...drop.map((layer) => moveOf('remove attention', layer)), ...runs];
  add('LLM-Drop, all FFNs fused', drop, dropMoves, await measurement.checked(walkOf(dropMoves, model.pieces)));
  const gone = ascending(blocks.slice(0, Math.max(1, Math.round(size / 2))));
  const whole = gone.map((layer): PlanMove => {
    const { changes, ...move } = moveOf('map block', layer);
    return { ...move, changes: new Map([...changes.keys()].map((i) => [i, 'remove'] as const)) };
  });
  add('ShortGPT, half as many blocks', gone, whole, await measurement.checked(walkOf(whole, model.pieces)));
  if (!args.times) continue;
  const file = join(tmpdir(), `onnx-fuse-bench-${process.pid}.onnx-fuse-fit`);
  const fit = await saveFits(file, fits, model.pieces);
  const variants = {
    removed: fuseOptionsOf(choiceOf(removals, model.pieces, new Map()), null),
    map: fuseOptionsOf(choiceOf(maps, model.pieces, fits), fit ? file : null),
  };
  for (const [variant, options] of Object.entries(variants)) {
    const changed = openModel(path);
    runPipeline(changed, fuseSteps(options));
    for (const runtime of ['genai', 'node'] as const) {
      for (const context of args.contexts.split(',').map(Number)) {
        const speed = await measureSpeed(path, changed, {
          context,
          runtime,
          prompt: runtime === 'genai',
          rounds: 5,
          talk,
        });
        times.push({ size, variant, ...speed });
        talk.note(
          `${size} ${variant}: ${speed.runtime}: token ${speed.speedup.toFixed(3)}, prompt ${speed.prompt?.speedup.toFixed(3)}`,
        );
      }
    }
  }
}
talk.done();
await measurement.release();

const percent = (share: number): string => `${share < 0 ? '' : '+'}${(100 * share).toFixed(1)} %`;
console.log(
  table(
    ['', 'layers', 'predicted', 'KL', 'perplexity', 'top-1', 'overlap'],
    rows.map((row) => [
      row.name,
      row.layers.join(),
      row.predictedSpeedup.toFixed(3),
      row.kl.toPrecision(3),
      percent(row.perplexityIncrease),
      `${(100 * row.top1).toFixed(1)} %`,
      row.overlap?.toFixed(3) ?? '-',
    ]),
  ),
);
console.log(`the original over ${texts.fit.length + texts.search.length} sequences: ${plainSeconds.toFixed(0)} s`);
console.log(
  `scores of ${2 * layers.length} moves on ${texts.search.length} sequences, fits included: ${scoreSeconds.toFixed(0)} s`,
);
if (args.json !== undefined) {
  const found = {
    model: path.split('/').slice(-2).join('/'),
    device,
    rows,
    times,
    order,
    dropped,
    blocks,
    plainSeconds,
    scoreSeconds,
  };
  writeFileSync(args.json, `${JSON.stringify(found, null, 1)}\n`);
}
