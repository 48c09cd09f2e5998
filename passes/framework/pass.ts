/**
 * A pass is a record first: what it is called, what it promises, what it can be told; then `run`.
 *
 * Passes are synchronous and never touch tensor bytes: weights are expressions (ir/weight.ts).
 */
import type { Graph, Model } from '../../ir/core.js';
import type { Blocks } from '../analysis/layers/layer.js';
import type { Rewriter } from '../rewrite/rewriter.js';
import type { Outcome } from './outcome.js';

/**
 * `exact`: the same results bit for bit. `reassociates`: equal up to rounding, checked at a tight tolerance.
 * `changes-function`: the model computes something else, reported as drift.
 */
export type Effect = 'exact' | 'reassociates' | 'changes-function';

/** One option of a pass: what values it takes, and how they are written in a pipeline, `name=value`. */
export type OptionSpec<T> = {
  readonly help: string;
  readonly fallback: T;
  /** The value of a text. Throws an Error with one line on bad text. */
  parse(text: string): T;
  /** The text of a value, without spaces: `parse` of it is the value again. */
  print(value: T): string;
  /** The one form of a value that a program gave. Throws an Error with one line on what is none. Without it, all are taken. */
  check?(value: unknown): T;
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
