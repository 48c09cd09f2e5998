/**
 * A pass is a record first: what it is called, what it promises, what it can be told; then `run`.
 *
 * Passes are synchronous and never touch tensor bytes: weights are expressions (ir/weight.ts).
 */
import type { Graph, Model, Node } from '../../ir/core.js';
import type { Blocks } from '../analysis/layers/layer.js';
import type { Rewriter } from '../rewrite/rewriter.js';
import type { FactSpec } from './facts.js';

/**
 * `exact`: the same results bit for bit. `reassociates`: equal up to rounding, checked at a tight tolerance.
 * `changes-function`: the model computes something else, reported as drift.
 */
export type Effect = 'exact' | 'reassociates' | 'changes-function';

/** One option of a pass: what values it takes, and how they are written in a pipeline, `name=value`. */
export type OptionSpec<T> = {
  readonly help: string;
  readonly fallback: T;
  /** What the pass does where this option is not its fallback, if that is less than the pass promises otherwise. */
  readonly effect?: Effect;
  /** The value is the path of a file that the pass reads. */
  readonly isFile?: boolean;
  /** The value of a text. Throws an Error with one line on bad text. */
  parse(text: string): T;
  /** The text of a value, without spaces: `parse` of it is the value again. */
  print(value: T): string;
  /** The one form of a value that a program gave. Throws an Error with one line on what is none. Without it, all are taken. */
  check?(value: unknown): T;
};

/** The options of a pass, by name. */
export type OptionSpecs = Readonly<Record<string, OptionSpec<never>>>;
/** The values of these options. */
export type OptionValues<S> = { readonly [K in keyof S]: S[K] extends OptionSpec<infer T> ? T : never };

/**
 * What a pass did, did not do, found, or refused although it was asked for this very layer; `layer` is the original label.
 */
export interface Remark {
  readonly kind: 'passed' | 'missed' | 'analysis' | 'refused';
  readonly pass: string;
  readonly layer: string | null;
  readonly message: string;
}

/** What a pass works with. */
export interface PassContext<S, F = never> {
  readonly model: Model;
  readonly graph: Graph;
  readonly options: OptionValues<S>;
  readonly rewriter: Rewriter;
  /** The layers before the first pass that changed more than the form of the graph: which there were, not their nodes. */
  readonly original: Blocks;
  /** The layers of the graph as it is now, with their original numbers; computed anew only after a change. */
  blocks(): Blocks;
  /** Says which layer a new node is of: in the place of a whole branch no old node tells. */
  belongs(node: Node, layer: number): void;
  /** Something was done, in words. */
  passed(message: string, layer?: string | number): void;
  /** Something was not done, and why. */
  missed(message: string, layer?: string | number): void;
  /** Says that what was asked for a layer is left undone, where going on was asked for, too; else it is an error. */
  refused(message: string, layer: string | number): void;
  count(statistic: string, by?: number): void;
  /** Something was done, as data of the kind that the pass declares. Throws a RangeError for what JSON cannot hold. */
  fact(fact: F): void;
}

/** A pass: what it is, what it can be told, and how it runs. */
export interface Pass<S = OptionSpecs, F = unknown> {
  readonly id: string;
  readonly summary: string;
  /** The strongest promise that holds for all options but those that have an effect of their own. */
  readonly effect: Effect;
  /**
   * `decoder`: run once on every graph that holds a decoder (both branches of a merged one), which is then the context's
   * `graph`. Otherwise once, on the main graph.
   */
  readonly scope?: 'decoder';
  /** Exact, and needed for other passes to see what they work on: the reference of the algebra check runs it too. */
  readonly isPreparation?: boolean;
  /**
   * What it does is of use to other passes only. When no pass but such ones did anything, the default pipeline was in vain
   * and the model is written as it came.
   */
  readonly isAuxiliary?: boolean;
  readonly options: S;
  /** Statistic name -> what it counts, as it is read after a number: `pairs replaced`. */
  readonly statistics: Readonly<Record<string, string>>;
  /** What it did, as data and in words. Without it, remarks and statistics are shown instead. */
  readonly facts?: FactSpec<F>;
  run(context: PassContext<S, F>): void;
}

/** Declares a pass; only a typed identity. */
export function definePass<const S, F = never>(pass: Pass<S, F>): Pass<S, F> {
  return pass;
}
