/**
 * plan.json: which layers to change, chosen on data within a budget, with the evidence. Written by `onnx-fuse plan`, read
 * by `onnx-fuse --plan`; everything in it was measured, except what is called predicted.
 */

import type { Quality } from '../runtime/index.js';

export type { Quality } from '../runtime/index.js';

/** What a plan does, in original layer numbers. */
export interface LayerChoice {
  readonly removeAttention: readonly number[];
  readonly removeFfn: readonly number[];
  /** FFN runs that read one input and become one FFN. */
  readonly runs: readonly (readonly number[])[];
  /** Windows of whole blocks in parallel. */
  readonly windows: readonly (readonly number[])[];
}

export interface PlanPoint extends LayerChoice {
  readonly quality: Quality;
  /** Predicted by the cost model, and the original's over it (1.2 is 1.2 times as fast). */
  readonly predictedSecondsPerToken: number;
  readonly predictedSpeedup: number;
}

/** Scores per layer, in the order of `layers`; null where the layer has no such branch. */
export interface PlanScores {
  readonly layers: readonly number[];
  /** `dependency[i][j]`: cosine distance of what block j adds, with block i dropped (FFN Fusion, section 5); 0 for j <= i. */
  readonly dependency: readonly (readonly number[])[];
  /** 1 - cos(X, X + Attn(norm(X))), LLM-Drop. */
  readonly attentionSimilarity: readonly (number | null)[];
  /** 1 - E[cos(block input, block output)], ShortGPT. */
  readonly blockInfluence: readonly number[];
  /** KL(original || without it), Puzzle's replace-one score. */
  readonly withoutAttention: readonly (number | null)[];
  readonly withoutFfn: readonly (number | null)[];
  readonly withoutBlock: readonly (number | null)[];
}

export interface PlanFile {
  readonly kind: 'onnx-fuse plan';
  readonly version: 1;
  readonly model: { readonly file: string; readonly bytes: number; readonly sha256: string };
  /** The layers of the model: their numbers, and what each has. */
  readonly layers: readonly {
    readonly layer: number;
    readonly attention: boolean;
    readonly ffn: boolean;
    readonly ffnWidth: number | null;
    readonly attentionBytes: number;
    readonly ffnBytes: number;
  }[];
  readonly data: { readonly source: string; readonly sequences: number; readonly positions: number };
  readonly budget: {
    readonly maxKl: number | null;
    readonly maxPerplexityIncrease: number | null;
    readonly minTop1: number | null;
  };
  readonly options: {
    readonly norm: 'fold' | 'last';
    readonly keepLast: number;
    readonly lead: boolean;
    readonly order: 'forward' | 'reverse';
    /** Fuse the FFNs that lie between removed attentions, or remove them. */
    readonly action: 'fuse' | 'remove';
  };
  /** The cost model that ranked the plans: its constants, and where they come from. */
  readonly cost: {
    readonly device: string;
    readonly source: string;
    readonly bytesPerSecond: number;
    readonly secondsPerSubBlock: number;
    readonly secondsPerAllReduce: number;
    readonly originalSecondsPerToken: number;
  };
  readonly scores: PlanScores;
  readonly chosen: PlanPoint;
  /** The plans that nothing beats in both speed and quality, slowest and best first; the original is the first. */
  readonly front: readonly PlanPoint[];
  /** All that were measured, in order. */
  readonly evaluated: readonly PlanPoint[];
  /** Random plans of the chosen one's size, for comparison: how many, and their KL. */
  readonly random: { readonly count: number; readonly kl: readonly number[] } | null;
}
