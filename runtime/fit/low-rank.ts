/**
 * Reduced-rank ridge regression (Izenman, Journal of Multivariate Analysis 5, 1975; with a ridge Mukherjee and Zhu, Statistical
 * Analysis and Data Mining 4, 2011). With W the ridge solution, [hidden, hidden], and G the Gram matrix of the centred inputs
 * plus the ridge, every other map V with the bias that is best for it makes, the ridge's share included,
 *
 *     error(V) = error(W) + tr (V - W)^T G (V - W)
 *
 * so that the best V of rank R is W P P^T, where P [hidden, R] are the leading eigenvectors of W^T G W: those of what W
 * gives, and not the singular vectors of W, which know nothing of the inputs. Since G W = C, with C the centred targets,
 * W^T G W = W^T C, and G itself is not needed.
 *
 * P comes from subspace iteration, P^T <- orthonormal rows of P^T M, whose products are onnxruntime's. It ends when a step
 * explains no more: directions that are still to be told apart by then are worth the same.
 */
import { normal } from '../run/random.js';
import type { Gram } from './gram.js';
import { blockOf, type DoubleMatrix, type Products, putBlock, transposed } from './products.js';

/** A map of low rank. */
export interface LowRank {
  /** The product of both and the bias below it, [hidden + 1, hidden]. */
  readonly map: DoubleMatrix;
  /** [hidden, rank]. */
  readonly left: DoubleMatrix;
  /** [rank, hidden], orthonormal rows. */
  readonly right: DoubleMatrix;
}

/** The best map of rank `rank` by the sums in `gram`, given the ridge solution of all ranks, [hidden + 1, hidden]. */
export async function lowerRank(full: DoubleMatrix, gram: Gram, rank: number, products: Products): Promise<LowRank> {
  const { hidden } = gram;
  const weight = blockOf(full, 0, hidden, 0, hidden);
  const explained = await products.multiply(transposed(weight), centredTargets(gram));
  const right = await leadingRows(explained, rank, products);
  const left = await products.multiply(weight, transposed(right));
  const map = { ...full, data: new Float64Array(full.data.length) };
  putBlock(map, 0, 0, await products.multiply(left, right));
  map.data.set(biasFor(map, gram), hidden * hidden);
  return { map, left, right };
}

/** C - g t^T / n, [hidden, hidden], with g and t the sums of inputs and targets and n that of the weights of rows. */
function centredTargets({ hidden, inputs, targets }: Gram): DoubleMatrix {
  const data = targets.slice(0, hidden * hidden);
  const count = inputs[inputs.length - 1] as number;
  for (let i = 0; i < hidden; i++) {
    const mean = (inputs[i * (hidden + 1) + hidden] as number) / count;
    for (let j = 0; j < hidden; j++) {
      data[i * hidden + j] = (data[i * hidden + j] as number) - mean * (targets[hidden * hidden + j] as number);
    }
  }
  return { data, rows: hidden, columns: hidden };
}

/** The bias that is best for a matrix, [hidden]: the mean target less what the matrix makes of the mean input. */
function biasFor(map: DoubleMatrix, { hidden, inputs, targets }: Gram): Float64Array {
  const count = inputs[inputs.length - 1] as number;
  const bias = targets.slice(hidden * hidden).map((sum) => sum / count);
  for (let i = 0; i < hidden; i++) {
    const mean = (inputs[i * (hidden + 1) + hidden] as number) / count;
    for (let j = 0; j < hidden; j++) bias[j] = (bias[j] as number) - mean * (map.data[i * hidden + j] as number);
  }
  return bias;
}

/** Of the trace: what a step must explain beyond the step before it. */
const LEAST_GAIN = 1e-7;
const MOST_STEPS = 100;
const SEED = 1;

/** Orthonormal rows [count, n] that span the leading eigenvectors of a symmetric matrix [n, n] without negative eigenvalues. */
export async function leadingRows(matrix: DoubleMatrix, count: number, products: Products): Promise<DoubleMatrix> {
  const data = Float64Array.from({ length: count * matrix.columns }, (_, i) => normal(SEED, i));
  let rows: DoubleMatrix = { data, rows: count, columns: matrix.columns };
  await orthonormalise(rows, products);
  let before = 0;
  for (let step = 0; step < MOST_STEPS; step++) {
    const next = await products.multiply(rows, matrix);
    const trace = dot(rows.data, next.data);
    if (step > 0 && trace - before <= LEAST_GAIN * trace) break;
    before = trace;
    await orthonormalise(next, products);
    rows = next;
  }
  return rows;
}

/** Rows that are orthonormalised against each other here; those before them are taken off in one product. */
const BLOCK = 32;
/** Of its length: what of a row is nothing but rounding. */
const ROUNDING = 1e-10;

/** Makes the rows orthonormal, in place, by Gram-Schmidt in blocks, twice; rows that depend on those before become zero. */
export async function orthonormalise(matrix: DoubleMatrix, products: Products): Promise<void> {
  const { data, rows, columns } = matrix;
  const row = (i: number): Float64Array => data.subarray(i * columns, (i + 1) * columns);
  for (let top = 0; top < rows; top += BLOCK) {
    const end = Math.min(top + BLOCK, rows);
    for (let pass = 0; pass < 2; pass++) {
      const lengths = Array.from({ length: end - top }, (_, i) => Math.sqrt(dot(row(top + i), row(top + i))));
      if (top > 0) {
        const [before, own] = [blockOf(matrix, 0, top, 0, columns), blockOf(matrix, top, end, 0, columns)];
        const shares = await products.multiply(own, transposed(before));
        putBlock(matrix, top, 0, await products.subtract(own, shares, before));
      }
      for (let i = top; i < end; i++) {
        const own = row(i);
        for (let j = top; j < i; j++) addTo(own, row(j), -dot(own, row(j)));
        const length = Math.sqrt(dot(own, own));
        const isNothing = length <= ROUNDING * (lengths[i - top] as number);
        for (let c = 0; c < columns; c++) own[c] = isNothing ? 0 : (own[c] as number) / length;
      }
    }
  }
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

/** `to` plus `factor` times `row`. */
function addTo(to: Float64Array, row: Float64Array, factor: number): void {
  for (let i = 0; i < to.length; i++) to[i] = (to[i] as number) + factor * (row[i] as number);
}
