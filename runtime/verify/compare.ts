/** How far the outputs of two models are apart. */
import { isFloat } from '../../ir/type.js';
import { argmax } from '../run/steps.js';
import { runtimeErrors } from '../session/errors.js';
import { type HostTensor, type TensorMap, toFloat32 } from '../session/tensor.js';

/** How one output differs. */
export interface OutputDifference {
  readonly name: string;
  readonly elements: number;
  /** Largest |a - b|. */
  readonly absolute: number;
  /** ||a - b|| / ||a|| in the L2 norm; Infinity where the candidate is not finite and the reference is. */
  readonly relative: number;
  /** 1 for equal direction; 1 when both are zero. */
  readonly cosine: number;
  /** Elements that are NaN or infinite in the reference, and in the candidate. */
  readonly nonFinite: readonly [reference: number, candidate: number];
  /** NaN or infinite in the candidate where the reference has a number, or another such value than the reference. */
  readonly broken: number;
}

/** How next-token distributions differ. */
export interface LogitsDifference {
  readonly positions: number;
  /** Fraction of positions with the same most likely token. */
  readonly top1: number;
  /** KL(reference || candidate) in nats. */
  readonly meanKl: number;
  readonly maxKl: number;
}

/** How all outputs of two runs differ. */
export interface OutputComparison {
  readonly outputs: readonly OutputDifference[];
  /** null when there are no logits, or not one row of them is finite on both sides. */
  readonly logits: LogitsDifference | null;
  /** Outputs that one side does not have (a removed cache): listed, not compared. */
  readonly onlyReference: readonly string[];
  readonly onlyCandidate: readonly string[];
}

/**
 * Compares the outputs of two runs by name; `logits` names the next-token scores.
 * @throws Diagnostic OF_NOT_COMPARABLE when a shared output has two shapes or kinds of element, or nothing is shared.
 */
export function compareOutputs(
  reference: TensorMap,
  candidate: TensorMap,
  logits: string | null = null,
): OutputComparison {
  const outputs: OutputDifference[] = [];
  let distribution: LogitsDifference | null = null;
  for (const [name, a] of reference) {
    const b = candidate.get(name);
    if (!b) continue;
    checkAlike(name, a, b);
    const left = toFloat32(a);
    const right = toFloat32(b);
    outputs.push(difference(name, left, right));
    if (name === logits) distribution = compareLogits(left, right, a.dims[a.dims.length - 1] ?? 0);
  }
  if (outputs.length === 0)
    throw runtimeErrors.notComparable([...reference.keys()].join(', '), 'the other model has no such output');
  return {
    outputs,
    logits: distribution,
    onlyReference: [...reference.keys()].filter((name) => !candidate.has(name)),
    onlyCandidate: [...candidate.keys()].filter((name) => !reference.has(name)),
  };
}

function checkAlike(name: string, a: HostTensor, b: HostTensor): void {
  if (a.dims.join() !== b.dims.join())
    throw runtimeErrors.notComparable(name, `its shape is [${a.dims}] and [${b.dims}]`);
  // The same scores in another precision are comparable; indices and scores are not.
  if (a.dtype !== b.dtype && !(isFloat(a.dtype) && isFloat(b.dtype)))
    throw runtimeErrors.notComparable(name, `its type is ${a.dtype} and ${b.dtype}`);
}

/** Sums in float64. Elements that are not finite on either side are counted and left out of the sums. */
function difference(name: string, a: Float32Array, b: Float32Array): OutputDifference {
  let absolute = 0;
  let distance = 0;
  let normA = 0;
  let normB = 0;
  let dot = 0;
  let badA = 0;
  let badB = 0;
  let broken = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    const finiteX = Number.isFinite(x);
    const finiteY = Number.isFinite(y);
    if (!finiteX || !finiteY) {
      if (!finiteX) badA++;
      if (!finiteY) badB++;
      if (!finiteY && !Object.is(x, y)) broken++;
      continue;
    }
    const gap = x - y;
    if (Math.abs(gap) > absolute) absolute = Math.abs(gap);
    distance += gap * gap;
    normA += x * x;
    normB += y * y;
    dot += x * y;
  }
  const relative = distance === 0 ? 0 : Math.sqrt(distance / normA);
  const cosine = normA === 0 && normB === 0 ? 1 : normA === 0 || normB === 0 ? 0 : dot / Math.sqrt(normA * normB);
  return {
    name,
    elements: a.length,
    absolute: broken ? Number.POSITIVE_INFINITY : absolute,
    relative: broken ? Number.POSITIVE_INFINITY : relative,
    cosine: broken ? 0 : Math.min(1, cosine),
    nonFinite: [badA, badB],
    broken,
  };
}

/** Compares rows of `width` scores. Rows with NaN or +Infinity on either side are left out (`difference` reports them). */
export function compareLogits(
  reference: Float32Array,
  candidate: Float32Array,
  width: number,
): LogitsDifference | null {
  let positions = 0;
  let agree = 0;
  let sum = 0;
  let max = 0;
  for (let start = 0; width > 0 && start + width <= reference.length; start += width) {
    const row = compareRow(reference, start, candidate, start, width);
    if (row === null) continue;
    positions++;
    if (row.rank === 0) agree++;
    sum += row.kl;
    if (row.kl > max) max = row.kl;
  }
  return positions === 0 ? null : { positions, top1: agree / positions, meanKl: sum / positions, maxKl: max };
}

/** Two next-token distributions of one position. */
export interface RowDifference {
  /** KL(reference || candidate) in nats. */
  readonly kl: number;
  /** sum of min(p, q): how often speculative sampling takes a token drafted by the candidate (arXiv 2211.17192). */
  readonly overlap: number;
  /** Place of the candidate's most likely token among the reference's: 0 where both agree. */
  readonly rank: number;
  /** log of the sum of exponentials: a score minus it is the log-probability of its token. */
  readonly normalisers: readonly [reference: number, candidate: number];
}

/**
 * Compares one row of `width` scores, at `a` in the reference and at `b` in the candidate; null when a score is NaN or
 * +Infinity on either side, or all are -Infinity.
 */
export function compareRow(
  reference: Float32Array,
  a: number,
  candidate: Float32Array,
  b: number,
  width: number,
): RowDifference | null {
  const left = logNormaliser(reference, a, width);
  const right = logNormaliser(candidate, b, width);
  if (!Number.isFinite(left) || !Number.isFinite(right)) return null;
  const best = argmax(candidate, b, width);
  const score = reference[a + best] as number;
  let kl = 0;
  let overlap = 0;
  let rank = 0;
  for (let i = 0; i < width; i++) {
    const value = reference[a + i] as number;
    // Among equals the lowest id comes first, as in `argmax`.
    if (value > score || (value === score && i < best)) rank++;
    const p = value - left;
    // A token that the reference rules out (-Infinity) contributes nothing.
    if (p === Number.NEGATIVE_INFINITY) continue;
    const q = (candidate[b + i] as number) - right;
    const share = Math.exp(p);
    kl += share * (p - q);
    overlap += q < p ? Math.exp(q) : share;
  }
  // Rounding may leave a hair below zero, where KL never is, or above one.
  return { kl: Math.max(0, kl), overlap: Math.min(1, overlap), rank, normalisers: [left, right] };
}

/** log of the sum of exponentials, in float64, shifted by the maximum so that nothing overflows. */
export function logNormaliser(values: Float32Array, start: number, width: number): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = start; i < start + width; i++) {
    const value = values[i] as number;
    if (Number.isNaN(value)) return Number.NaN;
    if (value > max) max = value;
  }
  let sum = 0;
  for (let i = start; i < start + width; i++) sum += Math.exp((values[i] as number) - max);
  return max + Math.log(sum);
}
