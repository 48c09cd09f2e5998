/** What a layer of a decoder is: its branches on the residual stream. */

import type { Node, Use, Value } from '../../../ir/core.js';
import { passErrors } from '../errors.js';
import type { Recognised } from '../refusal.js';
import type { Attention } from './attention.js';
import type { Ffn } from './ffn.js';
import { isSame, type Point, type ResidualStream, type Stage } from './residual-stream.js';

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
  /** What it is known to be, although it is not read further. */
  readonly recognised: Recognised | null;
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

/** The branches of a layer, attention first. */
export function branchesOf(layer: Layer): Branch[] {
  return [layer.attention, layer.ffn, ...layer.others].filter((branch) => branch !== null);
}

/** The layer of a number. Throws OF_NO_SUCH_LAYER, which says which there are. */
export function requireLayer(layers: readonly Layer[], index: number): Layer {
  const layer = layers.find((candidate) => candidate.index === index);
  if (layer) return layer;
  const [first, last] = [layers[0], layers.at(-1)];
  throw passErrors.noSuchLayer(index, first && last ? `${first.index} to ${last.index}` : 'none that was recognised');
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
