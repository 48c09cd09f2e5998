/**
 * Searches for the fastest plan within a budget of quality.
 *
 * A plan is a set of attentions that go; the runs of FFNs that are then consecutive follow from it. Removals and runs interact, so no
 * sum of scores is trusted: scores only say what to try next, and everything that is tried is measured. Beam search: the states of
 * one step each lose one attention more, the cheapest by replace-one KL and the neighbours of what is gone already (which make
 * runs); those that stay within the budget and are the fastest make the next step. Then it looks back: members of the best state are
 * exchanged for others as long as that makes it faster, or better at the same speed. Deterministic for the same measurements.
 */

import type { Quality } from '../quality/quality.js';
import type { LayerChoice } from './gates.js';
import type { PlanScores } from './scores.js';

/** A plan that was measured. */
export interface PlanPoint extends LayerChoice {
  readonly quality: Quality;
  /** Predicted by the cost model, and the original's over it (1.2 is 1.2 times as fast). */
  readonly predictedSecondsPerToken: number;
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

/** What a search may try and how long. */
export interface SearchOptions {
  readonly budget: Budget;
  /**
   * Part of the budget that the search may use. It picks the best of many plans on one text, and the winner looks better there than
   * on other text.
   */
  readonly share: number;
  readonly scores: PlanScores;
  /** Layers whose attention can go. */
  readonly removable: readonly number[];
  readonly maxEvaluations: number;
  /** States of a step. */
  readonly beam: number;
}

/** Measures a plan; `fuse` false leaves its FFNs as they are. Null when the passes refuse it, or it changes nothing. */
export type Evaluate = (removeAttention: readonly number[], fuse: boolean) => Promise<PlanPoint | null>;

/** Attentions that are tried next, from one state. */
const TRIES = 6;
/** Neighbours among them. */
const NEIGHBOURS = 2;

interface State {
  readonly gone: readonly number[];
  readonly point: PlanPoint | null;
}

/** All plans that were measured, in order; the caller chooses among them. */
export async function searchPlans(options: SearchOptions, evaluate: Evaluate): Promise<readonly PlanPoint[]> {
  const { budget, share, maxEvaluations, removable } = options;
  const measured: PlanPoint[] = [];
  const tried = new Set<string>();
  const measure = async (gone: readonly number[], fuse: boolean): Promise<PlanPoint | null> => {
    const key = `${fuse}:${gone.join()}`;
    if (tried.has(key) || measured.length >= maxEvaluations) return null;
    tried.add(key);
    const point = await evaluate(gone, fuse);
    if (point) measured.push(point);
    return point;
  };
  /** The state without these attentions: fused where the budget allows, else only removed. */
  const stateOf = async (gone: readonly number[]): Promise<State | null> => {
    for (const fuse of [true, false]) {
      const point = await measure(gone, fuse);
      if (point && isWithin(point.quality, budget, share)) return { gone, point };
      // Where nothing is fused, the second would be the first again.
      if (point && point.runs.length === 0 && point.removeFfn.length === 0) return null;
    }
    return null;
  };
  const extend = async (states: readonly State[]): Promise<State[]> => {
    const found: State[] = [];
    for (const { gone } of states) {
      for (const layer of nextOf(gone, options)) {
        const state = await stateOf(sorted([...gone, layer]));
        if (state) found.push(state);
      }
    }
    return found.sort(byMerit).slice(0, options.beam);
  };

  // A model may have runs of FFNs before any attention goes.
  let best: State = (await stateOf([])) ?? { gone: [], point: null };
  let states: State[] = [best];
  while (states.length > 0 && measured.length < maxEvaluations) {
    states = await extend(states);
    if (states[0] && byMerit(states[0], best) < 0) best = states[0];
  }
  // Looks back: is there a better member for what is in it?
  for (let isBetter = true; isBetter && measured.length < maxEvaluations; ) {
    isBetter = false;
    for (const member of [...best.gone].sort((a, b) => scoreOf(options, b) - scoreOf(options, a))) {
      const rest = best.gone.filter((layer) => layer !== member);
      for (const layer of nextOf(rest, options)) {
        if (layer === member || !removable.includes(layer)) continue;
        const state = await stateOf(sorted([...rest, layer]));
        if (!state || byMerit(state, best) >= 0) continue;
        best = state;
        const [longer] = await extend([state]);
        if (longer && byMerit(longer, best) < 0) best = longer;
        isBetter = true;
        break;
      }
      if (isBetter) break;
    }
  }
  return measured;
}

/** The layers to try next: the cheapest ones, and the cheapest neighbours of what is gone. Numbers may have gaps. */
function nextOf(gone: readonly number[], options: SearchOptions): number[] {
  const { layers } = options.scores;
  const isGone = (place: number): boolean => gone.includes(layers[place] ?? -1);
  const left = options.removable.filter((layer) => !gone.includes(layer));
  left.sort((a, b) => scoreOf(options, a) - scoreOf(options, b) || a - b);
  const neighbours = left.filter((layer) => isGone(layers.indexOf(layer) - 1) || isGone(layers.indexOf(layer) + 1));
  return [...new Set([...neighbours.slice(0, NEIGHBOURS), ...left])].slice(0, TRIES);
}

function scoreOf({ scores }: SearchOptions, layer: number): number {
  return scores.withoutAttention[scores.layers.indexOf(layer)] ?? Number.POSITIVE_INFINITY;
}

/** Faster first, then nearer to the original, then fewer and earlier layers. */
function byMerit(a: State, b: State): number {
  const speed = (b.point?.predictedSpeedup ?? 1) - (a.point?.predictedSpeedup ?? 1);
  if (Math.abs(speed) > 1e-9) return speed;
  const kl = (a.point?.quality.kl ?? 0) - (b.point?.quality.kl ?? 0);
  return kl !== 0 ? kl : a.gone.length - b.gone.length || (a.gone.join() < b.gone.join() ? -1 : 1);
}

function sorted(layers: readonly number[]): number[] {
  return [...layers].sort((a, b) => a - b);
}

/** The plans that no other beats in speed without being worse: slowest and best first. */
export function paretoFront(points: readonly PlanPoint[]): PlanPoint[] {
  const order = [...points].sort((a, b) => b.predictedSpeedup - a.predictedSpeedup || a.quality.kl - b.quality.kl);
  const front: PlanPoint[] = [];
  for (const point of order) {
    const last = front.at(-1);
    if (!last || point.quality.kl < last.quality.kl) front.push(point);
  }
  return front.reverse();
}
