/** Where the operators that are attentions by themselves, and rotary embeddings, take and put their heads. */

import type { Node, Value } from '../../../ir/core.js';
import type { Weight } from '../../../ir/weight.js';
import type { Linear } from '../matrices/linear.js';
import { denseMatrix } from '../matrices/stored-matrices.js';
import { describe, operandOf, Refusal } from '../refusal.js';
import { constantOf } from '../values/constants.js';
import type { HeadRegion, State } from './region.js';
import { isOneAt, type Rule, spreadState, widthOf } from './rule.js';
import { inProportion, laterSizes, type Portions, rankOf, type Spread, sizesOf } from './spread.js';

/** Counts of heads that an attribute gives, one for each member; null where it is absent or 0. */
function counts(nodes: readonly Node[], name: string): number[] | null {
  const found = nodes.map((node) => node.intAttribute(name) ?? 0);
  return found.every((count) => count > 0) ? found : null;
}

function setCount(region: HeadRegion, node: Node, name: string, of: Portions): void {
  const value = BigInt(sizesOf(of).later);
  region.edit({ kind: 'attribute', node, name, attribute: { kind: 'int', value } });
}

/** The size of a head; throws where members differ. */
function headSize(nodes: readonly Node[], widths: readonly number[], heads: readonly number[]): number {
  const sizes = widths.map((width, m) => width / (heads[m] as number));
  if (!sizes.every((size) => size === sizes[0] && Number.isInteger(size))) {
    throw new Refusal(`the heads of ${describe(nodes[0])} are not of one size (${sizes.join(', ')})`);
  }
  return sizes[0] as number;
}

/** Query heads of a member read the key-value heads of the same member only where all groups are of one size. */
function checkGroups(nodes: readonly Node[], heads: readonly number[], kvHeads: readonly number[]): void {
  const groups = heads.map((count, m) => count / (kvHeads[m] as number));
  if (!groups.every((group) => group === groups[0] && Number.isInteger(group))) {
    throw new Refusal(`${describe(nodes[0])} shares key-value heads among ${groups.join(', ')} query heads`);
  }
}

/** Heads of an operand [batch, tokens, heads x size] or [batch, heads, tokens, size]. */
function operandHeads(region: HeadRegion, nodes: readonly Node[], index: number, heads: readonly number[]): Spread {
  const spread = region.headsOf(nodes, index) as Spread | null;
  if (!spread) throw new Refusal(`${describe(nodes[0])} has no operand ${index}`);
  const rank = rankOf(spread);
  const [own = []] = spread.parts;
  const isPlace = spread.from === spread.axis && spread.axis === (rank === 4 ? 1 : rank - 1);
  if (!isPlace) throw new Refusal(`${describe(nodes[0])} reads heads that lie along another axis`);
  if (rank === 4 && own.some((size, m) => size !== heads[m])) {
    throw new Refusal(`${describe(nodes[0])} says another number of heads than its operand has`);
  }
  return spread;
}

function sizeOfHead(nodes: readonly Node[], spread: Spread, heads: readonly number[]): number | null {
  return rankOf(spread) === 4 ? (spread.dims[3] ?? null) : headSize(nodes, spread.parts[0] ?? [], heads);
}

/** Operands that must be the same for all members and all heads. */
function shared(region: HeadRegion, nodes: readonly Node[], indices: readonly number[]): void {
  for (const index of indices) {
    const state = region.operand(nodes, index);
    if (state && state.kind !== 'shared') {
      throw new Refusal(
        `${describe(nodes[0])} reads '${nodes[0]?.input(index)?.name}', which differs from layer to layer`,
      );
    }
  }
}

/** A bias or mask for the scores, [.., heads, tokens, total], that must be one for all heads, or is cut like them. */
function sharedMask(region: HeadRegion, nodes: readonly Node[], index: number, heads: Portions): void {
  shared(region, nodes, [index]);
  const [node] = nodes as [Node];
  const value = node.input(index);
  const shape = value && region.dimensions.shape(value);
  const [cut] = heads.cuts ?? [];
  if (shape && cut && shape.length >= 3 && shape.at(-3)?.now === heads.parts[0]?.[0] && shape.at(-3)?.now !== 1) {
    region.edit({ kind: 'sliced', node, index, axis: shape.length - 3, cut });
    return;
  }
  if (value && !isOneAt(region.dimensions.shape(value), 3)) {
    throw new Refusal(`whether the mask '${value.name}' is the same for all heads is not known`);
  }
}

function caches(
  region: HeadRegion,
  nodes: readonly Node[],
  indices: readonly number[],
  kvHeads: readonly number[],
): void {
  for (const index of indices) {
    const spread = region.headsOf(nodes, index);
    const isPlain = !spread || (spread.axis === 1 && spread.from === 1 && rankOf(spread) === 4);
    if (!isPlain || spread?.parts[0]?.some((size, m) => size !== kvHeads[m])) {
      throw new Refusal(`the cache '${nodes[0]?.input(index)?.name}' does not hold the heads along its second axis`);
    }
  }
}

/** [batch, tokens, heads x size] with so many heads. */
function flat(heads: Portions, size: number | null): State {
  const [own = []] = heads.parts;
  const cuts = heads.cuts && { cuts: heads.cuts.map((cut) => ({ ...cut, size: cut.size * (size ?? 0) })) };
  const parts = [own.map((count) => count * (size ?? 0))];
  return spreadState({ dims: [null, null, size && size * (own[0] as number)], axis: 2, from: 2, parts, ...cuts });
}

/** [batch, heads, tokens, size]. */
function perHeadState(heads: Portions, size: number | null): State {
  return spreadState({ dims: [null, heads.parts[0]?.[0] ?? null, null, size], axis: 1, from: 1, ...heads });
}

function unknownResult(nodes: readonly Node[]): never {
  throw new Refusal(`something reads the scores of ${describe(nodes[0])}`);
}

/** A constant [heads], one part for each member. */
function perHead(region: HeadRegion, nodes: readonly Node[], index: number, { parts, cuts }: Portions): void {
  const [node] = nodes as [Node];
  if (!node.input(index)) return;
  const weights = nodes.map((each) => constantOf(each.input(index)));
  const sizes = nodes.map((_, m) => parts.reduce((sum, part) => sum + (part[m] as number), 0));
  if (!weights.every((weight, m) => weight?.dims.length === 1 && weight.dims[0] === sizes[m])) {
    throw new Refusal(`operand ${index} of ${describe(node)} is not a constant with a part for every head`);
  }
  region.edit({ kind: 'constant', node, index, weights: weights as never, axis: 0, parts, cuts });
}

interface Projections {
  /** Of a head of queries and keys, and of values. */
  readonly size: number | null;
  readonly valueSize: number | null;
  /** Null where they are packed. */
  readonly query: Spread | null;
  /** Counts of query heads and of key-value heads. */
  readonly all: Portions;
  readonly kv: Portions;
}

/** Queries, keys and values of an operator that may take them packed in operand 0. */
function projections(
  region: HeadRegion,
  nodes: readonly Node[],
  heads: readonly number[],
  kvHeads: readonly number[],
): Projections {
  if (nodes[0]?.input(1)) {
    const query = operandHeads(region, nodes, 0, heads);
    const size = sizeOfHead(nodes, query, heads);
    const key = operandHeads(region, nodes, 1, kvHeads);
    if (sizeOfHead(nodes, key, kvHeads) !== size) {
      throw new Refusal(`${describe(nodes[0])} has keys of another size than its queries`);
    }
    const valueSize = sizeOfHead(nodes, operandHeads(region, nodes, 2, kvHeads), kvHeads);
    return { size, valueSize, query, all: inProportion(heads, query), kv: inProportion(kvHeads, key) };
  }
  const widths = nodes.map((node) => (node.input(0) ? widthOf(region, node.input(0) as Value) : null) ?? 0);
  const counts = heads.map((count, m) => count + 2 * (kvHeads[m] as number));
  const size = headSize(nodes, widths, counts);
  const kv = kvHeads.map((count) => count * size);
  const packed = region.headsOf(nodes, 0, [heads.map((count) => count * size), kv, kv]);
  if (!packed) throw new Refusal(`${describe(nodes[0])} has no operand 0`);
  const [all, own] = [inProportion(heads, packed, 0), inProportion(kvHeads, packed, 1)];
  return { size, valueSize: size, query: null, all, kv: own };
}

const groupQueryAttention: Rule = {
  varying: ['num_heads', 'kv_num_heads'],
  early: (region, nodes, index) => {
    const [node] = nodes as [Node];
    const heads = counts(nodes, 'num_heads');
    const kvHeads = counts(nodes, 'kv_num_heads');
    if (!heads || !kvHeads) throw new Refusal(`${describe(node)} does not say how many heads it has`);
    checkGroups(nodes, heads, kvHeads);
    const { size, all, kv } = projections(region, nodes, heads, kvHeads);
    caches(region, nodes, [3, 4], kvHeads);
    shared(region, nodes, [5, 6, 7, 8, 9]);
    sharedMask(region, nodes, 10, all);
    perHead(region, nodes, 11, all);
    if (nodes.some((each) => each.inputs.slice(12).some((value) => value !== null))) {
      throw new Refusal(`the caches of ${describe(node)} are quantised`);
    }
    setCount(region, node, 'num_heads', all);
    setCount(region, node, 'kv_num_heads', kv);
    [region.heads, region.kvHeads] = [heads, kvHeads];
    if (index === 0) return flat(all, size);
    return index < 3 ? perHeadState(kv, size) : unknownResult(nodes);
  },
};

const multiHeadAttention: Rule = {
  varying: ['num_heads'],
  early: (region, nodes, index) => {
    const [node] = nodes as [Node];
    const heads = counts(nodes, 'num_heads');
    if (!heads) throw new Refusal(`${describe(node)} does not say how many heads it has`);
    if (!node.input(1)) throw new Refusal(`${describe(node)} reads packed projections`);
    const { size, valueSize, all } = projections(region, nodes, heads, heads);
    if (size === null || valueSize === null)
      throw new Refusal(`the size of the heads of ${describe(node)} is not known`);
    const widths = [size, size, valueSize].map((each) =>
      inProportion(
        heads.map((count) => count * each),
        all,
      ),
    );
    perHead(region, nodes, 3, {
      parts: widths.flatMap(({ parts }) => parts),
      cuts: all.cuts && widths.flatMap(({ cuts }) => cuts ?? []),
    });
    shared(region, nodes, [4, 8, 9]);
    sharedMask(region, nodes, 5, all);
    caches(region, nodes, [6, 7], heads);
    setCount(region, node, 'num_heads', all);
    [region.heads, region.kvHeads] = [heads, heads];
    if (index === 0) return flat(all, valueSize);
    return index < 3 ? perHeadState(all, index === 1 ? size : valueSize) : unknownResult(nodes);
  },
};

/** ai.onnx Attention, from opset 23 on. */
const attention: Rule = {
  varying: ['q_num_heads', 'kv_num_heads'],
  early: (region, nodes, index) => {
    const [node] = nodes as [Node];
    const heads = counts(nodes, 'q_num_heads') ?? headsAlong(region, nodes, 0);
    const kvHeads = counts(nodes, 'kv_num_heads') ?? headsAlong(region, nodes, 1);
    checkGroups(nodes, heads, kvHeads);
    const { size, valueSize, query, all, kv } = projections(region, nodes, heads, kvHeads);
    sharedMask(region, nodes, 3, all);
    caches(region, nodes, [4, 5], kvHeads);
    shared(region, nodes, [6]);
    if (node.attributes.has('q_num_heads')) setCount(region, node, 'q_num_heads', all);
    if (node.attributes.has('kv_num_heads')) setCount(region, node, 'kv_num_heads', kv);
    [region.heads, region.kvHeads] = [heads, kvHeads];
    if (index === 1 || index === 2) return perHeadState(kv, index === 1 ? size : valueSize);
    if (index !== 0 || !query) return unknownResult(nodes);
    return rankOf(query) === 4 ? perHeadState(all, valueSize) : flat(all, valueSize);
  },
};

/** com.microsoft Attention multiplies by the packed weights itself, and keeps keys and values in one cache. */
const packedAttention: Rule = {
  varying: ['num_heads', 'qkv_hidden_sizes'],
  early: (region, nodes, index) => {
    const [node] = nodes as [Node];
    const heads = counts(nodes, 'num_heads');
    const weights = nodes.map((each) => constantOf(each.input(1)));
    if (!heads || weights.some((weight) => weight?.dims.length !== 2)) {
      throw new Refusal(`${describe(node)} has no constant weights`);
    }
    const sizes = nodes.map((each, m) => {
      const width = weights[m]?.dims[1] ?? 0;
      return each.intsAttribute('qkv_hidden_sizes') ?? [width / 3, width / 3, width / 3];
    });
    const parts = [0, 1, 2].map((i) => sizes.map((own) => own[i] as number));
    const [size, keySize, valueSize] = parts.map((part) => headSize(nodes, part, heads));
    if (size !== keySize) throw new Refusal(`${describe(node)} has keys of another size than its queries`);
    const linears = nodes.map((each, m): Linear => {
      const matrix = denseMatrix(weights[m] as Weight);
      const bias = constantOf(each.input(2));
      if (each.input(2) && !bias) throw new Refusal(`the bias of ${describe(each)} is not constant`);
      const { inWidth, outWidth } = matrix;
      const slot = bias ? { node: each, index: 2, weight: bias } : null;
      const [input, output] = [operandOf(each, 0), each.output(0)];
      if (!output) throw new Refusal(`${describe(each)} gives nothing but caches`);
      const plain = { reads: { node: each, index: 0 }, activation: null, isPlain: true, start: 0 };
      return { node: each, matrix, input, output, inWidth, outWidth, bias: slot, ...plain };
    });
    const packed = region.addLinear(linears, parts, true);
    const all = inProportion(heads, packed);
    shared(region, nodes, [3, 6]);
    sharedMask(region, nodes, 5, all);
    const past = region.headsOf(nodes, 4);
    if (past && (past.axis !== 2 || past.parts[0]?.some((count, m) => count !== heads[m]))) {
      throw new Refusal(`the cache of ${describe(node)} does not hold the heads along its third axis`);
    }
    setCount(region, node, 'num_heads', all);
    if (node.attributes.has('qkv_hidden_sizes')) {
      const value = laterSizes(packed).map(BigInt);
      region.edit({ kind: 'attribute', node, name: 'qkv_hidden_sizes', attribute: { kind: 'ints', value } });
    }
    [region.heads, region.kvHeads] = [heads, heads];
    if (index === 0) return flat(all, valueSize ?? null);
    if (index > 1) return unknownResult(nodes);
    const dims = [2, null, heads[0] ?? null, null, valueSize ?? null];
    return spreadState({ dims, axis: 2, from: 2, ...all });
  },
};

/** Counts of heads of an operand [batch, heads, tokens, size]. */
function headsAlong(region: HeadRegion, nodes: readonly Node[], index: number): readonly number[] {
  const spread = region.headsOf(nodes, index);
  if (!spread || rankOf(spread) !== 4) throw new Refusal(`${describe(nodes[0])} does not say how many heads it has`);
  return spread.parts[0] ?? [];
}

/** com.microsoft takes positions before the tables, ai.onnx after them: all of them are for all heads. */
const rotaryEmbedding: Rule = {
  varying: ['num_heads'],
  early: (region, nodes) => {
    const [node] = nodes as [Node];
    shared(region, nodes, [1, 2, 3]);
    const state = region.operand(nodes, 0);
    if (state?.kind !== 'spread') return null;
    const { spread } = state;
    const rank = rankOf(spread);
    if (spread.from !== spread.axis || spread.axis !== (rank === 4 ? 1 : rank - 1)) {
      throw new Refusal(`${describe(node)} reads heads that lie along another axis`);
    }
    const heads = counts(nodes, 'num_heads');
    if (heads) {
      if (rank < 4) headSize(nodes, spread.parts[0] ?? [], heads);
      setCount(region, node, 'num_heads', inProportion(heads, spread));
    }
    return state;
  },
};

export const ATTENTION_RULES: ReadonlyMap<string, Rule> = new Map(
  Object.entries<Rule>({
    'com.microsoft.GroupQueryAttention': groupQueryAttention,
    'com.microsoft.MultiHeadAttention': multiHeadAttention,
    'com.microsoft.Attention': packedAttention,
    Attention: attention,
    'com.microsoft.RotaryEmbedding': rotaryEmbedding,
    RotaryEmbedding: rotaryEmbedding,
  }),
);
