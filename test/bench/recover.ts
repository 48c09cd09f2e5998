/**
 * What maps in the places of branches are worth on a real model, on text that nothing was fitted or chosen on: removal, a bias
 * and a map at several sizes (front to back, the order is that of the maps' own KL), the time of a token and of a prompt, and the
 * front of speed against KL beside what LLM-Drop (arXiv 2406.15786, one shot, all FFNs fused that can be), ShortGPT (arXiv
 * 2403.03853, whole blocks) and NBL (arXiv 2505.21077, its layers with its maps) choose.
 *
 *     node dist/test/bench/recover.js MODEL --data calib.txt --held-out heldout.txt --device machine.json [--json recover.json]
 *
 * `machine.json` is what `onnx-fuse bench --calibrate` writes. Without `--times` nothing is timed. The time that a token takes
 * less is predicted for that machine; of each way the largest plan within a KL is taken, over all sizes (`--front` are sizes of
 * which only what is compared there is measured).
 */
import { rmSync, writeFileSync } from 'node:fs';
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
import {
  type Fits,
  type LinearMap,
  predictSecondsPerToken,
  type Quality,
  secondsSavedBy,
  workOf,
} from '../../runtime/index.js';
import { argumentsFor } from './arguments.js';

const args = await argumentsFor(
  commandSpec({
    name: 'bench:recover',
    summary: 'What maps are worth on a real model',
    words: [{ name: 'model', describe: 'The model (.onnx), or a folder with one' }],
    flags: {
      data: { type: 'string', repeats: true, describe: 'Text to fit and search on' },
      'held-out': { type: 'string', describe: 'Text to judge on' },
      'max-tokens': { type: 'number', fallback: 8000, describe: 'Tokens of each' },
      device: { type: 'string', describe: 'What bench --calibrate wrote' },
      sizes: { type: 'string', fallback: '1,4,8,12', describe: 'Branches to change' },
      front: { type: 'string', fallback: '2,3,5,6,7,9,10,11', describe: 'Sizes between them, for the front only' },
      contexts: { type: 'string', fallback: '64,1500,4000', describe: 'Tokens before the one that is timed' },
      times: { type: 'boolean', fallback: false, describe: 'Time them, too' },
      json: { type: 'string', describe: 'Write the figures to this file' },
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
  readonly secondsSaved: number;
  readonly kl: number;
  readonly perplexityIncrease: number;
  readonly top1: number;
  readonly overlap: number | null;
}

const talk = stderrTalk();
const path = modelFile((args as unknown as { model: string }).model);
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
const costs = branchCosts(original, model, device, {
  recover: true,
  quantizeMaps: null,
  mapRank: null,
  optimizeFor: 'both',
  fuse: 'always',
  keepLast: 1,
  lead: false,
});
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
    secondsSaved: secondsSavedBy(moves),
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
/** NBL's map of each attention that can go, the most linear ones first. */
const linear: { readonly layer: number; readonly loss: number; readonly map: LinearMap }[] = [];
for (const layer of order['map attention'] ?? []) {
  talk.progress('scoring: NBL', linear.length, layers.length);
  const found = await measurement.linearity(at(layer, 'attention'));
  if (found) linear.push({ layer, ...found });
}
linear.sort((a, b) => a.loss - b.loss);
const blocks = bySimilarity('ffn');

const ascending = (list: readonly number[]): number[] => [...list].sort((a, b) => a - b);
const numbers = (list: string): number[] => list.split(',').filter(Boolean).map(Number);
const removalsOf = (chosen: readonly number[]): PlanMove[] => chosen.map((layer) => moveOf('remove attention', layer));
/** The moves that fuse all FFNs that are consecutive without these attentions, as LLM-Drop's layers would be fused. */
const fusionsOf = (chosen: readonly number[]): PlanMove[] =>
  runsIfAny(path, chosen, {}).map((run) => fuseMove(run, costs));
const check = (moves: readonly PlanMove[], fits?: Fits): Promise<Quality> =>
  measurement.checked(fits ? walkWith(moves, model.pieces, fits) : walkOf(moves, model.pieces));

/** What is compared at equal KL. */
const WAYS = {
  map: 'map',
  drop: 'LLM-Drop',
  dropFused: 'LLM-Drop, all FFNs fused',
  blocks: 'ShortGPT',
  nbl: 'NBL',
} as const;

/** What is compared on the front; returns the maps. */
async function compareWays(size: number): Promise<{ readonly maps: PlanMove[]; readonly fits: Fits }> {
  const chosen = ascending((order['map attention'] ?? []).slice(0, size));
  const maps = chosen.map((layer) => moveOf('map attention', layer));
  const fits = await measurement.finalFits(maps);
  add(WAYS.map, chosen, maps, await check(maps, fits));
  const drop = ascending(dropped.slice(0, size));
  const dropMoves = removalsOf(drop);
  add(WAYS.drop, drop, dropMoves, await check(dropMoves));
  const fused = [...dropMoves, ...fusionsOf(drop)];
  if (fused.length > dropMoves.length) add(WAYS.dropFused, drop, fused, await check(fused));
  const straight = linear.slice(0, size);
  const own = straight.map(({ layer }) => layer).sort((a, b) => a - b);
  const ownMaps = own.map((layer) => moveOf('map attention', layer));
  const nowhere = { map: Number.NaN, bias: Number.NaN };
  const ownFits = straight.map(
    ({ layer, map }) => [at(layer, 'attention'), { kind: 'map', map, ridge: 0, unseen: nowhere }] as const,
  );
  if (own.length === size) add(WAYS.nbl, own, ownMaps, await check(ownMaps, new Map(ownFits)));
  // A block is an attention and an FFN: half as many.
  if (size % 2 === 1) return { maps, fits };
  const gone = ascending(blocks.slice(0, size / 2));
  const whole = gone.map((layer): PlanMove => {
    const { changes, ...move } = moveOf('map block', layer);
    const secondsSaved = costs.attention(layer) + costs.ffn(layer);
    return { ...move, secondsSaved, changes: new Map([...changes.keys()].map((i) => [i, 'remove'] as const)) };
  });
  add(WAYS.blocks, gone, whole, await check(whole));
  return { maps, fits };
}

const sizes = numbers(args.sizes);
const times: unknown[] = [];
for (const size of numbers(args.front)) await compareWays(size);
for (const size of sizes) {
  const { maps, fits } = await compareWays(size);
  const chosen = ascending((order['map attention'] ?? []).slice(0, size));
  const removals = removalsOf(chosen);
  add('removed', chosen, removals, await check(removals));
  const biases = await measurement.fitted(maps, { ridges: [] });
  add('bias', chosen, maps, await check(maps, biases.fits));
  const fusions = fusionsOf(chosen);
  if (fusions.length > 0) {
    const fused = [...maps, ...fusions];
    add('map, all FFNs fused', chosen, fused, await check(fused, await measurement.finalFits(fused)));
  }
  const own = ascending((order['remove attention'] ?? []).slice(0, size));
  const ownMoves = removalsOf(own);
  add('removed, in the order of removal', own, ownMoves, await check(ownMoves));
  if (args.times) await time(size, removals, maps, fits);
}

/** Adds the times of both variants to `times`, in all runtimes and at all contexts. */
async function time(size: number, removals: readonly PlanMove[], maps: readonly PlanMove[], fits: Fits): Promise<void> {
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
      for (const context of numbers(args.contexts)) {
        const prompt = runtime === 'genai';
        const speed = await measureSpeed(path, changed, { context, runtime, prompt, rounds: 5, talk });
        times.push({ size, variant, ...speed });
        talk.note(
          `${size} ${variant}: ${speed.runtime} behind ${context}: token ${speed.speedup.toFixed(3)}, prompt ${speed.prompt?.speedup.toFixed(3)}`,
        );
      }
    }
  }
  rmSync(file, { force: true });
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
/** Of each way the plan that saves most within a KL. */
const front = [0.05, 0.1, 0.2].map((kl) => ({
  kl,
  best: Object.values(WAYS).map((way) => {
    const within = rows.filter((row) => row.name === way && row.kl <= kl);
    return { way, ...within.sort((a, b) => b.secondsSaved - a.secondsSaved)[0] };
  }),
}));
const milliseconds = (seconds: number | undefined): string => `${(1000 * (seconds ?? 0)).toFixed(2)} ms`;
console.log(`\nthe most time a token that each way saves within a KL, of ${milliseconds(originalSeconds)}:`);
console.log(
  table(
    ['KL', ...Object.values(WAYS)],
    front.map(({ kl, best }) => [
      `${kl}`,
      ...best.map(({ layers = [], secondsSaved }) => `${milliseconds(secondsSaved)} (${layers.length})`),
    ]),
  ),
);
// A score of a removal is one run over what is scored, and so would be a plain pass of the whole model.
const scoreCount = (order['map attention']?.length ?? 0) + (order['remove attention']?.length ?? 0);
const batchCount = measurement.batchesOf(texts.fit).length + measurement.batchesOf(texts.search).length;
const passSeconds = (plainSeconds * SCORED) / batchCount;
console.log(`\nthe original over ${texts.fit.length + texts.search.length} sequences: ${plainSeconds.toFixed(0)} s`);
console.log(
  `${scoreCount} scores, fits of the maps included: ${scoreSeconds.toFixed(0)} s; as many plain passes over the ${SCORED} batches: ${(scoreCount * passSeconds).toFixed(0)} s`,
);
if (args.json !== undefined) {
  const found = {
    model: path.split('/').slice(-2).join('/'),
    layers: layers.length,
    device,
    rows,
    front,
    times,
    order,
    dropped,
    blocks,
    nbl: linear.map(({ layer, loss }) => ({ layer, loss })),
    plainSeconds,
    scoreSeconds,
  };
  writeFileSync(args.json, `${JSON.stringify(found, null, 1)}\n`);
}
