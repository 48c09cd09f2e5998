/** What a layer of a decoder is: its branches on the residual stream. */

import type { Node, Use, Value } from '../../../ir/core.js';
import { passErrors } from '../errors.js';
import type { Linear } from '../matrices/linear.js';
import type { Recognised } from '../refusal.js';
import type { Slot } from '../values/constants.js';
import type { Attention } from './attention.js';
import type { Ffn } from './ffn.js';
import type { Norm, NormReading } from './norm.js';
import { isSame, type Point, type ResidualStream, type Stage } from './residual-stream.js';

/** What every branch has. */
export interface BranchBase {
  readonly stage: Stage;
  /** The term of the sum that this branch computes, [batch, tokens, hidden]. */
  readonly output: Value;
  readonly nodes: ReadonlySet<Node>;
}

/** An attention that can be read. */
export interface AttentionBranch extends BranchBase {
  readonly role: 'attention';
  readonly attention: Attention;
}

/** An FFN that can be read. */
export interface FfnBranch extends BranchBase {
  readonly role: 'ffn';
  readonly ffn: Ffn;
}

/** The two slots of a layer. `unknown` where neither order nor names tell. */
export type LayerSlot = 'attention' | 'ffn' | 'unknown';

/**
 * One matrix, or two whose product is of low rank, in the place of an attention or an FFN, `n(r) W + b` (`replace_with_linear` of
 * Puzzle).
 */
export interface LinearBranch extends BranchBase {
  readonly role: 'linear';
  /** Of kind `none` where the matrix reads the stream itself. */
  readonly norm: Norm;
  /** W, [hidden, hidden]; of low rank the first of two, [hidden, rank]. */
  readonly linear: Linear;
  /** The second one, [rank, hidden]; null where W is whole. */
  readonly right: Linear | null;
  /** What the matrix reads: the norm, or the norm times a factor. */
  readonly reading: NormReading;
  /** [hidden]: in the operator, in an Add behind it, or in the skip norm that takes the sum. */
  readonly bias: Slot | null;
  /** What follows the product: its bias, constant factors and casts; empty for nothing. */
  readonly tail: string;
  readonly slot: LayerSlot;
}

/** Neither a removable attention nor a plain FFN nor one matrix: experts, state space, quantised linears... */
export interface OtherBranch extends BranchBase {
  readonly role: 'other';
  readonly reason: string;
  /** What it is known to be, although it is not read further. */
  readonly recognised: Recognised | null;
  /** True when it certainly mixes tokens (a convolution, a recurrence), or reads those of another sequence. */
  readonly mixesTokens: boolean;
}

/** What adds to the residual stream. */
export type Branch = AttentionBranch | FfnBranch | LinearBranch | OtherBranch;

/** A transformer block, with the branches that belong to it. */
export interface Layer {
  /** Number in the original model. */
  readonly index: number;
  /** Numbers of all original layers merged into this one, e.g. "4-9"; usually just the index. */
  readonly label: string;
  readonly name: string;
  readonly attention: AttentionBranch | null;
  readonly ffn: FfnBranch | null;
  /** In the order of the stream. */
  readonly linears: readonly LinearBranch[];
  /** All other branches; also a second attention or FFN of one layer. */
  readonly others: readonly OtherBranch[];
  /** Why nothing can be done about this layer as a whole; null when something can. */
  readonly fixed: string | null;
  /** Why a part of the layer, or all of it, is not among its branches; null when nothing is missing. */
  readonly unread: string | null;
}

/** The layers of a graph, and the stream that they lie on. */
export interface Blocks {
  readonly stream: ResidualStream;
  readonly layers: readonly Layer[];
  /** Why no layers were found; null when there are some. */
  readonly reason: string | null;
  /** Where the numbers come from: from names (or from where the nodes were before), or from the order on the stream. */
  readonly numbering: 'names' | 'order';
  /** Why numbers that are in names are not those of the layers; null when they are, or when there are none. */
  readonly doubt: string | null;
}

/** The branches of a layer: attention, FFN, linears, others. */
export function branchesOf({ attention, ffn, linears, others }: Layer): Branch[] {
  return [attention, ffn, ...linears, ...others].filter((branch) => branch !== null);
}

/** The layer of a number. Throws OF_NO_SUCH_LAYER, which says which there are. */
export function requireLayer(layers: readonly Layer[], index: number): Layer {
  const layer = layers.find((candidate) => candidate.index === index);
  if (layer) return layer;
  throw passErrors.noSuchLayer(index, rangesOf(layers) || 'none that was recognised');
}

/** `0 to 1, 3 to 7` */
function rangesOf(layers: readonly Layer[]): string {
  const starts = layers.filter(({ index }, i) => index !== (layers[i - 1]?.index ?? Number.NaN) + 1);
  const ends = layers.filter(({ index }, i) => index !== (layers[i + 1]?.index ?? Number.NaN) - 1);
  return starts.map((first, i) => `${first.index} to ${ends[i]?.index}`).join(', ');
}

/** Where `nodes`, those of one or more branches, read the stream at `start`. */
export function streamReads(nodes: ReadonlySet<Node>, start: Point, { types }: ResidualStream): Use[] {
  const places: Use[] = [];
  for (const node of nodes) {
    for (const [index, value] of node.inputs.entries()) {
      // A copy made inside a branch is left alone: what it copies is an operand here too.
      const isInner = value?.producer && nodes.has(value.producer);
      if (value && !isInner && isSame(value, start, types)) places.push({ node, index });
    }
  }
  return places;
}

/** Which original layer a node belongs to, kept by the manager from before the first pass. */
export type LayerOrigin = ReadonlyMap<Node, number>;

/** True for a branch that mixes tokens: attention, or another mixer. */
export function mixesTokens(branch: Branch): boolean {
  return branch.role === 'attention' || (branch.role === 'other' && branch.mixesTokens);
}

/** The slot of a layer that a branch takes: what is no attention is spoken of as its FFN. */
export function slotOf(branch: Branch): 'attention' | 'ffn' {
  const isAttention = branch.role === 'attention' || (branch.role === 'linear' && branch.slot === 'attention');
  return isAttention ? 'attention' : 'ffn';
}

/** The linear in one of the places of a layer; null when there is none. */
export function linearIn(layer: Layer, slot: LayerSlot): LinearBranch | null {
  return layer.linears.find((branch) => branch.slot === slot) ?? null;
}
