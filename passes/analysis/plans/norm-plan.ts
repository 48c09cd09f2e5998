/**
 * What becomes of the norms of branches that become one, and of the factors between norms and projections. A norm's scale
 * gamma and a factor s multiply the rows of a projection, W' = diag(gamma s) W; a norm's shift is added behind it, as
 * (s beta)^T W. Nothing is changed here.
 */
import type { Value } from '../../../ir/core.js';
import { elementCount } from '../../../ir/type.js';
import { cast, contract, reshape, scale, type Weight } from '../../../ir/weight.js';
import type { Factor, Norm, NormReading } from '../layers/norm.js';
import type { Linear } from '../matrices/linear.js';
import type { Matrix } from '../matrices/stored-matrices.js';
import { vectorOf } from '../matrices/vectors.js';

/** The norm of a branch with the projections that read it. */
export interface NormReader {
  readonly norm: Norm;
  readonly linears: readonly Linear[];
  /** Per linear. */
  readonly readings: readonly NormReading[];
}

export interface NormPlan {
  /** One norm is as good as the other, all are folded into the weights, or every branch keeps norm and projections. */
  readonly norms: 'shared' | 'folded' | 'own';
  /** Whether factors are folded, too; where they are not, those of the first serve all. Of `own` norms nothing is. */
  readonly foldsFactors: boolean;
}

/** What is done with the norms, as the end of a remark; `what` are the projections that read them. */
export function normsText({ norms, foldsFactors }: NormPlan, what: string): string {
  if (norms === 'own') return `; each keeps its own norm, ${what}`;
  const folded = [...(norms === 'folded' ? ['norms'] : []), ...(foldsFactors ? ['factors'] : [])];
  return folded.length > 0 ? `; their ${folded.join(' and ')} are folded into ${what}` : '';
}

/** Branches with as many projections each. */
export function planNorms(members: readonly NormReader[]): NormPlan {
  const [first] = members as [NormReader];
  const { gamma, beta } = first.norm;
  const areNorms = members.every(
    ({ norm }) => norm.gamma?.weight === gamma?.weight && norm.beta?.weight === beta?.weight,
  );
  const areFactors = members.every(({ readings }) =>
    readings.every(({ factor }, i) => isSameFactor(factor, first.readings[i]?.factor ?? null)),
  );
  const plan = { norms: areNorms ? 'shared' : 'folded', foldsFactors: !areFactors } as const;
  if (areNorms && areFactors) return plan;
  const canScale = members.every(
    ({ norm, linears, readings }) =>
      linears.every(({ matrix }) => matrix.dense) &&
      (areNorms || gammaOf(norm, linears[0]?.inWidth ?? 0)) &&
      (readings.every(({ factor }) => !factor?.isDivisor) || (areFactors && !norm.beta)),
  );
  return canScale && (areNorms || !hasOutsideReader(first)) ? plan : { norms: 'own', foldsFactors: false };
}

function isSameFactor(a: Factor | null, b: Factor | null): boolean {
  return a?.weight === b?.weight && a?.isDivisor === b?.isDivisor;
}

/** The matrix of projection `i` with what is folded into it. */
export function foldedMatrix({ norm, linears, readings }: NormReader, i: number, plan: NormPlan): Matrix {
  const { matrix } = linears[i] as Linear;
  const factor = (plan.foldsFactors && readings[i]?.factor?.weight) || null;
  const gamma = plan.norms === 'folded' ? gammaOf(norm, matrix.inWidth) : null;
  // Weights are rounded once: the product of both is made in float.
  const rows = factor && gamma ? scale(cast(factor, 'float'), 0, gamma) : (factor ?? gamma);
  return rows ? (matrix.scaleRows(rows) as Matrix) : matrix;
}

/** What a folded norm's shift adds to the results of projection `i`, [out]; null for nothing. */
export function foldedShift({ norm, linears, readings }: NormReader, i: number, plan: NormPlan): Weight | null {
  if (plan.norms !== 'folded' || !norm.beta) return null;
  const { matrix, inWidth } = linears[i] as Linear;
  const factor = readings[i]?.factor;
  const scaled = factor ? matrix.scaleRows(factor.weight) : matrix;
  return contract(scaled?.dense as Weight, vectorOf(norm.beta.weight, inWidth));
}

/** The scale of a norm as [hidden]; null when it has none or it is not one number per channel. */
export function gammaOf({ gamma }: Norm, hidden: number): Weight | null {
  return gamma && elementCount(gamma.weight.dims) === hidden ? reshape(gamma.weight, [hidden]) : null;
}

/** True when something other than its own projections reads a norm. Shape queries do not count. */
export function hasOutsideReader({ norm, linears, readings }: NormReader): boolean {
  const own = new Set([...linears.map(({ node }) => node), ...readings.map(({ reads }) => reads.node)]);
  const open: Value[] = [norm.output];
  for (let value = open.pop(); value; value = open.pop()) {
    if (value.isGraphOutput) return true;
    for (const { node } of value.uses) {
      if (own.has(node) || node.op === 'Shape') continue;
      // Copies, and the Reshape that flattens the input of a Gemm.
      if (!['Cast', 'Identity', 'Reshape'].includes(node.op)) return true;
      for (const copy of node.outputs) if (copy) open.push(copy);
    }
  }
  return false;
}
