/** What `onnx-fuse plan` does, without a command line: text, scores, search, fits, choice, evidence. */
import { openModel } from '../../ir/index.js';
import { fuseSteps, type Layer, layersOf, requireLayer, runPipeline } from '../../passes/index.js';
import {
  checkEnds,
  costsFor,
  cutPieces,
  type Device,
  linearBytes,
  type PieceModel,
  PROMPT_TOKENS,
  paretoFront,
  partsOf,
  predictSecondsPerToken,
  type SessionOptions,
  type SpeedGoal,
  workOf,
} from '../../runtime/index.js';
import type { Talk } from '../basics/progress.js';
import { modelFact } from '../fuse/evidence.js';
import { layerFacts } from '../fuse/figures.js';
import { runsAfter } from './candidates.js';
import { deviceOf } from './device.js';
import { saveFits } from './fit-file.js';
import { GatedText } from './gated.js';
import { checkRank } from './map-form.js';
import { calibrateFor, measureSpeed, type SpeedRequest } from './measured-speed.js';
import { Measurement } from './measurement.js';
import { type Action, type BranchCosts, draftMoves, keyOf } from './moves.js';
import { measureAblations } from './plan-ablations.js';
import {
  fuseOptionsOf,
  type LayerChoice,
  type PlanFile,
  type PlanObjective,
  type PlanOptions,
  type PlanScores,
} from './plan-file.js';
import { Planner } from './planner.js';
import { PlanProgress } from './resume.js';
import { type PlanTextRequest, type PlanTexts, positionsOf, readPlanTexts } from './texts.js';

/** What a plan is made for, and how. */
export interface PlanRequest extends PlanTextRequest {
  readonly model: string;
  readonly budget: PlanFile['budget'];
  readonly objective: PlanObjective;
  readonly options: PlanOptions;
  /** A name, a file, or undefined: this machine is measured. */
  readonly device?: string | undefined;
  /** Where and how this machine is measured. */
  readonly speed: SpeedRequest;
  /** Also measure the speed of the chosen plan. */
  readonly measure: boolean;
  readonly session: SessionOptions;
  readonly maxEvaluations: number;
  /** Random plans to compare with. */
  readonly random: number;
  /** Measure the chosen plan in other ways, too. */
  readonly ablate: boolean;
  /** Also measure what the search does not need: how blocks depend on each other, and single parts removed. */
  readonly detailed: boolean;
  /** Do not search: these attentions go. */
  readonly removeAttention?: readonly number[] | undefined;
  /** Where the maps are written. */
  readonly fitFile: string;
  /** Where measurements are kept until all is done, so that an interrupted run goes on. */
  readonly progressFile: string;
  readonly talk: Talk;
}

/**
 * Chooses a plan. Maps are fitted on the first part of the text, plans are searched on the second within nine tenths of the
 * budget, and the best of those that are within the whole budget on the third, too, is chosen.
 * @throws Diagnostic
 */
export async function makePlan(request: PlanRequest): Promise<PlanFile> {
  const { talk, options, budget, objective } = request;
  const original = openModel(request.model);
  const { layers } = layersOf(original);
  checkRank(options, () => cutPieces(request.model).hidden);
  const texts = await readPlanTexts(request.model, original, request, options.recover);
  // What was asked for and cannot be is refused before anything is measured.
  const asked = request.removeAttention;
  if (asked !== undefined) {
    for (const layer of asked) requireLayer(layers, layer);
    runsAfter(request.model, asked, { keepLast: options.keepLast, lead: options.lead });
  }
  const device = await deviceFor(request);
  const counted = costsFor(options.optimizeFor, device);
  const model = await modelFact(request.model);
  await checkEnds(request.model, original);
  const measurement = await Measurement.open(request.model, texts, request.session, options);
  try {
    const progress = new PlanProgress(request.progressFile, {
      model: model.sha256,
      texts: [texts.fit, texts.search, texts.check],
      options: { ...options, device: request.device ?? 'measured' },
    });
    const originalSeconds = predictSecondsPerToken(workOf(original), counted);
    const costs = branchCosts(original, measurement.model, counted, options);
    const drafts = draftMoves(measurement.model.pieces, layers, costs, options.recover);
    const planner = new Planner(request, { measurement, progress, drafts, costs, originalSeconds });
    const { chosen, passedOver, removed, fits, nothing, evaluated, random, perplexity } = await planner.plan();
    const fit = await saveFits(request.fitFile, fits, measurement.model.pieces);
    const detailed = request.detailed
      ? await progress.once('detailed scores', () => detailedScores(request, texts, measurement.model))
      : null;
    return {
      kind: 'onnx-fuse plan',
      version: 2,
      model,
      layers: layerFacts(layers),
      data: {
        source: texts.source,
        heldOut: texts.heldOut,
        sequences: texts.fit.length + texts.search.length + texts.check.length,
        fitted: positionsOf(texts.fit),
        searched: positionsOf(texts.search),
        checked: positionsOf(texts.check),
        originalPerplexity: perplexity,
      },
      budget,
      objective,
      options,
      cost: { ...device, originalSeconds },
      scores: { ...scoresOf(layers, planner.scores), more: detailed },
      fit,
      chosen: { ...chosen, removed },
      passedOver,
      front: paretoFront([nothing, ...evaluated]),
      evaluated,
      random,
      measured: request.measure ? await measured(request, chosen, fit) : null,
      ablations: request.ablate
        ? await measureAblations(request.model, [...texts.search, ...texts.check], options, chosen, talk)
        : null,
    };
  } finally {
    talk.done();
    await measurement.release();
  }
}

async function deviceFor({ device, model, speed, options }: PlanRequest): Promise<Device> {
  return device === undefined ? calibrateFor(model, speed, options.optimizeFor === 'prompt') : deviceOf(device);
}

/** The speed of the plan as it is measured, on a model that is made in memory: with the prompt whose time was predicted, where it was. */
async function measured({ model, speed, fitFile, options }: PlanRequest, chosen: LayerChoice, fit: PlanFile['fit']) {
  const changed = openModel(model);
  runPipeline(changed, fuseSteps(fuseOptionsOf(chosen, fit ? fitFile : null)));
  const prompts = options.optimizeFor === 'prompt' ? { context: PROMPT_TOKENS, prompt: true } : {};
  return measureSpeed(model, changed, { ...speed, ...prompts });
}

/** Seconds that a fused FFN saves at least where fusing is asked for: a device may be measured to gain nothing. */
const LEAST_GAIN = 1e-7;

/**
 * What fusing saves for each FFN that is no more, where nobody asks for it: as measured, of what is to be fast, and unless that is
 * said, only if it makes prompts no slower; among ranks their all-reduce; else nothing, since on one processor the work of fused FFNs
 * stays what it was.
 */
export function knownGain({ fusion, ranks, secondsPerFfn }: Device, goal: SpeedGoal): number {
  if (fusion) {
    if (goal === 'prompt') return Math.max(0, fusion.prompt);
    return goal === 'both' && fusion.prompt < 0 ? 0 : Math.max(0, fusion.token);
  }
  return ranks > 1 ? Math.max(secondsPerFfn, LEAST_GAIN) : 0;
}

/** What each branch costs on the device, given with the costs that count; what a fused FFN saves is the constant of those that are no more. */
export function branchCosts(
  original: ReturnType<typeof openModel>,
  { hidden, pieces }: PieceModel,
  device: Device,
  { fuse, quantizeMaps, mapRank, optimizeFor }: PlanOptions,
): BranchCosts {
  const rate = device.bytesPerSecond * device.ranks;
  const bytes = new Map<string, number>();
  for (const { layer, part, weightBytes } of partsOf(original)) {
    const key = `${part} ${layer}`;
    bytes.set(key, (bytes.get(key) ?? 0) + weightBytes);
  }
  const narrow = pieces.some((piece) => piece.kind === 'branch' && piece.normedType !== 'float');
  const seconds = (part: string, layer: number): number => (bytes.get(`${part} ${layer}`) ?? 0) / rate;
  const bytesPerElement = quantizeMaps === null ? (narrow ? 2 : 4) : quantizeMaps / 8;
  const gains = fuse === 'auto' ? knownGain(device, optimizeFor) : Math.max(device.secondsPerFfn, LEAST_GAIN);
  return {
    attention: (layer) => seconds('attention', layer) + device.secondsPerAttention,
    ffn: (layer) => seconds('ffn', layer) + device.secondsPerFfn,
    linear: linearBytes(hidden, bytesPerElement, mapRank) / rate + device.secondsPerLinear,
    fusion: (members) => (members - 1) * gains,
  };
}

async function detailedScores({ model, talk }: PlanRequest, texts: PlanTexts, { hidden }: PieceModel) {
  const gated = await GatedText.open(model, texts.search);
  try {
    return await gated.scores(hidden, (done, total) => talk.progress('scoring all parts of the layers', done, total));
  } finally {
    await gated.release();
  }
}

/** The scores of single moves, layer by layer. */
function scoresOf(layers: readonly Layer[], scores: ReadonlyMap<string, number>): Omit<PlanScores, 'more'> {
  const numbers = layers.map(({ index }) => index);
  const of = (action: Action) => numbers.map((layer) => scores.get(keyOf(action, layer)) ?? null);
  return {
    layers: numbers,
    withoutAttention: of('remove attention'),
    mappedAttention: of('map attention'),
    mappedFfn: of('map ffn'),
    mappedBlock: of('map block'),
  };
}
