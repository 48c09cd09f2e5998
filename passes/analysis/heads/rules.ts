/**
 * Where operators put the heads of several attentions that are computed as one. An operator that is not listed is an
 * obstacle as soon as something with heads reaches it.
 */

import type { Node, Value } from '../../../ir/core.js';
import type { Weight } from '../../../ir/weight.js';
import { isElementwise } from '../layers/elementwise.js';
import { isNormOperator } from '../layers/norm.js';
import { withRank } from '../matrices/vectors.js';
import { describe, operandOf, Refusal } from '../refusal.js';
import { constantOf, splitSizes } from '../values/constants.js';
import type { Sizes } from '../values/dimensions.js';
import { ATTENTION_RULES } from './attention-rules.js';
import type { HeadRegion, State } from './region.js';
import { isOneAt, leadsToLinear, notAlong, only, type Rule, spreadState, stored, widthOf } from './rule.js';
import {
  broadcast,
  expanded,
  laterSizes,
  type Parts,
  type Reshaped,
  rankOf,
  reshaped,
  type Spread,
  sameSpread,
  transposed,
  virtualAxis,
  withDim,
} from './spread.js';

/** Element-wise: operands are spread alike, constants follow, everything else must be the same for all heads. */
function elementwise(region: HeadRegion, nodes: readonly Node[], _index: number, parts?: Parts): State | null {
  const [first] = nodes as [Node];
  const states = first.inputs.map((_, i) => region.operand(nodes, i, parts));
  const spreads = states.flatMap((state) => (state?.kind === 'spread' ? [state.spread] : []));
  const main = spreads.reduce<Spread | null>((a, b) => (a && rankOf(a) >= rankOf(b) ? a : b), null);
  if (!main) return null;
  if (!spreads.every((spread) => sameSpread(spread, main))) {
    throw new Refusal(`${describe(first)} mixes heads that lie in different places`);
  }
  let { dims } = main;
  const place = rankOf(main) - main.from;
  for (const [i, state] of states.entries()) {
    const value = first.input(i);
    if (!state || !value) continue;
    if (state.kind === 'spread') dims = broadcast(dims, state.spread.dims);
    else if (state.kind === 'sizes') throw new Refusal(`${describe(first)} adds sizes to heads`);
    else if (constantOf(value)) followConstant(region, nodes, i, main, state);
    else {
      const shape = region.dimensions.shape(value);
      if (slicedAlike(region, first, i, main, shape)) continue;
      if (!isOneAt(shape, place)) throw new Refusal(`whether '${value.name}' is the same for all heads is not known`);
      if (main.from === main.axis)
        dims = broadcast(
          dims,
          (shape as Sizes).map(({ now }) => now),
        );
    }
  }
  return spreadState({ ...main, dims });
}

/** Something computed for every head of a branch that is cut, the same on all ranks: a rank takes its share of it. */
function slicedAlike(region: HeadRegion, node: Node, index: number, main: Spread, shape: Sizes | null): boolean {
  const [cut] = main.cuts ?? [];
  const place = rankOf(main) - main.from;
  const axis = (shape?.length ?? 0) - place;
  const isAlike = axis >= 0 && shape?.[axis]?.now === main.parts[0]?.[0] && shape?.[axis]?.now !== 1;
  const isWhole = cut && cut.size * cut.pieces === main.parts[0]?.[0];
  if (!isWhole || !isAlike || main.parts.length > 1 || main.from !== main.axis) return false;
  region.edit({ kind: 'sliced', node, index, axis, cut });
  return true;
}

/** A constant operand of an element-wise operator: one for all, or one part per member along the heads. */
function followConstant(region: HeadRegion, nodes: readonly Node[], index: number, main: Spread, state: State): void {
  const [node] = nodes as [Node];
  const stored = nodes.map((each, m) =>
    state.kind === 'constants' ? state.weights[m] : constantOf(each.input(index)),
  );
  // Exporters write [n] in one layer and [1, 1, n] in another.
  const rank = stored[0]?.dims.length ?? 0;
  const weights = stored.map((weight) => weight && (withRank(weight, rank) ?? weight));
  const place = rankOf(main) - main.from;
  const axes = weights.map((weight) => (weight?.dims.length ?? 0) - place);
  const [first] = weights;
  const [axis] = axes as [number];
  const isOne = weights.every((weight) => weight === first);
  const isConstant = axis < 0 || first?.dims[axis] === 1;
  if (isOne && isConstant) return;
  const sizes = main.parts[0]?.map((_, m) => main.parts.reduce((sum, part) => sum + (part[m] as number), 0)) ?? [];
  const fits = weights.every((weight, m) => weight && axes[m] === axis && weight.dims[axis] === sizes[m]);
  if (main.from === main.axis && fits) {
    const { parts, cuts } = main;
    region.edit({ kind: 'constant', node, index, weights: weights as never, axis, parts, cuts });
    return;
  }
  const perHead = isConstant && main.from === main.axis && main.parts.length === 1 ? weights : null;
  if (!perHead) throw new Refusal(`'${node.input(index)?.name}' differs from layer to layer and serves every head`);
  // A weight per channel of a head, another one in each layer: each of the heads gets its layer's.
  region.edit({ kind: 'repeated', node, index, weights: weights as never, place, counts: sizes });
}

function matmul(region: HeadRegion, nodes: readonly Node[], _index: number, states: readonly (State | null)[]): State {
  const [node] = nodes as [Node];
  const [a, b] = states;
  if (a?.kind !== 'spread') throw new Refusal(`${describe(node)} does not read heads as its first operand`);
  const left = a.spread;
  if (left.axis > left.dims.length - 3) throw new Refusal(`${describe(node)} multiplies across the heads`);
  if (b?.kind === 'shared') {
    const other = region.dimensions.shape(operandOf(node, 1));
    if (!isOneAt(other, rankOf(left) - left.from)) throw new Refusal(`${describe(node)} reads another matrix per head`);
    return spreadState(withDim(left, rankOf(left) - 1, other?.at(-1)?.now ?? null));
  }
  if (b?.kind !== 'spread' || !sameSpread(left, b.spread)) {
    throw new Refusal(`${describe(node)} multiplies heads that lie in different places`);
  }
  if (node.intAttribute('transA') === 1 || node.intAttribute('transBatchA') || node.intAttribute('transBatchB')) {
    throw new Refusal(`${describe(node)} transposes heads`);
  }
  const last = b.spread.dims.at(node.intAttribute('transB') === 1 ? -2 : -1) ?? null;
  return spreadState({
    ...left,
    dims: [
      ...broadcast(left.dims.slice(0, -1), b.spread.dims.slice(0, -1)).slice(0, -1),
      left.dims.at(-2) ?? null,
      last,
    ],
  });
}

/** Reshape and Expand. */
function resizer(compute: (spread: Spread, target: Sizes, node: Node, ranks: number) => Reshaped): Rule {
  return {
    readsSizes: true,
    carriesScale: true,
    late: (region, nodes, _index, states) => {
      const { scale, ...spread } = only(nodes, states);
      const made = region.resized(nodes, 1, spread, (own, target) =>
        compute(own, target, nodes[0] as Node, region.cutter?.ranks ?? 1),
      );
      return spreadState(scale ? region.scaled(nodes[0] as Node, made, scale) : made);
    },
  };
}

/** Operators that leave every dimension as it is and work along other ones than the heads. */
function along(attribute: string, fallback: (region: HeadRegion) => number): Rule {
  return {
    late: (region, nodes, _index, states) => {
      const [node] = nodes as [Node];
      const spread = only(nodes, states);
      const axis = stored(node.intAttribute(attribute) ?? fallback(region), spread);
      if (axis <= spread.from) throw new Refusal(`${describe(node)} works across the heads`);
      if (node.opType === 'Softmax' && region.heads.length === 0) region.heads = spread.parts[0] ?? [];
      return spreadState(spread);
    },
  };
}

const sameForAll: Rule = along('axis', () => -1);

/** A norm per head. Weights that differ from layer to layer become a factor per head after it. */
const norm: Rule = {
  late: (region, nodes, index, states) => {
    const [x, weight, ...others] = states;
    const isOne = weight?.kind !== 'constants' || others.some((state) => state && state.kind !== 'shared');
    if (isOne || x?.kind !== 'spread') return sameForAll.late?.(region, nodes, index, states) as State;
    const [node] = nodes as [Node];
    const plain = sameForAll.late?.(region, nodes, index, [x]) as State & { kind: 'spread' };
    region.edit({ kind: 'ones', node, index: 1, like: weight.weights[0] as Weight });
    return spreadState(region.scaled(node, plain.spread, weight.weights));
  },
};

const RESHAPERS: ReadonlyMap<string, Rule> = new Map(
  Object.entries<Rule>({
    Reshape: resizer((spread, target, node) => {
      // A norm per head reads heads and tokens as one dimension.
      const joinsTokens = node.output(0)?.uses.some((use) => isNormOperator(use.node)) ?? false;
      return reshaped(spread, target, node.intAttribute('allowzero') !== 1, joinsTokens);
    }),
    Expand: resizer((spread, target, _node, ranks) => expanded(spread, target, ranks)),
    Transpose: {
      late: (_region, nodes, _index, states) => {
        const spread = only(nodes, states);
        const perm = nodes[0]?.intsAttribute('perm') ?? [...Array(rankOf(spread)).keys()].reverse();
        return spreadState(transposed(spread, perm));
      },
    },
    Unsqueeze: {
      readsSizes: true,
      late: (region, nodes, _index, states) => {
        const spread = only(nodes, states);
        const axes = region.axes(nodes);
        if (!axes || spread.from !== spread.axis) throw new Refusal(`the axes of ${describe(nodes[0])} are not known`);
        const rank = spread.dims.length + axes.length;
        const added = new Set(axes.map((axis) => (axis < 0 ? axis + rank : axis)));
        const rest = spread.dims.map((dim, i) => [dim, i] as const);
        const made = Array.from({ length: rank }, (_, i) => (added.has(i) ? ([1, -1] as const) : rest.shift()));
        const axis = made.findIndex((entry) => entry?.[1] === spread.axis);
        return spreadState({ ...spread, dims: made.map((entry) => entry?.[0] ?? null), axis, from: axis });
      },
    },
    Squeeze: {
      readsSizes: true,
      late: (region, nodes, _index, states) => {
        const spread = only(nodes, states);
        const axes = region.axes(nodes);
        if (!axes || spread.from !== spread.axis) throw new Refusal(`the axes of ${describe(nodes[0])} are not known`);
        const gone = new Set(axes.map((axis) => notAlong(nodes[0] as Node, axis, spread)));
        const axis = spread.axis - [...gone].filter((each) => each < spread.axis).length;
        return spreadState({ ...spread, dims: spread.dims.filter((_, i) => !gone.has(i)), axis, from: axis });
      },
    },
    Shape: {
      late: (region, nodes, index) => region.settled(nodes[0]?.output(index) as Value),
    },
  }),
);

const CUTTERS: ReadonlyMap<string, Rule> = new Map(
  Object.entries<Rule>({
    Slice: {
      readsSizes: true,
      late: (region, nodes, _index, states) => {
        const [node] = nodes as [Node];
        const spread = only(nodes, states);
        const read = (i: number): number[] | null => region.numbers(nodes, i);
        const axes = node.input(3)
          ? read(3)
          : (region.dimensions.elements(operandOf(node, 1))?.map((_, i) => i) ?? null);
        if (!axes) throw new Refusal(`the axes of ${describe(node)} are not known`);
        const [starts, ends, steps] = [read(1), read(2), node.input(4) ? read(4) : axes.map(() => 1)];
        return spreadState(
          axes.reduce((made, axis, i) => {
            const at = notAlong(node, axis, spread);
            const size = spread.dims[virtualAxis(spread, at)] ?? null;
            return withDim(made, at, sliced(size, starts?.[i], ends?.[i], steps?.[i]));
          }, spread),
        );
      },
    },
    Concat: {
      late: (region, nodes, _index, states) => {
        const [node] = nodes as [Node];
        const spreads = states.flatMap((state) => (state?.kind === 'spread' ? [state.spread] : []));
        const [first] = spreads;
        const isAligned = (spread: Spread): boolean =>
          first !== undefined && (sameSpread(spread, first) || (region.cutter !== null && sameAxis(spread, first)));
        if (!first || spreads.length < states.length || !spreads.every(isAligned)) {
          throw new Refusal(`${describe(node)} joins heads with something that has none`);
        }
        if (region.cutter && stored(node.intAttribute('axis') ?? 0, first) === first.from) return joined(spreads);
        const at = notAlong(node, node.intAttribute('axis') ?? 0, first);
        const sizes = spreads.map((spread) => spread.dims[virtualAxis(spread, at)] ?? null);
        const size = sizes.some((each) => each === null)
          ? null
          : sizes.reduce<number>((sum, each) => sum + (each ?? 0), 0);
        const dims = spreads.map(({ dims }) => dims).reduce((a, b) => a.map((dim, i) => dim ?? b[i] ?? null));
        return spreadState(withDim({ ...first, dims }, at, size));
      },
    },
    Gather: {
      late: (region, nodes, _index, states) => {
        const [node] = nodes as [Node];
        const spread = only(nodes, states);
        const indices = region.dimensions.shape(operandOf(node, 1));
        const at = notAlong(node, node.intAttribute('axis') ?? 0, spread);
        if (!indices || indices.length > 1 || spread.from !== spread.axis) {
          throw new Refusal(`what ${describe(node)} takes is not known`);
        }
        if (indices.length === 1) return spreadState(withDim(spread, at, indices[0]?.now ?? null));
        const axis = spread.axis - (at < spread.axis ? 1 : 0);
        return spreadState({ ...spread, dims: spread.dims.filter((_, i) => i !== at), axis, from: axis });
      },
    },
    Split: {
      varying: ['split'],
      early: (region, nodes, index) => {
        const sizes = nodes.map((node) => partSizes(region, node));
        const isLast = nodes.every(
          (node) => (node.intAttribute('axis') ?? 0) === -1 || node.intAttribute('axis') === 2,
        );
        if (!isLast || !nodes.every((node) => node.input(0) && leadsToLinear(node.input(0) as Value))) return null;
        if (!sizes.every((list) => list !== null))
          throw new Refusal(`the sizes of ${describe(nodes[0])} are not known`);
        const parts = (sizes[0] as number[]).map((_, i) => sizes.map((list) => (list as number[])[i] as number));
        const packed = region.headsOf(nodes, 0, parts) as Spread;
        const [node] = nodes as [Node];
        const sums = laterSizes(packed);
        if (node.attributes.has('split')) {
          region.edit({ kind: 'attribute', node, name: 'split', attribute: { kind: 'ints', value: sums.map(BigInt) } });
        } else if (node.input(1)) {
          for (const [position, value] of sums.entries())
            region.edit({ kind: 'element', node, index: 1, position, value });
        }
        const own = parts[index] as readonly number[];
        const dims = packed.dims.map((dim, i) => (i === packed.axis ? (own[0] as number) : dim));
        const cuts = packed.cuts && { cuts: packed.cuts.slice(index, index + 1) };
        return spreadState({ ...packed, dims, parts: [own], ...cuts });
      },
      late: (region, nodes, index, states) => {
        const [node] = nodes as [Node];
        const spread = only(nodes, states);
        const at = notAlong(node, node.intAttribute('axis') ?? 0, spread);
        const sizes = nodes.map((each) => partSizes(region, each));
        const whole = spread.dims[virtualAxis(spread, at)] ?? null;
        const equal = whole === null ? null : whole / node.outputs.length;
        return spreadState(withDim(spread, at, sizes[0]?.[index] ?? equal));
      },
    },
  }),
);

/** Put one after another along what is cut: a rank gets its share of each. */
function joined(spreads: readonly Spread[]): State {
  const [first] = spreads as [Spread];
  const parts = spreads.flatMap((spread) => spread.parts);
  const now = parts.reduce((sum, [size = 0]) => sum + size, 0);
  const dims = first.dims.map((dim, i) => (i === first.axis ? now : dim));
  return spreadState({ ...first, dims, parts, cuts: spreads.flatMap((spread) => spread.cuts ?? []) });
}

function sameAxis(a: Spread, b: Spread): boolean {
  return a.from === a.axis && b.from === b.axis && a.axis === b.axis && a.dims.length === b.dims.length;
}

/** Sizes that a Split states, or equal ones of a packed projection. */
function partSizes(region: HeadRegion, node: Node): number[] | null {
  const stated = splitSizes(node, (value) => region.dimensions.numbers(value));
  if (stated) return stated;
  const width = node.input(0) ? widthOf(region, node.input(0) as Value) : null;
  return width === null || node.input(1)
    ? null
    : new Array<number>(node.outputs.length).fill(width / node.outputs.length);
}

function sliced(size: number | null, start?: number, end?: number, step?: number): number | null {
  if (size === null || start === undefined || end === undefined || step === undefined || step < 1) return null;
  const clamp = (at: number): number => Math.min(Math.max(at < 0 ? at + size : at, 0), size);
  return Math.max(Math.ceil((clamp(end) - clamp(start)) / step), 0);
}

const LOGIC = 'Where And Or Equal Greater Less GreaterOrEqual LessOrEqual IsNaN Not Cos Sin'.split(' ');

const reduction: Rule = {
  readsSizes: true,
  late: (region, nodes, _index, states) => {
    const [node] = nodes as [Node];
    const spread = only(nodes, states);
    const axes = region.axes(nodes);
    if (!axes || node.intAttribute('keepdims') === 0) throw new Refusal(`the axes of ${describe(node)} are not known`);
    return spreadState(axes.reduce((made, axis) => withDim(made, notAlong(node, axis, spread), 1), spread));
  },
};

/** Scales of activations are one for all heads of a branch, but another one in each layer. */
const QUANTISERS = ['QuantizeLinear', 'DequantizeLinear'];

/** The rule for an operator; undefined where it is not known what it does with heads. */
export function ruleFor(node: Node, isCut: boolean): Rule | undefined {
  const others = isCut ? [...LOGIC, ...QUANTISERS] : LOGIC;
  const isPlain = isElementwise(node) || (node.domain === '' && others.includes(node.opType));
  return isPlain ? { early: elementwise } : RULES.get(node.op);
}

const RULES: ReadonlyMap<string, Rule> = new Map(
  Object.entries<Rule>({
    ...Object.fromEntries(RESHAPERS),
    ...Object.fromEntries(CUTTERS),
    ...Object.fromEntries(ATTENTION_RULES),
    MatMul: { late: matmul },
    'com.microsoft.FusedMatMul': { late: matmul },
    Softmax: along('axis', (region) => (region.opset >= 13 ? -1 : 1)),
    ReduceMean: reduction,
    ReduceSum: reduction,
    ReduceMax: reduction,
    LayerNormalization: norm,
    SimplifiedLayerNormalization: norm,
    RMSNormalization: norm,
  }),
);
