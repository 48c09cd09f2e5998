/** What a plan does to the layers of a model, and how plans compare. */
import type { Quality } from '../quality/quality.js';

/** What a plan does, in original layer numbers. */
export interface LayerChoice {
  readonly removeAttention: readonly number[];
  readonly removeFfn: readonly number[];
  /** Branches in whose place a linear map of their normed input stands: n(x) W + b, or a bias alone. */
  readonly linearizeAttention: readonly number[];
  readonly linearizeFfn: readonly number[];
  /** FFN runs whose members read the input of the run, and with them the maps between them. */
  readonly runs: readonly (readonly number[])[];
  /** Windows of whole blocks in parallel, in the literal form: each FFN reads the window's input and its own attention. */
  readonly windows: readonly (readonly number[])[];
}

/** The choice that changes nothing. */
export const NO_CHANGE: LayerChoice = {
  removeAttention: [],
  removeFfn: [],
  linearizeAttention: [],
  linearizeFfn: [],
  runs: [],
  windows: [],
};

/** A plan that was measured. */
export interface PlanPoint extends LayerChoice {
  readonly quality: Quality;
  /** Of a token, or of a prompt where the plan is for prompts, by the cost model; and the original's over it (1.2 is 1.2 times as fast). */
  readonly predictedSeconds: number;
  readonly predictedSpeedup: number;
}

/** What a plan may cost; null where anything may. */
export interface Budget {
  readonly maxKl: number | null;
  readonly maxPerplexityIncrease: number | null;
  readonly minTop1: number | null;
}

/** Whether `quality` is within `share` of the budget (1 is all of it). What is no number is within none. */
export function isWithin(quality: Quality, budget: Budget, share = 1): boolean {
  const { maxKl, maxPerplexityIncrease, minTop1 } = budget;
  // A file may hold null for a score that was no number, and null compares like 0.
  const keeps = (score: number, most: number | null): boolean =>
    most === null || (typeof score === 'number' && score <= share * most);
  return (
    keeps(quality.kl, maxKl) &&
    keeps(quality.perplexityIncrease, maxPerplexityIncrease) &&
    (minTop1 === null || (typeof quality.top1 === 'number' && keeps(1 - quality.top1, 1 - minTop1)))
  );
}

/** The plans that no other beats in speed without being worse: slowest and best first. */
export function paretoFront<P extends PlanPoint>(points: readonly P[]): P[] {
  const order = [...points].sort((a, b) => b.predictedSpeedup - a.predictedSpeedup || a.quality.kl - b.quality.kl);
  const front: P[] = [];
  for (const point of order) {
    const last = front.at(-1);
    if (!last || point.quality.kl < last.quality.kl) front.push(point);
  }
  return front.reverse();
}
