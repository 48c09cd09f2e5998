/** A plan.json as `onnx-fuse plan` writes it, of a model of any depth, without running anything. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { LayerChoice, PlanFile, Quality } from '../../api/plan/plan-file.js';
import { NO_CHANGE } from '../../runtime/index.js';

function quality(kl: number): Quality {
  return {
    kl,
    maxKl: 10 * kl,
    perplexity: 2 * (1 + kl),
    perplexityIncrease: kl,
    top1: 1 - kl,
    top5: 1,
    overlap: 0.9,
    positions: 600,
    klByPosition: Array.from({ length: 48 }, (_, i) => kl * (1 + Math.sin(i) / 2)),
  } as Quality;
}

/** Attentions of layers 3 to 5 go, that of layer 4 with a map in its place; FFNs of 3 and 4 become one. */
export function planExample(depth = 12): PlanFile {
  const numbers = Array.from({ length: depth }, (_, i) => i);
  const score = (i: number): number => 0.001 * (1 + ((i * 7) % 11));
  const point = (removeAttention: number[], mapped: number[], runs: number[][], speedup: number, kl: number) => ({
    ...{ removeAttention, removeFfn: [], linearizeAttention: mapped, linearizeFfn: [], runs, windows: [] },
    ...{ quality: quality(kl), maps: mapped.length > 0 ? 'together' : 'none' },
    ...{ predictedSpeedup: speedup, predictedSeconds: 0.002 / speedup },
  });
  const front = [point([], [], [], 1, 0), point([4], [], [], 1.05, 0.007), point([3, 5], [4], [[3, 4]], 1.2, 0.033)];
  return {
    kind: 'onnx-fuse plan',
    version: 2,
    model: { file: 'example.onnx', bytes: 6_000_000, sha256: 'ab'.repeat(32) },
    layers: numbers.map((layer) => ({ layer, attention: true, ffn: true, ffnWidth: 352 })),
    data: {
      ...{ source: 'calib.txt', heldOut: null, sequences: 8, fitted: 900, searched: 600, checked: 300 },
      originalPerplexity: 2,
    },
    budget: { maxKl: 0.05, maxPerplexityIncrease: null, minTop1: null },
    objective: { kind: 'fastest' },
    options: {
      recover: true,
      quantizeMaps: null,
      mapRank: null,
      optimizeFor: 'both',
      fuse: 'auto',
      keepLast: 1,
      lead: false,
    },
    cost: {
      ...{ name: 'h100x8', source: 'given', ranks: 8, bytesPerSecond: 3.35e12, disturbed: null },
      ...{
        secondsPerAttention: 33e-6,
        secondsPerFfn: 33e-6,
        secondsPerLinear: 33e-6,
        secondsPerToken: 0,
        fusion: null,
      },
      originalSeconds: 0.002,
    },
    scores: {
      layers: numbers,
      withoutAttention: numbers.map(score),
      mappedAttention: numbers.map((i) => score(i) / 3),
      mappedFfn: numbers.map((i) => 4 * score(i)),
      mappedBlock: numbers.map((i) => 5 * score(i)),
      more: {
        layers: numbers,
        attentionSimilarity: numbers.map(score),
        blockInfluence: numbers.map(score),
        withoutAttention: numbers.map(score),
        withoutFfn: numbers.map(score),
        withoutBlock: numbers.map(score),
        dependency: numbers.map((i) => numbers.map((j) => (j > i ? 2 ** -((i + j) % 12) : 0))),
      },
    },
    fit: { file: 'plan.onnx-fuse-fit', sha256: 'cd'.repeat(32), maps: [] },
    chosen: { ...(front[2] as (typeof front)[0]), check: quality(0.04), removed: quality(0.08) },
    passedOver: [],
    front,
    evaluated: front,
    random: { count: 3, kl: [0.05, 0.4, 0.9] },
    measured: null,
    ablations: [{ name: 'attentions removed, FFNs in order', quality: quality(0.032) }],
  } as unknown as PlanFile;
}

/** A plan that can be applied to the model at `path`. */
export function planFor(path: string, choice: Partial<LayerChoice>): PlanFile {
  const plan = planExample();
  const sha256 = createHash('sha256').update(readFileSync(path)).digest('hex');
  return { ...plan, model: { ...plan.model, sha256 }, fit: null, chosen: { ...plan.chosen, ...NO_CHANGE, ...choice } };
}
