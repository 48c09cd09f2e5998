/** What `onnx-fuse plan` does, without a command line: data, gates, scores, search, choice, evidence. */
import { statSync } from 'node:fs';
import { basename } from 'node:path';
import { openModel } from '../../ir/index.js';
import { passErrors } from '../../passes/analysis/errors.js';
import { findBlocks, fuseSteps, parsePipeline, registry, runPipeline } from '../../passes/index.js';
import {
  calibrate,
  type Device,
  ForcedScorer,
  gateFeeds,
  gateModel,
  isWithin,
  measureQuality,
  measureScores,
  NO_CHANGE,
  openGated,
  paretoFront,
  predictSecondsPerToken,
  readSignature,
  remembering,
  type Scorer,
  scoreRows,
  searchPlans,
  shuffled,
  type TokenBatch,
  tokenBatches,
  workOf,
} from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import type { Talk } from '../basics/progress.js';
import { fileFact } from '../fuse/fuse.js';
import { codecFor } from '../tokens/text-codec.js';
import { loadTokenData } from '../tokens/token-data.js';
import { deviceOf } from './device.js';
import { measureAblations, measureRewritten, runsOf } from './plan-ablations.js';
import {
  fuseOptionsOf,
  type LayerChoice,
  type PlanFile,
  type PlanOptions,
  type PlanPoint,
  type Quality,
} from './plan-file.js';
import { PlanProgress } from './resume.js';

export interface PlanRequest {
  readonly model: string;
  /** Text or token ids. */
  readonly data: string;
  readonly tokenizer?: string | undefined;
  readonly length?: number | undefined;
  readonly maxTokens?: number | undefined;
  readonly budget: PlanFile['budget'];
  readonly options: PlanOptions;
  /** A name, a file, or undefined: this machine is measured. */
  readonly device?: string | undefined;
  readonly maxEvaluations: number;
  readonly beam: number;
  /** Random plans to compare with. */
  readonly random: number;
  /** Measure the chosen plan in other ways, too. */
  readonly ablate: boolean;
  /** Do not search: these attentions go. */
  readonly removeAttention?: readonly number[] | undefined;
  /** Where measurements are kept until all is done, so that an interrupted run goes on. */
  readonly progressFile: string;
  readonly talk: Talk;
}

/** Part of the budget that the search may use: the rest is for text that was not seen. */
const SHARE = 0.9;
/** Sequences that scores are measured on: every layer costs three runs of each. */
const SCORED = 16;
/** Bytes of the original's scores that are kept; others are computed again for every plan. */
const KEPT_BYTES = 512 * 2 ** 20;

/**
 * Chooses a plan. The data are split: plans are searched on about half of the sequences, within nine tenths of the budget; the fastest one
 * that is within the whole budget on the other sequences, too, is chosen.
 * @throws Diagnostic
 */
export async function makePlan(request: PlanRequest): Promise<PlanFile> {
  const { talk, options, budget } = request;
  const original = openModel(request.model);
  const { vocabulary } = readSignature(original);
  const codec = await codecFor(request.model, vocabulary, request.tokenizer);
  const data = await loadTokenData(request.data, {
    vocabulary,
    codec,
    ...(request.length === undefined ? {} : { length: request.length }),
    ...(request.maxTokens === undefined ? {} : { maxTokens: request.maxTokens }),
  });
  if (data.sequences.length < 2)
    throw apiErrors.tokenData(request.data, 'one sequence cannot be split into two halves');
  const gated = gateModel(request.model);
  const device = await deviceFor(request);
  const fact = await fileFact(request.model, 0, true);
  const model = { file: basename(request.model), bytes: statSync(request.model).size, sha256: fact.sha256 ?? '' };

  const [searched, checked] = [false, true].map((odd) =>
    tokenBatches(
      data.sequences.filter((_, i) => isOdd(i) === odd),
      gated.signature,
    ),
  ) as [TokenBatch[], TokenBatch[]];
  const session = await openGated(gated);
  try {
    const scorer = new ForcedScorer(session, gated.signature);
    const scoresWith = (choice: LayerChoice): Scorer => {
      const feeds = gateFeeds(gated.plan, choice);
      return (batch) => scorer.scores(batch, feeds);
    };
    const reference = remembering(scoresWith(NO_CHANGE), KEPT_BYTES);
    const measure = async (choice: LayerChoice, batches: readonly TokenBatch[]): Promise<Quality> =>
      options.norm === 'last' && choice.runs.length > 0
        ? measureRewritten(request.model, choice, batches, reference)
        : (await measureQuality(batches, reference, scoresWith(choice))).quality;

    const progress = new PlanProgress(request.progressFile, {
      model: model.sha256,
      data: data.sequences,
      options: { ...options, device: request.device ?? 'measured' },
    });
    const scores = await progress.once('scores', async () => {
      const few = data.sequences.slice(0, SCORED);
      const rows = scoreRows(gated, hiddenOf(request.model), Math.max(...few.map((each) => each.length)));
      const batches = tokenBatches(few, gated.signature, { rows: Math.min(rows, SCORED) });
      return measureScores(gated, session, batches, (done, total) => talk.progress('scoring the layers', done, total));
    });
    talk.done();

    const originalSeconds = predictSecondsPerToken(workOf(original), device);
    let count = 0;
    const evaluate = (gone: readonly number[], fuse: boolean): Promise<PlanPoint | null> => {
      talk.progress('measuring plans', count++, request.maxEvaluations);
      return progress.once(`${fuse ? 'fused' : 'removed'} ${gone.join()}`, async () => {
        const built = build(request.model, gone, fuse, options, device);
        if (!built) return null;
        const quality = await measure(built.choice, searched);
        const { seconds } = built;
        return {
          ...built.choice,
          quality,
          predictedSecondsPerToken: seconds,
          predictedSpeedup: originalSeconds / seconds,
        };
      });
    };
    const removable = removableOf(request.model);
    const nothing: PlanPoint = {
      ...NO_CHANGE,
      quality: await measure(NO_CHANGE, searched.slice(0, 1)),
      predictedSecondsPerToken: originalSeconds,
      predictedSpeedup: 1,
    };
    const evaluated =
      request.removeAttention === undefined
        ? await searchPlans(
            { budget, share: SHARE, scores, removable, maxEvaluations: request.maxEvaluations, beam: request.beam },
            evaluate,
          )
        : [await evaluate(request.removeAttention, true)].filter((point) => point !== null);
    talk.done();
    const isFixed = request.removeAttention !== undefined;
    const candidates = [...evaluated].sort(
      (a, b) => b.predictedSpeedup - a.predictedSpeedup || a.quality.kl - b.quality.kl,
    );
    let chosen: PlanFile['chosen'] = { ...nothing, check: nothing.quality };
    for (const point of candidates) {
      if (!isFixed && !isWithin(point.quality, budget, SHARE)) continue;
      const check = await measure(point, checked);
      if (!isFixed && !isWithin(check, budget)) continue;
      chosen = { ...point, check };
      break;
    }

    const kl: number[] = [];
    const size = chosen.removeAttention.length;
    if (request.random > 0 && size > 0) {
      for (const gone of randomChoices(removable, size, chosen.removeAttention, request.random)) {
        talk.progress('measuring random plans', kl.length, request.random);
        const point = await evaluate(gone, chosen.runs.length > 0 || chosen.removeFfn.length > 0);
        if (point) kl.push(point.quality.kl);
      }
      talk.done();
    }
    const all = [...searched, ...checked];
    const { originalPerplexity } = await measureQuality(all, reference, reference);
    return {
      kind: 'onnx-fuse plan',
      version: 1,
      model,
      layers: findBlocks(original.graph).layers.map(({ index, attention, ffn, others }) => ({
        layer: index,
        attention: attention !== null,
        ffn: ffn !== null || others.length > 0,
        ffnWidth: ffn?.ffn.width ?? null,
      })),
      data: {
        source: basename(data.source),
        sequences: data.sequences.length,
        searched: positionsOf(searched),
        checked: positionsOf(checked),
        originalPerplexity,
      },
      budget,
      options,
      cost: { ...device, originalSecondsPerToken: originalSeconds },
      scores,
      chosen,
      front: paretoFront([nothing, ...evaluated]),
      evaluated,
      random: request.random > 0 && size > 0 ? { count: kl.length, kl } : null,
      ablations: request.ablate ? await measureAblations(request, chosen, { batches: all, reference, measure }) : null,
    };
  } finally {
    talk.done();
    await session.release();
  }
}

/** The plan that follows from removed attentions: its runs, and what it costs. Null when the passes refuse it. */
function build(
  path: string,
  gone: readonly number[],
  fuse: boolean,
  options: PlanOptions,
  device: Device,
): { choice: LayerChoice; seconds: number } | null {
  try {
    const model = openModel(path);
    const fused = {
      removeAttention: gone,
      keepLast: options.keepLast,
      lead: options.lead,
      norm: options.norm,
      fuse,
    };
    const runs = runsOf(runPipeline(model, fuseSteps(fused)));
    const choice: LayerChoice = { ...NO_CHANGE, removeAttention: gone };
    if (options.action === 'fuse') {
      return { choice: { ...choice, runs }, seconds: predictSecondsPerToken(workOf(model), device) };
    }
    // Instead of fusing them, the FFNs of each run go.
    const removed = { ...choice, removeFfn: runs.flat() };
    const shorter = openModel(path);
    runPipeline(shorter, fuseSteps(fuseOptionsOf(removed)));
    return { choice: removed, seconds: predictSecondsPerToken(workOf(shorter), device) };
  } catch (error) {
    if (passErrors.cannotRemove.is(error) || passErrors.cannotFuse.is(error)) return null;
    throw error;
  }
}

/** Half of the sequences, by chance, but the same ones every time: records cut in two alternate in length. */
function isOdd(index: number): boolean {
  return shuffled([false, true], index)[0] === true;
}

async function deviceFor({ device, model, talk }: PlanRequest): Promise<Device> {
  if (device === undefined) {
    talk.progress('measuring this machine', 0, 1);
    return calibrate(model);
  }
  return deviceOf(device);
}

function removableOf(path: string): number[] {
  const model = openModel(path);
  runPipeline(model, parsePipeline('inline-functions', registry));
  return findBlocks(model.graph)
    .layers.filter(({ attention, fixed }) => attention && !attention.attention.blocked && !fixed)
    .map(({ index }) => index);
}

function hiddenOf(path: string): number {
  const { layers } = findBlocks(openModel(path).graph);
  return Math.max(1, ...layers.map(({ ffn }) => ffn?.ffn.hidden ?? 1));
}

function positionsOf(batches: readonly TokenBatch[]): number {
  return batches.reduce((sum, { sequences }) => sum + sequences.reduce((all, each) => all + each.length - 1, 0), 0);
}

/** Different subsets of a size, none of them `chosen`: the same for the same model. */
function randomChoices(layers: readonly number[], size: number, chosen: readonly number[], count: number): number[][] {
  const found = new Map<string, number[]>();
  for (let seed = 1; found.size < count && seed < 50 * count; seed++) {
    const gone = shuffled(layers, seed)
      .slice(0, size)
      .sort((a, b) => a - b);
    if (gone.join() !== chosen.join()) found.set(gone.join(), gone);
  }
  return [...found.values()];
}
