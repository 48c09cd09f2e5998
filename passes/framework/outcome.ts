/** The facts that passes leave for reports. */

import type { DataType } from '../../ir/type.js';

/** FFNs that became one, in original layer numbers. */
export interface FusedRun {
  readonly layers: readonly string[];
  readonly widths: readonly number[];
  readonly fusedWidth: number;
}

/** Facts the passes leave for reports. */
export interface Outcome {
  readonly removedAttention: { layer: number; kvInputs: string[]; kvOutputs: string[] }[];
  /** Layers whose FFN was removed, original numbers. */
  readonly removedFfn: number[];
  /** Graph inputs and outputs that have another name now. */
  readonly renamedCaches: { from: string; to: string }[];
  /** FFNs that were made to read one input, whether or not they became one. */
  readonly parallelRuns: FusedRun[];
  readonly fusedRuns: FusedRun[];
  /** Layers whose FFN took up its norm and was quantised again. */
  readonly requantized: string[];
  /** Whole blocks that read one input, original layer numbers. */
  readonly parallelBlocks: { layers: string[]; form: 'two-stage' | 'literal' }[];
  /** Attentions that became one. */
  readonly mergedAttention: MergedAttention[];
  /** What a rank's model holds of the whole; null where the model was not cut. */
  shards: ShardFacts | null;
}

/** A rank's model of a tensor-parallel group. */
export interface ShardFacts {
  readonly ranks: number;
  readonly rank: number;
  /** What was done with each branch, in the order of layers. */
  readonly branches: CutFact[];
  /** KV caches that are cut: graph inputs and outputs, with all heads, a rank's heads and how many different pieces. */
  readonly caches: {
    readonly name: string;
    readonly axis: number;
    readonly heads: number;
    readonly size: number;
    readonly pieces: number;
  }[];
  /** In the order in which they run. */
  readonly collectives: readonly Collective[];
  /** Why the projection to the vocabulary is replicated; null where it is cut. */
  readonly vocabularyReason: string | null;
}

/** What became of one attention or FFN. */
export interface CutFact {
  readonly layer: string;
  readonly role: 'attention' | 'ffn';
  /** Why it is replicated; null where it is cut. */
  readonly reason: string | null;
  /** Channels of zeros that all ranks together have beyond the original's. */
  readonly padding: number;
  readonly heads: number | null;
  readonly kvHeads: number | null;
}

/** Attentions that became one, with what became of their caches. */
export interface MergedAttention {
  readonly layers: readonly string[];
  /** Query heads and key-value heads of each member; empty where the graph does not say. */
  readonly heads: readonly number[];
  readonly kvHeads: readonly number[];
  /** Graph inputs and outputs that hold the members' caches one after another along `axis`, the first of them by name. */
  readonly caches: readonly { readonly members: readonly string[]; readonly axis: number }[];
}

/** A collective of a rank's graph, in the order in which they run. */
export interface Collective {
  readonly kind: 'all-reduce' | 'all-gather';
  /** What a rank gives, and what it gets: names of values, of `none` graph outputs and inputs. */
  readonly gives: string;
  /** Null where what the ranks have together is the graph output itself. */
  readonly gets: string | null;
  /** Of a gather: the dimension along which the ranks' shares follow one another. */
  readonly axis: number | null;
  /** Element type of what is sent. */
  readonly dtype: DataType;
  /** Elements of the last dimension that a rank gives for each token. */
  readonly width: number;
  /** Where it stands: `layer 3 attention`, `lm_head`. */
  readonly place: string;
}

export type CollectiveStyle = (typeof COLLECTIVES)[number];

export const COLLECTIVES = ['ort', 'trt', 'none'] as const;
