/**
 * How a branch is cut over ranks (Megatron-LM, arXiv 1909.08053, section 3): its first projections by columns, the last by
 * rows, and one sum over the ranks after it. Heads and FFN channels are dealt out alike: every rank gets an equal share of
 * each part of a packed projection, so that gate and up, queries and their keys stay together. Ranks that are more than
 * the key-value heads hold some of these together. Nothing is changed here (shard-tensor-parallel does that).
 */

import type { Value } from '../../../../ir/core.js';
import { counted } from '../../../../ir/visible.js';
import type { Branch, FfnBranch, OtherBranch } from '../../layers/layer.js';
import type { ResidualStream } from '../../layers/residual-stream.js';
import { type Linear, matchLinear } from '../../matrices/linear.js';
import { Refusal } from '../../refusal.js';
import { lastProjection } from '../cut-extent.js';
import { checkReaders } from '../merge/match.js';
import { type Cutter, HeadRegion } from '../region.js';
import { type Cut, indivisible, type Portions, type Spread } from '../spread.js';

/** What kind of branch is cut: an attention by its heads, an FFN by its channels. */
export type CutRole = 'attention' | 'ffn';

/** A branch that can be cut, with everything that has to change. */
export interface CutBranch {
  readonly label: string;
  readonly role: CutRole;
  readonly region: HeadRegion;
  /** The last projection, whose results the ranks sum. */
  readonly last: Linear;
  /** How its input is cut. */
  readonly input: Portions;
  /** Of an attention: its heads, as far as the graph tells. */
  readonly heads: number | null;
  readonly kvHeads: number | null;
  /** Cache inputs and outputs. */
  readonly caches: readonly { readonly value: Value; readonly spread: Spread }[];
  /** Channels that each rank has beyond its share, zeros. */
  readonly padding: number;
}

/** How a branch is cut. */
export interface CutOptions {
  readonly ranks: number;
  /** Fill up with zeros what does not divide; else it is not cut. */
  readonly pads: boolean;
}

/** Reads how a branch can be cut. Throws Refusal with the reason where it cannot. */
export function cutBranch(
  branch: Branch,
  label: string,
  { types }: ResidualStream,
  opset: number,
  options: CutOptions,
): CutBranch {
  if (branch.role === 'linear') throw new Refusal('it is one matrix, without heads or channels in between');
  const node = lastProjection(branch, types);
  const last = matchLinear(node.output(0) as Value);
  if (!last) throw new Refusal(`${node.op} '${node.name}' does more than multiply`);
  const presents = branch.role === 'attention' ? branch.attention.kvOutputs : [];
  const roots = [last.input, ...presents];
  const read = (cutter: Cutter): { region: HeadRegion; input: Spread } => {
    const region = new HeadRegion([{ label, branch }], types, opset, cutter, roots);
    const state = region.match([last.input]);
    const input = state.kind === 'spread' ? state.spread : null;
    const isLast = input && input.from === input.axis && input.axis === input.dims.length - 1;
    if (!isLast) throw new Refusal('its last projection does not read heads or channels one after another');
    for (const value of presents) {
      if (region.match([value]).kind !== 'spread') throw new Refusal(`the cache '${value.name}' holds no heads`);
    }
    return { region, input };
  };
  const isAttention = branch.role === 'attention';
  const cutter = isAttention
    ? attentionCutter(read(WHOLE).region, options.ranks)
    : channelCutter(branch, last, options);
  const { region, input } = read(cutter);
  if (isAttention && branch.attention.kvInputs.length !== region.caches.size) {
    throw new Refusal('it reads caches in another way than heads');
  }
  // Ranks that hold the same channels would add them up several times.
  if (input.cuts?.some(({ pieces }) => pieces !== options.ranks)) {
    throw new Refusal(`what its last projection reads does not divide among ${options.ranks} ranks`);
  }
  checkReaders(region, 0, { label, kvOutputs: presents }, last);
  checkRows(last, input);
  const spreadOf = (value: Value) => ({ value, spread: region.spreads.get(value) as Spread });
  return {
    label,
    role: isAttention ? 'attention' : 'ffn',
    region,
    last,
    input,
    heads: region.heads[0] ?? null,
    kvHeads: isAttention ? kvCountOf(region) : null,
    caches: [...region.caches.keys(), ...presents].map(spreadOf),
    padding: isAttention ? 0 : paddingOf(input, options.ranks),
  };
}

/** Cuts nothing: for finding out what heads there are. */
const WHOLE: Cutter = {
  ranks: 1,
  channels: (count) => ({ size: count, pieces: 1 }),
  heads: (count) => ({ size: count, pieces: 1 }),
};

function kvCountOf(region: HeadRegion): number | null {
  const [cache] = region.caches.keys();
  return region.kvHeads[0] ?? (cache ? (region.spreads.get(cache)?.parts[0]?.[0] ?? null) : null);
}

/** Deals heads to ranks: an equal number each, or, of fewer key-value heads than ranks, one to several ranks. */
function attentionCutter(region: HeadRegion, ranks: number): Cutter {
  const [heads] = region.heads;
  if (heads === undefined) throw new Refusal('how many heads it has is not known');
  if (heads % ranks !== 0) throw indivisible(heads, 'head', ranks);
  const pieces = (count: number): number => {
    if (count % ranks === 0) return ranks;
    if (ranks % count === 0) return count;
    throw indivisible(count, 'key-value head', ranks);
  };
  const widths = region.linears.flatMap(({ parts }) => parts.map(([size = 0]) => size));
  const size = Math.max(...widths) / heads;
  const kvHeads = kvCountOf(region);
  return {
    ranks,
    channels: (count) => {
      // Values may have heads of another size than queries and keys.
      const own = Number.isInteger(count / size) ? count / size : (kvHeads ?? heads);
      const number = pieces(own);
      return { size: count / number, pieces: number };
    },
    heads: (count) => ({ size: count / pieces(count), pieces: pieces(count) }),
  };
}

/** Deals channels to ranks, in whole blocks where the last projection stores its rows in blocks. */
function channelCutter(branch: FfnBranch | OtherBranch, last: Linear, { ranks, pads }: CutOptions): Cutter {
  const block = last.matrix.rowAlignment;
  return {
    ranks,
    channels: (count): Cut => {
      const size = Math.ceil(count / (ranks * block)) * block;
      if (size * ranks === count) return { size, pieces: ranks };
      const blocks = block === 1 ? '' : `, in blocks of ${block},`;
      if (!pads) throw indivisible(count, 'channel', ranks, blocks);
      if (size * (ranks - 1) >= count) {
        const few = count === 1 ? 'is' : 'are';
        throw new Refusal(`${counted(count, 'channel')}${blocks} ${few} too few for ${ranks} ranks`);
      }
      if (branch.role !== 'ffn' || !branch.ffn.keepsZero) {
        const { message } = indivisible(count, 'channel', ranks, blocks);
        throw new Refusal(`${message}, and channels of zeros would not stay zero`);
      }
      return { size, pieces: ranks };
    },
    heads: () => {
      throw new Refusal('it has a cache');
    },
  };
}

function paddingOf({ parts, cuts = [] }: Portions, ranks: number): number {
  return parts.reduce((sum, [size = 0], i) => sum + (cuts[i]?.size ?? 0) * ranks - size, 0);
}

/** Every share of the last projection's rows must be one that its format can cut out, and each row belong to one rank. */
function checkRows({ matrix, inWidth }: Linear, { parts, cuts = [] }: Portions): void {
  let start = 0;
  for (const [i, [size = 0]] of parts.entries()) {
    const cut = cuts[i] as Cut;
    const unit = matrix.rowAlignment;
    if (cut.size % unit !== 0 || start % unit !== 0) {
      throw new Refusal(`shares of ${counted(cut.size, 'row')} cut blocks of ${unit} in two`);
    }
    start += size;
  }
  if (start !== inWidth) throw new Refusal(`its last projection takes ${inWidth} channels, not ${start}`);
}
