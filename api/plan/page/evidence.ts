/**
 * What a plan file says, as far as it makes sense. `readPlanFile` checks what is acted upon; the rest may be missing or odd, and is
 * then null here: a report says that it was not measured.
 */

import { apiErrors } from '../../basics/errors.js';
import { MOST_LAYERS } from '../../page/rows.js';
import type { LayerChoice, PlanFile } from '../plan-file.js';

/** Quality; null where the file has no number. */
export interface Figures {
  readonly kl: number | null;
  readonly maxKl: number | null;
  readonly perplexity: number | null;
  readonly perplexityIncrease: number | null;
  readonly top1: number | null;
  readonly top5: number | null;
  readonly positions: number | null;
  readonly klByPosition: readonly (number | null)[];
}

/** A plan as the page shows it: what the file does not say is null. */
export interface DrawnPlan extends LayerChoice {
  readonly quality: Figures | null;
  readonly speedup: number | null;
  readonly seconds: number | null;
}

/** A layer as the page shows it. */
export interface DrawnLayer {
  readonly layer: number;
  readonly attention: boolean;
  readonly ffn: boolean;
  readonly ffnWidth: number | null;
}

/** Scores as the page shows them. */
export interface DrawnScores {
  readonly layers: readonly number[];
  readonly dependency: readonly (readonly (number | null)[])[] | null;
  /** By layer, in the order of `layers`. */
  readonly of: Readonly<Record<ScoreName, readonly (number | null)[] | null>>;
}

/** The scores that a page shows. */
export const SCORE_NAMES = [
  'mappedAttention',
  'withoutAttention',
  'mappedFfn',
  'withoutFfn',
  'mappedBlock',
  'withoutBlock',
  'attentionSimilarity',
  'blockInfluence',
] as const;
/** One of the scores. */
export type ScoreName = (typeof SCORE_NAMES)[number];

/** Everything that a page shows of a plan, read from a file that may be damaged. */
export interface PlanEvidence {
  readonly model: { readonly file: string; readonly bytes: number | null; readonly sha256: string };
  readonly layers: readonly DrawnLayer[] | null;
  readonly data: {
    readonly source: string | null;
    readonly sequences: number | null;
    readonly originalPerplexity: number | null;
  };
  readonly budget: {
    readonly maxKl: number | null;
    readonly maxPerplexityIncrease: number | null;
    readonly minTop1: number | null;
  };
  readonly options: {
    readonly keepLast: number | null;
    readonly lead: boolean;
    readonly fuse: string | null;
    /** Whose times they are: those of a prompt, or of a token. */
    readonly optimizeFor: PlanFile['options']['optimizeFor'];
  };
  readonly cost: {
    readonly name: string | null;
    readonly source: string | null;
    readonly ranks: number | null;
    readonly bytesPerSecond: number | null;
    readonly secondsPerAttention: number | null;
    readonly secondsPerFfn: number | null;
    readonly secondsPerLinear: number | null;
    readonly disturbed: string | null;
    readonly originalSeconds: number | null;
  };
  readonly scores: DrawnScores | null;
  /** `removed`: without its maps. */
  readonly chosen: DrawnPlan & { readonly check: Figures | null; readonly removed: Figures | null };
  readonly front: readonly DrawnPlan[];
  readonly evaluated: readonly DrawnPlan[];
  /** How many times as fast the plan should be; null when the fastest was asked for. */
  readonly target: number | null;
  readonly measured: { readonly speedup: number; readonly runtime: string } | null;
  readonly random: { readonly kl: readonly number[] } | null;
  readonly ablations: readonly { readonly name: string; readonly quality: Figures }[];
}

type Fields = Readonly<Record<string, unknown>>;

export const fields = (value: unknown): Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
export const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
export const numberOf = (value: unknown): number | null =>
  typeof value === 'number' && Number.isFinite(value) ? value : null;
export const textOf = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);
/** A size or a duration. */
const positive = (value: unknown): number | null => {
  const found = numberOf(value);
  return found !== null && found > 0 ? found : null;
};
const whole = (value: unknown): number | null =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : null;
/** The name of a file without the folders of the machine that made the plan. */
const fileName = (value: unknown): string | null => textOf(textOf(value)?.split(/[\\/]/).at(-1));

/** Quality, or null when it holds no figure at all. */
export function figuresOf(value: unknown): Figures | null {
  const found = fields(value);
  const figures: Figures = {
    kl: numberOf(found['kl']),
    maxKl: numberOf(found['maxKl']),
    perplexity: positive(found['perplexity']),
    perplexityIncrease: numberOf(found['perplexityIncrease']),
    top1: numberOf(found['top1']),
    top5: numberOf(found['top5']),
    positions: whole(found['positions']),
    klByPosition: list(found['klByPosition']).map(numberOf),
  };
  return Object.values(figures).every((each) => each === null || Array.isArray(each)) ? null : figures;
}

const layerList = (value: unknown): number[] | null => {
  const found = list(value).map(whole);
  return Array.isArray(value) && !found.includes(null) ? (found as number[]) : null;
};

function pointOf(value: unknown): DrawnPlan | null {
  const found = fields(value);
  const lists = (key: string) => list(found[key]).map(layerList);
  const [removeAttention, removeFfn] = [layerList(found['removeAttention']), layerList(found['removeFfn'])];
  const [linearizeAttention, linearizeFfn] = [layerList(found['linearizeAttention']), layerList(found['linearizeFfn'])];
  const [runs, windows] = [lists('runs'), lists('windows')];
  if (!removeAttention || !removeFfn || !linearizeAttention || !linearizeFfn) return null;
  if (runs.includes(null) || windows.includes(null)) return null;
  return {
    removeAttention,
    removeFfn,
    linearizeAttention,
    linearizeFfn,
    runs: (runs as number[][]).filter((run) => run.length > 0),
    windows: (windows as number[][]).filter((window) => window.length > 0),
    quality: figuresOf(found['quality']),
    speedup: positive(found['predictedSpeedup']),
    seconds: positive(found['predictedSeconds']),
  };
}

function speedOf(value: unknown, isForPrompts: boolean): PlanEvidence['measured'] {
  const found = fields(value);
  const of = isForPrompts ? fields(found['prompt']) : found;
  const [speedup, runtime] = [positive(of['speedup']), textOf(found['runtime'])];
  return speedup !== null && runtime !== null ? { speedup, runtime } : null;
}

const points = (value: unknown): DrawnPlan[] => list(value).flatMap((each) => pointOf(each) ?? []);

/** Layers with distinct numbers, or null. */
function layersOf(value: unknown): DrawnLayer[] | null {
  const layers = list(value).flatMap((each) => {
    const found = fields(each);
    const layer = whole(found['layer']);
    if (layer === null) return [];
    const [attention, ffn] = [found['attention'] === true, found['ffn'] === true];
    return [{ layer, attention, ffn, ffnWidth: positive(found['ffnWidth']) }];
  });
  const isFine = layers.length > 0 && layers.length === list(value).length && layers.length <= MOST_LAYERS;
  return isFine && new Set(layers.map(({ layer }) => layer)).size === layers.length ? layers : null;
}

function scoresOf(value: unknown): DrawnScores | null {
  const found = fields(value);
  const layers = layerList(found['layers']);
  if (!layers || layers.length === 0 || layers.length > MOST_LAYERS || new Set(layers).size < layers.length)
    return null;
  const row = (each: unknown): (number | null)[] | null => {
    const values = list(each).map(numberOf);
    return values.length === layers.length ? values : null;
  };
  // What is measured on demand only.
  const more = fields(found['more']);
  const rows = list(more['dependency']).map(row);
  const isSquare = rows.length === layers.length && !rows.includes(null);
  const scores = SCORE_NAMES.map((name) => [name, row(found[name]) ?? row(more[name])] as const);
  return {
    layers,
    dependency: isSquare ? (rows as (number | null)[][]) : null,
    of: Object.fromEntries(scores) as Record<ScoreName, (number | null)[] | null>,
  };
}

/**
 * Reads everything.
 * @throws Diagnostic OF_PLAN when the plan changes layers that the file says the model does not have.
 */
export function evidenceOf(plan: PlanFile): PlanEvidence {
  const file = plan as unknown as Fields;
  const [model, data, budget] = [fields(file['model']), fields(file['data']), fields(file['budget'])];
  const [options, cost] = [fields(file['options']), fields(file['cost'])];
  const chosen = pointOf(file['chosen']);
  if (!chosen) throw apiErrors.plan('chosen', 'it is no choice of layers', 'give a file that onnx-fuse plan wrote');
  const layers = layersOf(file['layers']);
  const { removeAttention, removeFfn, linearizeAttention, linearizeFfn, runs, windows } = chosen;
  const named = [removeAttention, removeFfn, linearizeAttention, linearizeFfn, ...runs, ...windows].flat();
  const unknown = layers && named.find((layer) => layers.every((each) => each.layer !== layer));
  if (unknown != null) {
    const why = `it changes layer ${unknown}, which is not among the layers of the file`;
    throw apiErrors.plan('chosen', why, 'give a file that onnx-fuse plan wrote');
  }
  const random = fields(file['random']);
  const isForPrompts = options['optimizeFor'] === 'prompt';
  const costs = isForPrompts ? fields(cost['prompt']) : cost;
  return {
    model: {
      file: fileName(model['file']) ?? 'a model without a name',
      bytes: whole(model['bytes']),
      sha256: textOf(model['sha256']) ?? '',
    },
    layers,
    data: {
      source: fileName(data['source']),
      sequences: whole(data['sequences']),
      originalPerplexity: positive(data['originalPerplexity']),
    },
    budget: {
      maxKl: numberOf(budget['maxKl']),
      maxPerplexityIncrease: numberOf(budget['maxPerplexityIncrease']),
      minTop1: numberOf(budget['minTop1']),
    },
    options: {
      keepLast: whole(options['keepLast']),
      lead: options['lead'] === true,
      fuse: textOf(options['fuse']),
      optimizeFor: isForPrompts ? 'prompt' : options['optimizeFor'] === 'decode' ? 'decode' : 'both',
    },
    cost: {
      name: textOf(cost['name']),
      source: textOf(cost['source']),
      ranks: whole(cost['ranks']),
      bytesPerSecond: positive(costs['bytesPerSecond']),
      // Plans of the first release have one cost for all.
      secondsPerAttention: numberOf(costs['secondsPerAttention'] ?? costs['secondsPerSubBlock']),
      secondsPerFfn: numberOf(costs['secondsPerFfn'] ?? costs['secondsPerSubBlock']),
      secondsPerLinear: numberOf(costs['secondsPerLinear'] ?? costs['secondsPerSubBlock']),
      disturbed: textOf(cost['disturbed']),
      originalSeconds: positive(cost['originalSeconds']),
    },
    scores: scoresOf(file['scores']),
    chosen: {
      ...chosen,
      check: figuresOf(fields(file['chosen'])['check']),
      removed: figuresOf(fields(file['chosen'])['removed']),
    },
    front: points(file['front']),
    evaluated: points(file['evaluated']),
    target: positive(fields(file['objective'])['speedup']),
    measured: speedOf(file['measured'], isForPrompts),
    random:
      file['random'] === null || file['random'] === undefined
        ? null
        : { kl: list(random['kl']).flatMap((each) => numberOf(each) ?? []) },
    ablations: list(file['ablations']).flatMap((each) => {
      const [name, quality] = [textOf(fields(each)['name']), figuresOf(fields(each)['quality'])];
      return name !== null && quality ? [{ name, quality }] : [];
    }),
  };
}
