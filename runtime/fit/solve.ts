/**
 * Solves (G + ridge) W = C for symmetric positive G by Cholesky's factorisation, in float64. Blocks on the diagonal are done
 * here; the products between blocks, which are nearly all of the work, by onnxruntime (products.ts).
 */
import { blockOf, type DoubleMatrix, type Products, putBlock, transposed } from './products.js';

/** Rows and columns of a block. */
const BLOCK = 128;

/**
 * The lower factor L of a symmetric positive definite matrix (L L^T = matrix), in place: only the lower triangle is read, and
 * what is above it means nothing afterwards. Returns false where the matrix is not positive definite.
 */
export async function factorise(matrix: DoubleMatrix, products: Products): Promise<boolean> {
  const { rows: n } = matrix;
  for (let k = 0; k < n; k += BLOCK) {
    const end = Math.min(k + BLOCK, n);
    // What the earlier columns explain is taken off the block column.
    if (k > 0) {
      const before = blockOf(matrix, k, n, 0, k);
      const own = transposed(blockOf(matrix, k, end, 0, k));
      putBlock(matrix, k, k, await products.subtract(blockOf(matrix, k, n, k, end), before, own));
    }
    if (!factoriseColumn(matrix, k, end)) return false;
  }
  return true;
}

/** Columns [k, end), from the diagonal down. */
function factoriseColumn({ data, rows: n }: DoubleMatrix, k: number, end: number): boolean {
  for (let j = k; j < end; j++) {
    const row = j * n;
    let pivot = data[row + j] as number;
    for (let p = k; p < j; p++) pivot -= (data[row + p] as number) ** 2;
    if (!(pivot > 0)) return false;
    const root = Math.sqrt(pivot);
    data[row + j] = root;
    for (let i = j + 1; i < n; i++) {
      const other = i * n;
      let sum = data[other + j] as number;
      for (let p = k; p < j; p++) sum -= (data[other + p] as number) * (data[row + p] as number);
      data[other + j] = sum / root;
    }
  }
  return true;
}

/** Solves L L^T X = B in place, with L as `factorise` left it. */
export async function substitute(factor: DoubleMatrix, b: DoubleMatrix, products: Products): Promise<void> {
  const { rows: n } = factor;
  for (let k = 0; k < n; k += BLOCK) {
    const end = Math.min(k + BLOCK, n);
    if (k > 0) {
      const known = blockOf(b, 0, k, 0, b.columns);
      const own = blockOf(b, k, end, 0, b.columns);
      putBlock(b, k, 0, await products.subtract(own, blockOf(factor, k, end, 0, k), known));
    }
    for (let i = k; i < end; i++) {
      for (let p = k; p < i; p++) subtractRow(b, i, p, factor.data[i * n + p] as number);
      divideRow(b, i, factor.data[i * n + i] as number);
    }
  }
  for (let k = Math.floor((n - 1) / BLOCK) * BLOCK; k >= 0; k -= BLOCK) {
    const end = Math.min(k + BLOCK, n);
    if (end < n) {
      const known = blockOf(b, end, n, 0, b.columns);
      const own = blockOf(b, k, end, 0, b.columns);
      putBlock(b, k, 0, await products.subtract(own, transposed(blockOf(factor, end, n, k, end)), known));
    }
    for (let i = end - 1; i >= k; i--) {
      for (let p = i + 1; p < end; p++) subtractRow(b, i, p, factor.data[p * n + i] as number);
      divideRow(b, i, factor.data[i * n + i] as number);
    }
  }
}

/** Row i minus `factor` times row p. */
function subtractRow({ data, columns }: DoubleMatrix, i: number, p: number, factor: number): void {
  const [to, from] = [i * columns, p * columns];
  for (let c = 0; c < columns; c++) data[to + c] = (data[to + c] as number) - factor * (data[from + c] as number);
}

function divideRow({ data, columns }: DoubleMatrix, i: number, by: number): void {
  for (let c = i * columns; c < (i + 1) * columns; c++) data[c] = (data[c] as number) / by;
}
