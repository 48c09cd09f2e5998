/** All merged constants of attentions that become one, or the reason why there are none. Nothing is changed here. */

import { add, concat, reshape, slice, type Weight } from '../../../../ir/weight.js';
import type { NormReading } from '../../layers/norm.js';
import type { Linear } from '../../matrices/linear.js';
import type { Matrix } from '../../matrices/stored-matrices.js';
import { vectorOf, withRank } from '../../matrices/vectors.js';
import { foldedMatrix, foldedShift, type NormPlan, type NormReader, planNorms } from '../../plans/norm-plan.js';
import { Refusal } from '../../refusal.js';
import type { Slot } from '../../values/constants.js';
import type { HeadEdit } from '../edits.js';
import type { HeadLinear } from '../region.js';
import type { Parts } from '../spread.js';
import type { ParallelAttention } from './match.js';

/** Everything that replaces the frame's constants, made before anything is changed. */
export interface MergedAttentions extends NormPlan {
  /** Per projection into heads; null where every member keeps its own, and only the results are put side by side. */
  readonly inputs: readonly ({ readonly matrix: Matrix; readonly bias: Weight | null } | null)[];
  readonly output: Matrix;
  readonly outputBias: Weight | null;
  /** Per edit of the region that takes a constant: the constant of all members. */
  readonly constants: ReadonlyMap<HeadEdit, Weight>;
}

/** Makes the constants. Throws Refusal. */
export function mergeAttentions(attentions: ParallelAttention): MergedAttentions {
  const { region, outputs } = attentions;
  const [first] = outputs as [(typeof outputs)[number]];
  for (const { linear } of outputs.slice(0, -1)) {
    if (linear.inWidth % linear.matrix.inAlignment !== 0) {
      throw new Refusal(`${linear.inWidth} channels of heads are no multiple of ${linear.matrix.inAlignment}`);
    }
  }
  const readers = normReaders(attentions);
  const plan = planNorms(readers);
  if (plan.norms === 'own' && region.linears.some(({ isInner }) => isInner)) {
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
    ...plan,
    inputs: region.linears.map((linear, i) => (plan.norms === 'own' ? null : mergedInput(linear, i, readers, plan))),
    output: (matrices[0] as Matrix).join(matrices.slice(1), 'in'),
    outputBias: first.bias && mergedBias(outputs, first.bias.weight.dims.length),
    constants,
  };
}

/** The norms of all members with the projections into heads that read them. */
export function normReaders({ norms, region }: Pick<ParallelAttention, 'norms' | 'region'>): NormReader[] {
  return norms.map((norm, m) => ({
    norm,
    linears: region.linears.map(({ linears }) => linears[m] as Linear),
    readings: region.linears.map(({ readings }) => readings[m] as NormReading),
  }));
}

/** Projection `i` of all members, as one. */
function mergedInput(
  { linears, parts, isInner }: HeadLinear,
  i: number,
  readers: readonly NormReader[],
  plan: NormPlan,
): { matrix: Matrix; bias: Weight | null } {
  const [first] = linears as [Linear];
  const matrices = readers.map((reader) => foldedMatrix(reader, i, plan));
  const biases = linears.map(({ bias, outWidth }, m) => {
    const own = bias ? [vectorOf(bias.weight, outWidth)] : [];
    const shift = foldedShift(readers[m] as NormReader, i, plan);
    return shift ? [...own, shift] : own;
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

/** The sum of the biases after the output projections, in as many dimensions as the first. */
function mergedBias(outputs: ParallelAttention['outputs'], rank: number): Weight {
  const parts = outputs.map(({ linear, bias }) => withRank(vectorOf((bias as Slot).weight, linear.outWidth), rank));
  return add(parts as Weight[]);
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
