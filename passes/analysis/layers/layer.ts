/** What a layer of a decoder is: its branches on the residual stream. */

import type { Node, Value } from '../../../ir/core.js';
import type { Attention } from './attention.js';
import type { Ffn } from './ffn.js';
import type { ResidualStream, Stage } from './residual-stream.js';

export interface BranchBase {
  readonly stage: Stage;
  /** The term of the sum that this branch computes, [batch, tokens, hidden]. */
  readonly output: Value;
  readonly nodes: ReadonlySet<Node>;
}

export interface AttentionBranch extends BranchBase {
  readonly role: 'attention';
  readonly attention: Attention;
}

export interface FfnBranch extends BranchBase {
  readonly role: 'ffn';
  readonly ffn: Ffn;
}

/** Neither a removable attention nor a plain FFN: experts, state space, quantised linears... */
export interface OtherBranch extends BranchBase {
  readonly role: 'other';
  readonly reason: string;
  /** True when it certainly mixes tokens (a convolution, a recurrence). */
  readonly mixesTokens: boolean;
}

export type Branch = AttentionBranch | FfnBranch | OtherBranch;

export interface Layer {
  /** Number in the original model. */
  readonly index: number;
  /** Numbers of all original layers merged into this one, e.g. "4-9"; usually just the index. */
  readonly label: string;
  readonly name: string;
  readonly attention: AttentionBranch | null;
  readonly ffn: FfnBranch | null;
  readonly others: readonly OtherBranch[];
  /** Why nothing can be done about this layer as a whole; null when something can. */
  readonly fixed: string | null;
}

export interface Blocks {
  readonly stream: ResidualStream;
  readonly layers: readonly Layer[];
  /** Why no layers were found; null when there are some. */
  readonly reason: string | null;
}

/** Which original layer a node belongs to, kept by the manager from before the first pass. */
export type LayerOrigin = ReadonlyMap<Node, number>;
