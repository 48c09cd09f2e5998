/**
 * What linears on one sum would become as one. Nothing is changed here (concat-linear does that):
 *
 *     sum_j n_j(r) W_j + b_j = n(r) M + b      M = sum_j diag(gamma_j) W_j      b = sum_j b_j + W_j^T beta_j
 *
 * Of low rank, W_j = A_j B_j, they are joined along the rank: M = [diag(gamma_0) A_0, ...] [B_0; ...]. Whole ones and ones of low
 * rank stay apart: to be one, the two matrices would have to be multiplied. So do those whose ranks are together no lower.
 *
 * n is the norm of the FFN beside them where its weights went into gate and up, or where it is the linears' own; else the
 * norm of the first linear, with its weights taken out.
 */
import type { Node, Value } from '../../../ir/core.js';
import { counted } from '../../../ir/visible.js';
import { add, cast, concat, contract, type Weight } from '../../../ir/weight.js';
import { shortest } from '../layers/ffn.js';
import type { FfnBranch, Layer, LinearBranch } from '../layers/layer.js';
import type { Norm, NormReading } from '../layers/norm.js';
import type { Stage } from '../layers/residual-stream.js';
import { filled, vectorOf } from '../matrices/vectors.js';
import { attempt, Refusal } from '../refusal.js';
import {
  foldedMatrix,
  foldedShift,
  gammaOf,
  hasOutsideReader,
  type NormPlan,
  type NormReader,
  planNorms,
} from './norm-plan.js';

/** Linears on one sum that could become one, in the order of their layers. */
export interface LinearGroup {
  readonly stage: Stage;
  readonly members: readonly { readonly layer: Layer; readonly branch: LinearBranch }[];
  /** The FFNs on the same sum. */
  readonly ffns: readonly { readonly layer: Layer; readonly branch: FfnBranch }[];
}

/** What takes the place of all linears of a group. */
export interface MergedLinear {
  /** What it reads. */
  readonly input: Value;
  /** [hidden, hidden], or [hidden, ranks] and [ranks, hidden]. */
  readonly matrices: readonly [Weight] | readonly [left: Weight, right: Weight];
  /** [hidden]. */
  readonly bias: Weight | null;
  readonly plan: NormPlan;
  /** True where `input` is the norm of an FFN: that of the linears goes. */
  readonly isShared: boolean;
}

/** The linears of each sum, by what they have in common; none whose operator is in `refused`. */
export function linearGroups(layers: readonly Layer[], refused: ReadonlySet<Node>): LinearGroup[] {
  const groups = new Map<Stage, Map<string, LinearGroup['members'][number][]>>();
  for (const layer of layers) {
    for (const branch of layer.linears) {
      if (branch.stage.branches.length < 2 || refused.has(branch.linear.node)) continue;
      const byKey = groups.get(branch.stage) ?? new Map<string, LinearGroup['members'][number][]>();
      groups.set(branch.stage, byKey);
      const key = traitsOf(branch);
      byKey.set(key, [...(byKey.get(key) ?? []), { layer, branch }]);
    }
  }
  return [...groups].flatMap(([stage, byKey]) => {
    const ffns = layers.flatMap((layer) => (layer.ffn?.stage === stage ? [{ layer, branch: layer.ffn }] : []));
    return [...byKey.values()].map((members) => ({ stage, members, ffns }));
  });
}

/** What linears must have in common to become one, in words. */
export function traitsOf({ norm, linear, right }: LinearBranch): string {
  return `${keyOf(norm)}, ${linear.matrix.dtype}${right ? ', of low rank' : ''}`;
}

/** Norms with equal keys differ by their weights alone. */
function keyOf({ kind, eps, rounding }: Norm): string {
  return kind === 'none' ? 'no norm' : `norm ${kind} eps ${shortest(eps)}${rounding ? ` rounded to ${rounding}` : ''}`;
}

/** What the linears of a group become, or why they stay; null where there is nothing to gain. */
export function mergeLinears(group: LinearGroup): MergedLinear | Refusal | null {
  return attempt(() => mergeAll(group));
}

function mergeAll({ members, ffns }: LinearGroup): MergedLinear | null {
  const branches = members.map(({ branch }) => branch);
  const readers = branches.map(
    ({ norm, linear, reading }): NormReader => ({ norm, linears: [linear], readings: [reading] }),
  );
  const target = ffns.map(({ branch }) => branch.ffn).find(({ norm }) => planOnto(norm, readers) !== null);
  if (branches.length === 1) {
    const [reader] = readers as [NormReader];
    // Alone it moves only where its norm goes by that.
    if (!target || target.norm.output === reader.norm.output || hasOutsideReader(reader)) return null;
  }
  for (const { tail, linear, right } of branches) {
    if (tail !== '' && tail !== '+bias') throw new Refusal(`something follows the product (${tail})`, linear.node);
    if (!linear.matrix.dense || right?.matrix.dense === null)
      throw new Refusal('their matrices are quantised', linear.node);
  }
  const factor = readers.flatMap(({ readings }) => readings).find((reading) => reading.factor?.isDivisor);
  if (factor) throw new Refusal('what they read is divided by a factor', factor.reads.node);
  const plan = (target && planOnto(target.norm, readers)) ?? {
    ...planNorms(readers),
    foldsFactors: readers.some(({ readings }) => readings.some((reading) => reading.factor)),
  };
  if (plan.norms === 'own') throw new Refusal('their norms differ and have other readers');
  const [reading] = (target?.readings ?? branches.map((branch) => branch.reading)) as readonly [NormReading];
  const folded = readers.map((reader) => foldedMatrix(reader, 0, plan).dense as Weight);
  const rank = branches.reduce((sum, { right }) => sum + (right?.inWidth ?? 0), 0);
  const width = branches[0]?.right?.outWidth ?? 0;
  if (rank > 0 && rank >= width)
    throw new Refusal(`together they would be of rank ${rank}, in a stream of ${counted(width, 'channel')}`);
  const rights = branches.flatMap(({ right }) => (right ? [right.matrix.dense as Weight] : []));
  const [{ dtype }] = folded as [Weight];
  const biases = branches.flatMap(({ bias, linear, right }, i) => {
    const shift = foldedShift(readers[i] as NormReader, 0, plan);
    return [
      ...(bias ? [cast(vectorOf(bias.weight, (right ?? linear).outWidth), dtype)] : []),
      ...(shift ? [right ? contract(right.matrix.dense as Weight, shift) : shift] : []),
    ];
  });
  return {
    input: reading.reads.node.input(reading.reads.index) as Value,
    matrices: rights.length > 0 ? [concat(folded, 1), concat(rights, 0)] : [add(folded)],
    bias: biases.length > 0 ? add(biases) : null,
    plan,
    isShared: target !== undefined,
  };
}

/** How the norms of `readers` go into their matrices when all of them read the result of `norm`; null where they cannot. */
function planOnto(norm: Norm, readers: readonly NormReader[]): NormPlan | null {
  if (readers.some((reader) => keyOf(reader.norm) !== keyOf(norm))) return null;
  const foldsFactors = readers.some(({ readings }) => readings.some(({ factor }) => factor));
  const isEqual = readers.every(
    (reader) => reader.norm.gamma?.weight === norm.gamma?.weight && reader.norm.beta?.weight === norm.beta?.weight,
  );
  if (isEqual) return { norms: 'shared', foldsFactors };
  const isPlain =
    (!norm.gamma || norm.gamma.weight === filled(norm.gamma.weight, 1)) &&
    (!norm.beta || norm.beta.weight === filled(norm.beta.weight, 0));
  const canFold = readers.every(({ norm: own, linears }) => !own.gamma || gammaOf(own, linears[0]?.inWidth ?? 0));
  return isPlain && canFold ? { norms: 'folded', foldsFactors } : null;
}
