/** What the reading of heads (head-region.ts) is told and finds out. */

import type { Weight } from '../../../ir/weight.js';
import type { AttentionBranch, FfnBranch, OtherBranch } from '../layers/layer.js';
import type { NormReading } from '../layers/norm.js';
import type { Linear } from '../matrices/linear.js';
import type { Cut, Parts, Spread } from './spread.js';

export interface AttentionMember {
  readonly label: string;
  readonly branch: AttentionBranch;
}

/** A branch to read: attentions to be made one, or any branch to be cut. */
export interface RegionMember {
  readonly label: string;
  readonly branch: AttentionBranch | FfnBranch | OtherBranch;
}

/** How one branch is cut over ranks. The counts throw Refusal where they do not divide. */
export interface Cutter {
  readonly ranks: number;
  /** Of a projection's channels, or of a packed one's part. */
  channels(count: number): Cut;
  /** Of the heads of a cache. */
  heads(count: number): Cut;
}

/** What is known of one value in all members. */
export type State =
  /** One value serves all. */
  | { readonly kind: 'shared' }
  /** The heads of all follow one another. */
  | { readonly kind: 'spread'; readonly spread: Spread }
  /** A constant for each member. */
  | { readonly kind: 'constants'; readonly weights: readonly Weight[] }
  /** Integers that are computed from sizes that change: right again when they are computed anew. */
  | { readonly kind: 'sizes' };

export const SHARED: State = { kind: 'shared' };

/** A projection into heads, of all members. */
export interface HeadLinear {
  readonly linears: readonly Linear[];
  /** What they read; none where one branch is read to be cut. */
  readonly readings: readonly NormReading[];
  readonly parts: Parts;
  readonly cuts?: readonly Cut[] | undefined;
  /** The operator that attends multiplies by the weights itself. */
  readonly isInner: boolean;
}
