/**
 * plan.json: which layers to change, chosen on data within a budget, with the evidence. Written by `onnx-fuse plan`, read
 * by the main command; everything in it was measured, except what is called predicted.
 */
import { reasonOf } from '../../ir/index.js';
import { checkLayers, checkRuns, type FuseOptions, printLayers } from '../../passes/index.js';
import type { Budget, Device, LayerChoice, PlanPoint, PlanScores, Quality } from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { readJson } from '../basics/small-file.js';
import type { ModelFact } from '../fuse/evidence.js';
import type { LayerFact } from '../fuse/report.js';

export type { LayerChoice, PlanPoint, PlanScores, Quality } from '../../runtime/index.js';

/** What the plans of a file have in common. */
export interface PlanOptions {
  readonly norm: 'fold' | 'last';
  readonly keepLast: number;
  readonly lead: boolean;
  /** The FFNs that become consecutive are fused, or removed. */
  readonly action: 'fuse' | 'remove';
}

/** The chosen plan done in another way, measured on all of the data. */
export interface Ablation {
  readonly name: string;
  readonly quality: Quality;
}

/** The content of plan.json. */
export interface PlanFile {
  readonly kind: 'onnx-fuse plan';
  readonly version: 1;
  readonly model: ModelFact;
  /** The layers of the model: their numbers, and what each has. */
  readonly layers: readonly LayerFact[];
  readonly data: {
    readonly source: string;
    readonly sequences: number;
    /** Positions that plans were searched on, and the others, on which the choice was checked. */
    readonly searched: number;
    readonly checked: number;
    /** Perplexity of the original on all of it. */
    readonly originalPerplexity: number;
  };
  readonly budget: Budget;
  readonly options: PlanOptions;
  /** The cost model that ranked the plans. */
  readonly cost: Device & { readonly originalSecondsPerToken: number };
  readonly scores: PlanScores;
  /** Its quality is on the text that was searched on; `check` is on the rest. */
  readonly chosen: PlanPoint & { readonly check: Quality };
  /** The plans that nothing beats in both speed and quality, slowest and best first. */
  readonly front: readonly PlanPoint[];
  /** All that were measured, in order. */
  readonly evaluated: readonly PlanPoint[];
  /** Other plans that remove as many attentions, drawn at random: their KL on the text that was searched on. */
  readonly random: { readonly count: number; readonly kl: readonly number[] } | null;
  readonly ablations: readonly Ablation[] | null;
}

const REMEDY = 'give a file that onnx-fuse plan wrote';

/**
 * Reads a plan. What is acted upon is checked field by field; the evidence is only looked at by people.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_READ, OF_PLAN.
 */
export function readPlanFile(path: string): PlanFile {
  const value = readJson(path, (place, why) => apiErrors.plan(place, why, REMEDY));
  check(path, value);
  return value as PlanFile;
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
  if (plan['version'] !== 1) wrong('version', plan['version'], '1');
  const model = object(plan['model'], 'model');
  if (typeof model['sha256'] !== 'string') wrong('model.sha256', model['sha256'], 'a hash');
  const chosen = object(plan['chosen'], 'chosen');
  layers('removeAttention');
  layers('removeFfn');
  runs('runs');
  runs('windows');
  const options = object(plan['options'], 'options');
  if (options['norm'] !== 'fold' && options['norm'] !== 'last') wrong('options.norm', options['norm'], 'fold or last');
}

/** The options that make a plan of a model. Runs are spelled out: none means that nothing is fused. */
export function fuseOptionsOf(choice: LayerChoice, norm: PlanOptions['norm'] = 'fold'): FuseOptions {
  const { removeAttention, removeFfn, runs, windows } = choice;
  return {
    removeAttention,
    removeFfn,
    ...(runs.length > 0 ? { runs, norm } : { fuse: false }),
    ...(windows.length > 0 ? { parallelizeBlocks: windows, blockForm: 'literal' } : {}),
  };
}

/** A plan in words. */
export function planText(choice: LayerChoice): string {
  const words: string[] = [];
  const list = (layers: readonly number[]) => printLayers(layers).replaceAll(',', ', ');
  if (choice.removeAttention.length > 0) words.push(`remove the attention of layers ${list(choice.removeAttention)}`);
  if (choice.removeFfn.length > 0) words.push(`remove the FFN of layers ${list(choice.removeFfn)}`);
  for (const run of choice.runs) words.push(`fuse the FFNs of layers ${list(run)} into one`);
  for (const window of choice.windows) words.push(`let the blocks of layers ${list(window)} read one input`);
  return words.length > 0 ? words.join('; ') : 'change nothing';
}
