/**
 * Whether one wide FFN is faster here than the FFNs that it is made of: a few layers in the middle without their attentions, their
 * FFNs one after another against fused, for one token and for a prompt. What fusion saves of kernels and reads it may lose again
 * where the wide matrices leave a cache, and on prompts there is nothing to save: so it is measured and not computed.
 */
import { type Model, openModel, referenceOf } from '../../ir/index.js';
import { type FuseOptions, fuseSteps, type Layer, runPipeline } from '../../passes/index.js';
import { type FusionGain, PROMPT_TOKENS, workOf } from '../choose/cost.js';
import { computedWeightBytes } from '../session/memory.js';
import type { StepTimer } from './step-times.js';
import { quartiles } from './turns.js';

/** FFNs that are fused, where there are so many; fewer than LEAST tell nothing. */
const MEMBERS = 4;
const LEAST = 2;

/** How the two forms are timed. */
export interface FusionTiming {
  readonly batch: number;
  readonly rounds: number;
  readonly onTurn?: (done: number, total: number) => void;
}

/** Layers next to each other, in the middle of the model, of which `isFree` says that their attentions can go. */
export function middleOf(layers: readonly Layer[], isFree: (layer: Layer) => boolean): number[] {
  const centre = layers.length / 2;
  let best: { readonly at: number; readonly stretch: readonly Layer[] } | null = null;
  for (let start = 0; start < layers.length; start++) {
    let end = start;
    while (end < layers.length && end - start < MEMBERS && isFree(layers[end] as Layer)) end++;
    const stretch = layers.slice(start, end);
    const isBetter =
      stretch.length > (best?.stretch.length ?? 0) ||
      (best &&
        stretch.length === best.stretch.length &&
        Math.abs(start + stretch.length / 2 - centre) < Math.abs(best.at - centre));
    if (isBetter) best = { at: start + stretch.length / 2, stretch };
  }
  return best && best.stretch.length >= LEAST ? best.stretch.map(({ index }) => index) : [];
}

/** Most bytes of weights that are computed for it, which are in memory. */
const COMPUTED_BYTES = 256 * 2 ** 20;

/** What an FFN that becomes part of another one saves; null where these layers' FFNs do not become one, or are very large. */
export async function measureFusion(
  path: string,
  removeAttention: readonly number[],
  timer: StepTimer,
  { batch, rounds, onTurn }: FusionTiming,
): Promise<FusionGain | null> {
  if (removeAttention.length < LEAST) return null;
  const make = (options: FuseOptions): Model => {
    const made = openModel(path);
    runPipeline(made, fuseSteps({ removeAttention, keepGoing: true, ...options }));
    return made;
  };
  const [apart, fused] = [make({ fuse: false }), make({ keepLast: 0 })];
  const count = workOf(apart).ffns - workOf(fused).ffns;
  if (count <= 0 || computedWeightBytes(fused) > COMPUTED_BYTES) return null;
  const pair = [apart, fused].map((model) => ({ location: referenceOf(model), model }));
  const request = { context: PROMPT_TOKENS, batch, rounds, prompt: true, ...(onTurn ? { onTurn } : {}) };
  const [before, after] = await timer.time(pair, request);
  const gain = (kind: 'token' | 'prompt'): number => {
    const [own = [], other = []] = [before?.[kind], after?.[kind]];
    return clearGain(own.map((seconds, i) => (seconds - (other[i] as number)) / count));
  };
  return { token: gain('token'), prompt: gain('prompt') };
}

/**
 * What was saved in the turns of a comparison, in seconds, as far as it is more than the noise: a gain where nearly every turn has one, a
 * loss where three of four have. The two are not alike, because no plan is to make anything slower.
 */
export function clearGain(saved: readonly number[]): number {
  if (saved.length === 0) return 0;
  const { median, p75 } = quartiles(saved);
  const without = saved.filter((seconds) => seconds <= 0).length;
  return p75 < 0 || without <= saved.length / 8 ? median : 0;
}
