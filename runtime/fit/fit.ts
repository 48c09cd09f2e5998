/** Fits the linear map that stands best for a branch that goes: ridge regression, judged on text that it was not fitted on. */
import { type MapBits, quantise } from '../stream/map-blocks.js';
import type { LinearMap } from '../stream/runner.js';
import type { Gram } from './gram.js';
import { type LowRank, lowerRank } from './low-rank.js';
import type { DoubleMatrix, Products } from './products.js';
import { factorise, substitute } from './solve.js';

/** Ridges that are tried, in parts of the mean diagonal of the Gram matrix. */
export const RIDGES: readonly number[] = [0.01, 0.03, 0.1, 0.3];

export interface Fit {
  /** What stands in the place of the branch: a map with a bias, a bias alone, or nothing. */
  readonly kind: 'map' | 'bias' | 'nothing';
  readonly map: LinearMap | null;
  /** The ridge of the map, in parts of the mean diagonal; null where there is none. */
  readonly ridge: number | null;
  /**
   * What is left of the relative squared error that removing the branch makes (1 is all of it), on text that the fit did
   * not see: of the best map, and of a bias alone.
   */
  readonly unseen: { readonly map: number; readonly bias: number };
}

export interface FitOptions {
  /** In parts of the mean diagonal; all of RIDGES by default. */
  readonly ridges?: readonly number[];
  /** What was found best is fitted again, on the text it was judged by, too. */
  readonly onAll?: boolean;
  /** The matrix is rounded to blocks of so many bits. */
  readonly bits?: MapBits | null;
  /** The matrix is of this rank at most, as a product of two; else of any. */
  readonly rank?: number | null;
}

/** The best of map, bias and nothing by `unseen`; maps are fitted on `seen`. */
export async function fitMap(
  seen: Gram,
  unseen: Gram,
  products: Products,
  { ridges = RIDGES, onAll = false, bits = null, rank = null }: FitOptions = {},
): Promise<Fit> {
  const { hidden } = seen;
  const bias = biasOf(seen);
  const biasError = unseen.relativeErrorOfBias(bias.subarray(hidden * hidden));
  let best: { found: Solution; ridge: number; error: number } | null = null;
  for (const ridge of ridges) {
    const found = await solveFor(seen, ridge, rank, products);
    if (!found) continue;
    const error = await unseen.relativeError(found.map, products);
    if (best && error > best.error) break;
    best = { found, ridge, error };
  }
  const errors = { map: best?.error ?? Number.POSITIVE_INFINITY, bias: biasError };
  const all = onAll ? seen.plus(unseen) : null;
  if (best && errors.map < Math.min(1, errors.bias)) {
    const again = all && (await solveFor(all, best.ridge, rank, products));
    const map = mapOf(again ?? best.found, hidden);
    const stored = bits === null ? map : { ...map, ...quantise(map.weight, hidden, bits) };
    return { kind: 'map', map: stored, ridge: best.ridge, unseen: errors };
  }
  if (errors.bias < 1)
    return { kind: 'bias', map: parts(all ? biasOf(all) : bias, hidden), ridge: null, unseen: errors };
  return { kind: 'nothing', map: null, ridge: null, unseen: errors };
}

/** The map, [hidden + 1, hidden], and the two matrices whose product it is where its rank was asked for. */
type Solution = Pick<LowRank, 'map'> & Partial<LowRank>;

async function solveFor(gram: Gram, ridge: number, rank: number | null, products: Products): Promise<Solution | null> {
  const map = await solveRidge(gram, ridge, products);
  if (!map) return null;
  return rank === null ? { map } : lowerRank(map, gram, rank, products);
}

/** W of (G + ridge mean(diag) I) W = C, [hidden + 1, hidden]; the bias has no ridge. Null where G is not positive. */
export async function solveRidge(gram: Gram, ridge: number, products: Products): Promise<DoubleMatrix | null> {
  const { hidden, inputs, targets } = gram;
  const size = hidden + 1;
  let trace = 0;
  for (let i = 0; i < hidden; i++) trace += inputs[i * size + i] as number;
  const matrix = { ...gram.inputMatrix, data: Float64Array.from(inputs) };
  for (let i = 0; i < hidden; i++) {
    matrix.data[i * size + i] = (matrix.data[i * size + i] as number) + (ridge * trace) / hidden;
  }
  if (!(await factorise(matrix, products))) return null;
  const map = { ...gram.targetMatrix, data: Float64Array.from(targets) };
  await substitute(matrix, map, products);
  return map;
}

/** The weighted mean of what is to be added, as a map whose weight is zero. */
function biasOf({ hidden, inputs, targets }: Gram): Float64Array {
  const size = hidden + 1;
  const map = new Float64Array(size * hidden);
  const total = inputs[size * size - 1] as number;
  for (let c = 0; c < hidden; c++) map[hidden * hidden + c] = (targets[hidden * hidden + c] as number) / total;
  return map;
}

function mapOf({ map, left, right }: Solution, hidden: number): LinearMap {
  const whole = parts(map.data, hidden);
  if (!left || !right) return whole;
  const factors = { rank: right.rows, left: Float32Array.from(left.data), right: Float32Array.from(right.data) };
  return { ...whole, factors };
}

function parts(map: Float64Array, hidden: number): LinearMap {
  return {
    weight: Float32Array.from(map.subarray(0, hidden * hidden)),
    bias: Float32Array.from(map.subarray(hidden * hidden)),
  };
}
