/**
 * A pass is a record first: what it is called, what it promises, what it can be told; then `run`.
 *
 * Passes are synchronous and never touch tensor bytes: weights are expressions (ir/weight.ts).
 */
import type { Graph, Model } from '../ir/core.js';
import type { Blocks } from './analysis/blocks.js';
import type { Collective } from './collectives.js';
import type { Rewriter } from './rewriter.js';

/**
 * `exact`: the same results bit for bit. `reassociates`: equal up to rounding, checked at a tight tolerance.
 * `changes-function`: the model computes something else, reported as drift.
 */
export type Effect = 'exact' | 'reassociates' | 'changes-function';

/** How one option is written in a pipeline, `name=value`. */
export type OptionSpec<T> = {
  readonly help: string;
  readonly fallback: T;
  /** Throws an Error with one line on bad text. */
  parse(text: string): T;
  print(value: T): string;
};

export type OptionSpecs = Readonly<Record<string, OptionSpec<never>>>;
export type OptionValues<S> = { readonly [K in keyof S]: S[K] extends OptionSpec<infer T> ? T : never };

/** What a pass did, did not do, or found; `layer` is the original label. */
export interface Remark {
  readonly kind: 'passed' | 'missed' | 'analysis';
  readonly pass: string;
  readonly layer: string | null;
  readonly message: string;
}

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

export interface PassContext<S> {
  readonly model: Model;
  readonly graph: Graph;
  readonly options: OptionValues<S>;
  readonly rewriter: Rewriter;
  readonly outcome: Outcome;
  /** The layers of the graph as it is now, with their original numbers; computed anew only after a change. */
  blocks(): Blocks;
  passed(message: string, layer?: string | number): void;
  missed(message: string, layer?: string | number): void;
  count(statistic: string, by?: number): void;
}

export interface Pass<S = OptionSpecs> {
  readonly id: string;
  readonly summary: string;
  readonly effect: Effect;
  /**
   * `decoder`: run once on every graph that holds a decoder (both branches of a merged one), which is then the context's
   * `graph`. Otherwise once, on the main graph.
   */
  readonly scope?: 'decoder';
  /** Exact, and needed for other passes to see what they work on: the reference of the algebra check runs it too. */
  readonly isPreparation?: boolean;
  readonly options: S;
  /** Statistic name -> what it counts. */
  readonly statistics: Readonly<Record<string, string>>;
  run(context: PassContext<S>): void;
}

/** Declares a pass; only a typed identity. */
export function definePass<const S>(pass: Pass<S>): Pass<S> {
  return pass;
}
