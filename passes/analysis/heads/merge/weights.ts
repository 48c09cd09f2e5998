/** All merged constants of attentions that become one, or the reason why there are none. Nothing is changed here. */

import { elementCount } from '../../../../ir/type.js';
import { add, concat, contract, reshape, slice, type Weight } from '../../../../ir/weight.js';
import type { Norm } from '../../layers/norm.js';
import type { Linear } from '../../matrices/linear.js';
import type { Matrix } from '../../matrices/stored-matrices.js';
import { vectorOf } from '../../matrices/vectors.js';
import { hasOutsideReader, type NormPlan } from '../../plans/ffn-merge.js';
import { Refusal } from '../../refusal.js';
import type { Slot } from '../../values/constants.js';
import type { HeadEdit } from '../edits.js';
import type { HeadLinear } from '../region.js';
import type { Parts } from '../spread.js';
import type { ParallelAttention } from './match.js';

/** Everything that replaces the frame's constants, made before anything is changed. */
export interface MergedAttentions {
  readonly norms: NormPlan;
  /** Per projection into heads; null where every member keeps its own, and only the results are put side by side. */
  readonly inputs: readonly ({ readonly matrix: Matrix; readonly bias: Weight | null } | null)[];
  readonly output: Matrix;
  readonly outputBias: Weight | null;
  /** Per edit of the region that takes a constant: the constant of all members. */
  readonly constants: ReadonlyMap<HeadEdit, Weight>;
}

/** Makes the constants. Throws Refusal. */
export function mergeAttentions({ region, norms, outputs }: ParallelAttention): MergedAttentions {
  const [first] = outputs as [(typeof outputs)[number]];
  for (const { linear } of outputs.slice(0, -1)) {
    if (linear.inWidth % linear.matrix.inAlignment !== 0) {
      throw new Refusal(`${linear.inWidth} channels of heads are no multiple of ${linear.matrix.inAlignment}`);
    }
  }
  const plan = planNorms(norms, region.linears);
  if (plan === 'own' && region.linears.some(({ isInner }) => isInner)) {
    throw new Refusal('their norms differ, cannot be folded, and their projections are inside the operator');
  }
  const constants = new Map<HeadEdit, Weight>();
  for (const edit of region.edits) {
    if (edit.kind === 'constant') constants.set(edit, joined(edit.weights, edit.axis, edit.parts));
    else if (edit.kind === 'repeated' || edit.kind === 'scaled')
      constants.set(edit, repeated(edit.weights, edit.place, edit.counts));
  }
  const matrices = outputs.map(({ linear }) => linear.matrix);
  return {
    norms: plan,
    inputs: region.linears.map((linear) => (plan === 'own' ? null : mergedInput(linear, norms, plan))),
    output: (matrices[0] as Matrix).join(matrices.slice(1), 'in'),
    outputBias: first.bias && add(outputs.map(({ linear, bias }) => vectorOf((bias as Slot).weight, linear.outWidth))),
    constants,
  };
}

/** As for FFNs: equal norms serve all, others are folded into the weights, and where that cannot be, stay. */
function planNorms(norms: readonly Norm[], linears: readonly HeadLinear[]): NormPlan {
  const [first] = norms as [Norm];
  const isEqual = norms.every(
    (norm) => norm.gamma?.weight === first.gamma?.weight && norm.beta?.weight === first.beta?.weight,
  );
  if (isEqual) return 'shared';
  const all = linears.flatMap((linear) => linear.linears);
  const canScale = all.every((linear) => linear.matrix.dense) && norms.every((norm, m) => scaleOf(norm, linears, m));
  const own = linears.map((linear) => linear.linears[0] as Linear);
  return canScale && !hasOutsideReader({ norm: first, linears: own }) ? 'folded' : 'own';
}

function scaleOf({ gamma }: Norm, linears: readonly HeadLinear[], m: number): Weight | null {
  const hidden = linears[0]?.linears[m]?.inWidth ?? 0;
  return gamma && elementCount(gamma.weight.dims) === hidden ? reshape(gamma.weight, [hidden]) : null;
}

function mergedInput(
  { linears, parts, isInner }: HeadLinear,
  norms: readonly Norm[],
  plan: NormPlan,
): { matrix: Matrix; bias: Weight | null } {
  const [first] = linears as [Linear];
  const matrices = linears.map((linear, m) => {
    const gamma = plan === 'folded' ? norms[m]?.gamma : null;
    return gamma ? (linear.matrix.scaleRows(vectorOf(gamma.weight, linear.inWidth)) as Matrix) : linear.matrix;
  });
  const biases = linears.map((linear, m) => {
    const own = linear.bias ? [vectorOf(linear.bias.weight, linear.outWidth)] : [];
    const beta = plan === 'folded' ? norms[m]?.beta : null;
    return beta ? [...own, contract(linear.matrix.dense as Weight, vectorOf(beta.weight, linear.inWidth))] : own;
  });
  const pieces = cut(parts, (m, start, end) => {
    const matrix = matrices[m] as Matrix;
    return parts.length === 1 ? matrix : matrix.columns(start, end);
  });
  const hasBias = first.bias !== null || biases.some((bias) => bias.length > 0);
  if (isInner && hasBias && !first.bias) throw new Refusal('the shift of their norms has no bias to go to');
  const bias = hasBias ? joined(biases.map(add), 0, parts) : null;
  return { matrix: (pieces[0] as Matrix).join(pieces.slice(1), 'out'), bias };
}

/** The pieces of all members in the order of the merged axis: part by part, in each part member by member. */
function cut<T>(parts: Parts, piece: (member: number, start: number, end: number) => T): T[] {
  const starts = (parts[0] ?? []).map(() => 0);
  return parts.flatMap((sizes) =>
    sizes.map((size, m) => {
      const start = starts[m] as number;
      starts[m] = start + size;
      return piece(m, start, start + size);
    }),
  );
}

function joined(weights: readonly Weight[], axis: number, parts: Parts): Weight {
  return concat(
    cut(parts, (m, start, end) => slice(weights[m] as Weight, axis, start, end)),
    axis,
  );
}

/** A weight of one head per member, `place` dimensions from the end: as often as the member has heads. */
function repeated(weights: readonly Weight[], place: number, counts: readonly number[]): Weight {
  const copies = weights.flatMap((weight, m) => {
    const dims = [...new Array<number>(Math.max(place - weight.dims.length, 0)).fill(1), ...weight.dims];
    const one = reshape(weight, dims);
    if (!one)
      throw new Refusal(`a constant of shape [${weight.dims}] serves every head, and differs from layer to layer`);
    return new Array<Weight>(counts[m] as number).fill(one);
  });
  return concat(copies, (copies[0]?.dims.length ?? 0) - place);
}
