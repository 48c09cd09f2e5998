/**
 * How linear an attention is, and the map that stands for it, as in Neural Block Linearization (NBL, arXiv 2505.21077, and its
 * authors' program): with x the normed input, a what the attention adds and y = x + a,
 *
 *     loss = sum (1 - rho_i^2) = d - tr(Cyy^-1 Cyx Cxx^-1 Cxy)       W = Cxx^-1 Cxa,  b = E[a] - E[x] W
 *
 * where rho are the canonical correlations of x and y. All rows count alike, and nothing is held back: it is here to be compared
 * with. Covariances are float64.
 */
import type { LinearMap } from '../stream/runner.js';
import { blockOf, type DoubleMatrix, type Products, transposed } from './products.js';
import { factorise, substitute } from './solve.js';

/** Rows of [rows, hidden] at a branch: what it reads, normed, and what it adds. */
export interface BranchRows {
  readonly normed: Float32Array;
  readonly added: Float32Array;
}

export interface CanonicalFit {
  /** Between 0, all of y follows from x, and d. */
  readonly loss: number;
  readonly map: LinearMap;
}

/** Of all rows together. Null where the inputs do not span all channels: there are too few rows. */
export async function canonicalFit(
  parts: AsyncIterable<BranchRows>,
  hidden: number,
  products: Products,
): Promise<CanonicalFit | null> {
  const width = 2 * hidden + 1;
  let sums: DoubleMatrix = { data: new Float64Array(width * width), rows: width, columns: width };
  for await (const { normed, added } of parts) {
    const rows = rowsOf(normed, added, hidden);
    const turned = transposed(rows);
    for (let i = 0; i < turned.data.length; i++) turned.data[i] = -(turned.data[i] as number);
    sums = await products.subtract(sums, turned, rows);
  }
  const { data } = sums;
  const last = (width - 1) * width;
  const count = data[width * width - 1] as number;
  const mean = (i: number): number => (data[last + i] as number) / count;
  for (let i = 0; i < width - 1; i++) {
    for (let j = 0; j < width - 1; j++)
      data[i * width + j] = (data[i * width + j] as number) / count - mean(i) * mean(j);
  }
  const [x, y] = [blockOf(sums, 0, hidden, 0, hidden), blockOf(sums, hidden, 2 * hidden, hidden, 2 * hidden)];
  const [xy, yx] = [blockOf(sums, 0, hidden, hidden, 2 * hidden), blockOf(sums, hidden, 2 * hidden, 0, hidden)];
  if (!(await factorise(x, products)) || !(await factorise(y, products))) return null;
  await substitute(x, xy, products);
  // xy is now what gives y of x: W and the identity.
  const zeros = { ...yx, data: new Float64Array(yx.data.length) };
  const explained = await products.subtract(zeros, yx, xy);
  await substitute(y, explained, products);
  let loss = hidden;
  for (let i = 0; i < hidden; i++) loss += explained.data[i * hidden + i] as number;
  const weight = Float32Array.from(xy.data);
  const bias = Float32Array.from({ length: hidden }, (_, j) => mean(hidden + j));
  for (let i = 0; i < hidden; i++) {
    for (let j = 0; j < hidden; j++) bias[j] = (bias[j] as number) - mean(i) * (xy.data[i * hidden + j] as number);
    weight[i * hidden + i] = (xy.data[i * hidden + i] as number) - 1;
  }
  return { loss, map: { weight, bias } };
}

/** [x, x + a, 1] of each row. */
function rowsOf(normed: Float32Array, added: Float32Array, hidden: number): DoubleMatrix {
  const [rows, columns] = [normed.length / hidden, 2 * hidden + 1];
  const data = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < hidden; c++) {
      const x = normed[row * hidden + c] as number;
      data[row * columns + c] = x;
      data[row * columns + hidden + c] = x + (added[row * hidden + c] as number);
    }
    data[(row + 1) * columns - 1] = 1;
  }
  return { data, rows, columns };
}
