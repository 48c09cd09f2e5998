/**
 * plan.json: which layers to change, chosen on data within a budget, with the evidence. Written by `onnx-fuse plan`, read
 * by the main command; everything in it was measured, except what is called predicted.
 */
import { basename, dirname, join } from 'node:path';
import { reasonOf } from '../../ir/index.js';
import { checkLayers, checkRuns, type FuseOptions, layersText } from '../../passes/index.js';
import type {
  Budget,
  DetailedScores,
  Device,
  LayerChoice,
  PlanPoint,
  Quality,
  SpeedGoal,
} from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { readJson } from '../basics/small-file.js';
import type { ModelFact } from '../fuse/evidence.js';
import type { LayerFact } from '../fuse/report.js';
import { type FitFact, sha256Of } from './fit-file.js';
import type { MapForm } from './map-form.js';
import type { MeasuredSpeed } from './measured-speed.js';

export type { LayerChoice, PlanPoint, Quality } from '../../runtime/index.js';

/** What the plans of a file have in common. */
export interface PlanOptions extends MapForm {
  /** Linear maps may stand where branches were. */
  readonly recover: boolean;
  /** What the predicted speed is of: tokens, or prompts. With `both` it is of tokens, and what is fused makes neither slower. */
  readonly optimizeFor: SpeedGoal;
  /** FFNs that become consecutive are fused where the device gains by it, always, or never. */
  readonly fuse: 'auto' | 'always' | 'never';
  readonly keepLast: number;
  readonly lead: boolean;
}

/** What is asked for: the fastest plan within a budget, or the best one of this speed. */
export type PlanObjective = { readonly kind: 'fastest' } | { readonly kind: 'best'; readonly speedup: number };

/** How much the model needs each layer: KL(original || changed), nats a token; null where a layer has no such branch. */
export interface PlanScores {
  readonly layers: readonly number[];
  readonly withoutAttention: readonly (number | null)[];
  /** With a map, fitted on what the original computes, in the place of the branch; of both branches together. */
  readonly mappedAttention: readonly (number | null)[];
  readonly mappedFfn: readonly (number | null)[];
  readonly mappedBlock: readonly (number | null)[];
  /** On demand, else null. */
  readonly more: DetailedScores | null;
}

/** A plan of the search, and whether its maps were fitted one after another, or each alone on what the original computes. */
export interface SearchedPoint extends PlanPoint {
  readonly maps: 'together' | 'alone' | 'none';
}

/** The chosen plan done in another way, measured on all of the data. */
export interface Ablation {
  readonly name: string;
  readonly quality: Quality;
}

/** The content of plan.json. */
export interface PlanFile {
  readonly kind: 'onnx-fuse plan';
  readonly version: 2;
  readonly model: ModelFact;
  /** The layers of the model: their numbers, and what each has. */
  readonly layers: readonly LayerFact[];
  readonly data: {
    readonly source: string;
    /** Where the text to check on comes from; null when it is the end of `source`. */
    readonly heldOut: string | null;
    /** Sequences in all, and positions that maps were fitted on, plans searched on, and the choice checked on. */
    readonly sequences: number;
    readonly fitted: number;
    readonly searched: number;
    readonly checked: number;
    /** Perplexity of the original where the choice was checked. */
    readonly originalPerplexity: number;
  };
  readonly budget: Budget;
  readonly objective: PlanObjective;
  readonly options: PlanOptions;
  /** The cost model that ranked the plans. Predicted times are those of a prompt of 128 tokens where the plan is for prompts. */
  readonly cost: Device & { readonly originalSeconds: number };
  readonly scores: PlanScores;
  /** The maps of the chosen plan; null when it has none. */
  readonly fit: FitFact | null;
  /**
   * Its quality is on the text that was searched on; `check` is on text that nothing was fitted or chosen on, and `removed`
   * is that of the same plan with nothing in the place of the branches that go.
   */
  readonly chosen: SearchedPoint & { readonly check: Quality; readonly removed: Quality | null };
  /**
   * Better plans, within the budget on the text that was searched on, but not on that which the choice was checked on (`check`), the
   * best first.
   */
  readonly passedOver: readonly (SearchedPoint & { readonly check: Quality })[];
  /** The plans that nothing beats in both speed and quality, slowest and best first. */
  readonly front: readonly SearchedPoint[];
  /** All that were measured, in order. */
  readonly evaluated: readonly SearchedPoint[];
  /** Other plans that change as many branches in the same ways, drawn at random: their KL on the text that was searched on. */
  readonly random: { readonly count: number; readonly kl: readonly number[] } | null;
  /** Of the chosen plan; null when it was not measured. */
  readonly measured: MeasuredSpeed | null;
  readonly ablations: readonly Ablation[] | null;
}

const REMEDY = 'give a file that onnx-fuse plan wrote';

/**
 * Reads a plan. What is acted upon is checked field by field; the evidence is only looked at by people.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_READ, OF_PLAN.
 */
export function readPlanFile(path: string): PlanFile {
  const value = upgraded(readJson(path, (place, why) => apiErrors.plan(place, why, REMEDY)));
  check(path, value);
  return value as PlanFile;
}

/** A plan of version 1, which knew no maps, as one of today. Those that share one norm have no like any more. */
function upgraded(value: unknown): unknown {
  const isRecord = (found: unknown): found is Readonly<Record<string, unknown>> =>
    typeof found === 'object' && found !== null && !Array.isArray(found);
  if (!isRecord(value) || value['version'] !== 1) return value;
  const { options, chosen, front, evaluated } = value;
  if (!isRecord(options) || options['norm'] !== 'fold') return value;
  const mapless = (point: unknown) =>
    isRecord(point) ? { ...point, linearizeAttention: [], linearizeFfn: [] } : point;
  const all = (points: unknown) => (Array.isArray(points) ? points.map(mapless) : points);
  return { ...value, version: 2, fit: null, chosen: mapless(chosen), front: all(front), evaluated: all(evaluated) };
}

function check(path: string, value: unknown): void {
  const wrong = (field: string, found: unknown, expected: string): never => {
    const shown = JSON.stringify(found) ?? 'absent';
    throw apiErrors.plan(path, `${field} is ${shown.slice(0, 60)}, expected ${expected}`, REMEDY);
  };
  const object = (found: unknown, field: string): Record<string, unknown> =>
    typeof found === 'object' && found !== null && !Array.isArray(found)
      ? (found as Record<string, unknown>)
      : wrong(field, found, 'an object');
  const layers = (field: string): void => list(field, checkLayers, 'a list of layer numbers');
  const runs = (field: string): void => list(field, checkRuns, 'a list of runs');
  const list = (field: string, check: (found: unknown) => unknown, expected: string): void => {
    const found = chosen[field];
    try {
      check(found);
    } catch (error) {
      wrong(`chosen.${field}`, found, `${expected}: ${reasonOf(error)}`);
    }
  };
  const plan = object(value, 'the file');
  if (plan['kind'] !== 'onnx-fuse plan') wrong('kind', plan['kind'], '"onnx-fuse plan"');
  if (plan['version'] !== 2) wrong('version', plan['version'], '2: make the plan anew');
  const model = object(plan['model'], 'model');
  if (typeof model['sha256'] !== 'string') wrong('model.sha256', model['sha256'], 'a hash');
  const chosen = object(plan['chosen'], 'chosen');
  for (const key of LISTS) layers(key);
  runs('runs');
  runs('windows');
  const fit = plan['fit'];
  if (fit !== null) {
    const { file, sha256 } = object(fit, 'fit') as { file?: unknown; sha256?: unknown };
    // The name of a file beside the plan, and no way to another place.
    if (typeof file !== 'string' || file !== basename(file)) wrong('fit.file', file, 'the name of a file');
    if (typeof sha256 !== 'string') wrong('fit.sha256', sha256, 'a hash');
  }
  for (const key of ['linearizeAttention', 'linearizeFfn'] as const) {
    if (fit === null && (chosen[key] as unknown[]).length > 0)
      wrong('fit', fit, `the file of the maps of chosen.${key}`);
  }
}

const LISTS = ['removeAttention', 'removeFfn', 'linearizeAttention', 'linearizeFfn'] as const;

/**
 * The options that make the plan at `path`, whose maps lie beside it. Runs are spelled out: none means that nothing is
 * fused. @throws Diagnostic OF_PLAN when the maps are not those of the plan, OF_READ.
 */
export async function plannedOptions(
  path: string,
  { chosen, fit }: Pick<PlanFile, 'chosen' | 'fit'>,
): Promise<FuseOptions> {
  if (!fit) return fuseOptionsOf(chosen, null);
  const maps = join(dirname(path), fit.file);
  const found = await sha256Of(maps);
  if (found !== fit.sha256) {
    const why = `its maps have sha256 ${fit.sha256.slice(0, 12)}..., '${fit.file}' ${found.slice(0, 12)}...`;
    throw apiErrors.plan(path, why, 'keep both files of one plan together, or make the plan anew');
  }
  return fuseOptionsOf(chosen, maps);
}

/** The options that make a plan of a model; `maps` is the file of its maps. */
export function fuseOptionsOf(choice: LayerChoice, maps: string | null): FuseOptions {
  const { removeAttention, removeFfn, linearizeAttention: attention, linearizeFfn: ffn, runs, windows } = choice;
  return {
    removeAttention,
    removeFfn,
    ...(maps === null ? {} : { linearize: { attention, ffn, maps } }),
    ...(runs.length > 0 ? { runs } : { fuse: false }),
    ...(windows.length > 0 ? { parallelizeBlocks: windows, blockForm: 'literal' } : {}),
  };
}

/** Whether two plans do the same to the same layers. */
export function isSameChoice(a: LayerChoice, b: LayerChoice): boolean {
  const key = (choice: LayerChoice) =>
    JSON.stringify([...LISTS.map((list) => choice[list]), choice.runs, choice.windows]);
  return key(a) === key(b);
}

/** A plan in words. */
export function planText(choice: LayerChoice): string {
  const words: string[] = [];
  const list = (layers: readonly number[]) => layersText(layers.map(String));
  if (choice.removeAttention.length > 0) words.push(`remove the attention of ${list(choice.removeAttention)}`);
  if (choice.removeFfn.length > 0) words.push(`remove the FFN of ${list(choice.removeFfn)}`);
  const { linearizeAttention, linearizeFfn } = choice;
  if (linearizeAttention.length > 0)
    words.push(`put a map in the place of the attention of ${list(linearizeAttention)}`);
  if (linearizeFfn.length > 0) words.push(`put a map in the place of the FFN of ${list(linearizeFfn)}`);
  for (const run of choice.runs) words.push(`fuse the FFNs of ${list(run)} into one`);
  for (const window of choice.windows) words.push(`let the blocks of ${list(window)} read one input`);
  return words.length > 0 ? words.join('; ') : 'change nothing';
}
