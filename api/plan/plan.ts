/** What `onnx-fuse plan` does, without a command line: data, gates, scores, search, choice, evidence. */
import { basename } from 'node:path';
import { openModel } from '../../ir/index.js';
import { type Layer, layersOf } from '../../passes/index.js';
import {
  calibrate,
  checkEnds,
  type Device,
  isWithin,
  NO_CHANGE,
  paretoFront,
  predictSecondsPerToken,
  searchPlans,
  workOf,
} from '../../runtime/index.js';
import type { Talk } from '../basics/progress.js';
import { modelFact } from '../fuse/evidence.js';
import { layerFacts } from '../fuse/figures.js';
import { Candidates, randomChoices } from './candidates.js';
import { deviceOf } from './device.js';
import { Measurement, type PlanTextRequest, positionsOf, readPlanText } from './measurement.js';
import { measureAblations } from './plan-ablations.js';
import type { PlanFile, PlanOptions, PlanPoint, PlanScores } from './plan-file.js';
import { PlanProgress } from './resume.js';

/** What a plan is made for, and how. */
export interface PlanRequest extends PlanTextRequest {
  readonly model: string;
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

/**
 * Chooses a plan. The data are split: plans are searched on about half of the sequences, within nine tenths of the budget;
 * the fastest one that is within the whole budget on the other sequences, too, is chosen.
 * @throws Diagnostic
 */
export async function makePlan(request: PlanRequest): Promise<PlanFile> {
  const { talk, options, budget } = request;
  const original = openModel(request.model);
  const { layers } = layersOf(original);
  const data = await readPlanText(request.model, original, request);
  const device = await deviceFor(request);
  const candidates = new Candidates(request.model, options, device);
  // What was asked for and cannot be is refused before anything is measured.
  if (request.removeAttention !== undefined) candidates.build(request.removeAttention, true);
  const model = await modelFact(request.model);
  await checkEnds(request.model, original);
  const measurement = await Measurement.open(request.model, options.norm, data);
  try {
    const progress = new PlanProgress(request.progressFile, {
      model: model.sha256,
      data: data.sequences,
      options: { ...options, device: request.device ?? 'measured' },
    });
    const scores = await progress.once('scores', () =>
      measurement.scores(hiddenOf(layers), (done, total) => talk.progress('scoring the layers', done, total)),
    );
    talk.done();
    const originalSeconds = predictSecondsPerToken(workOf(original), device);
    const nothing = await unchanged(measurement, originalSeconds);
    const planner = new Planner(request, measurement, progress, candidates, nothing);
    const evaluated = await planner.search(scores, removableOf(layers));
    const chosen = await planner.choose(evaluated);
    const random = await planner.compare(chosen, removableOf(layers));
    return {
      kind: 'onnx-fuse plan',
      version: 1,
      model,
      layers: layerFacts(layers),
      data: {
        source: basename(data.source),
        sequences: data.sequences.length,
        searched: positionsOf(measurement.searched),
        checked: positionsOf(measurement.checked),
        originalPerplexity: await measurement.originalPerplexity(),
      },
      budget,
      options,
      cost: { ...device, originalSecondsPerToken: originalSeconds },
      scores,
      chosen,
      front: paretoFront([nothing, ...evaluated]),
      evaluated,
      random,
      ablations: request.ablate ? await measureAblations(measurement, options, chosen, talk) : null,
    };
  } finally {
    talk.done();
    await measurement.release();
  }
}

/** Tries plans, each measured once, and chooses among them. */
class Planner {
  #tried = 0;

  constructor(
    readonly request: PlanRequest,
    readonly measurement: Measurement,
    readonly progress: PlanProgress,
    readonly candidates: Candidates,
    /** The plan that changes nothing. */
    readonly nothing: PlanPoint,
  ) {}

  /** The plans that were measured, in order: those of a search, or the one that was asked for. */
  async search(scores: PlanScores, removable: readonly number[]): Promise<readonly PlanPoint[]> {
    const { budget, maxEvaluations, beam, removeAttention, talk } = this.request;
    const evaluate = (gone: readonly number[], fuse: boolean): Promise<PlanPoint | null> => {
      talk.progress('measuring plans', this.#tried++, maxEvaluations);
      return this.#evaluate(gone, fuse);
    };
    try {
      if (removeAttention !== undefined) return [await evaluate(removeAttention, true)].filter((each) => each !== null);
      return await searchPlans({ budget, share: SHARE, scores, removable, maxEvaluations, beam }, evaluate);
    } finally {
      talk.done();
    }
  }

  /** The fastest plan that is within the budget on the text it was not searched on, too; else the one that changes nothing. */
  async choose(evaluated: readonly PlanPoint[]): Promise<PlanFile['chosen']> {
    const { budget, removeAttention } = this.request;
    const isFixed = removeAttention !== undefined;
    const order = [...evaluated].sort((a, b) => b.predictedSpeedup - a.predictedSpeedup || a.quality.kl - b.quality.kl);
    for (const point of order) {
      if (!isFixed && !isWithin(point.quality, budget, SHARE)) continue;
      const check = await this.measurement.quality(point, this.measurement.checked);
      if (isFixed || isWithin(check, budget)) return { ...point, check };
    }
    return { ...this.nothing, check: this.nothing.quality };
  }

  /** Plans of the size of the chosen one, drawn at random; null when none were asked for. */
  async compare(chosen: PlanPoint, removable: readonly number[]): Promise<PlanFile['random']> {
    const { random, talk } = this.request;
    const size = chosen.removeAttention.length;
    if (random === 0 || size === 0) return null;
    const kl: number[] = [];
    const fuse = chosen.runs.length > 0 || chosen.removeFfn.length > 0;
    for (const gone of randomChoices(removable, size, chosen.removeAttention, random)) {
      talk.progress('measuring random plans', kl.length, random);
      const point = await this.#evaluate(gone, fuse);
      if (point) kl.push(point.quality.kl);
    }
    talk.done();
    return { count: kl.length, kl };
  }

  #evaluate(gone: readonly number[], fuse: boolean): Promise<PlanPoint | null> {
    return this.progress.once(`${fuse ? 'fused' : 'removed'} ${gone.join()}`, async () => {
      const candidate = this.candidates.tryBuild(gone, fuse);
      if (!candidate) return null;
      const { choice, seconds } = candidate;
      return {
        ...choice,
        quality: await this.measurement.quality(choice, this.measurement.searched),
        predictedSecondsPerToken: seconds,
        predictedSpeedup: this.nothing.predictedSecondsPerToken / seconds,
      };
    });
  }
}

async function unchanged(measurement: Measurement, seconds: number): Promise<PlanPoint> {
  const quality = await measurement.quality(NO_CHANGE, measurement.searched.slice(0, 1));
  return { ...NO_CHANGE, quality, predictedSecondsPerToken: seconds, predictedSpeedup: 1 };
}

async function deviceFor({ device, model, talk }: PlanRequest): Promise<Device> {
  if (device !== undefined) return deviceOf(device);
  talk.progress('measuring this machine', 0, 1);
  return calibrate(model);
}

function removableOf(layers: readonly Layer[]): number[] {
  const found = layers.filter(({ attention, fixed }) => attention && !attention.attention.blocked && !fixed);
  return found.map(({ index }) => index);
}

/** Width of the residual stream, as far as an FFN shows it. */
function hiddenOf(layers: readonly Layer[]): number {
  return Math.max(1, ...layers.map(({ ffn }) => ffn?.ffn.hidden ?? 1));
}
