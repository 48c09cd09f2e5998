/**
 * Solves (G + ridge) W = C for symmetric positive G by Cholesky's factorisation, in float64, blocked so that a block stays
 * in the cache. d = 576 takes about a quarter of a second.
 */

/** Rows and columns of a block. */
const BLOCK = 64;

/**
 * The lower factor L of a symmetric positive definite matrix (row-major [n, n], L L^T = matrix), in place: only the lower
 * triangle is read and written. Returns false where the matrix is not positive definite.
 */
export function factorise(matrix: Float64Array, n: number): boolean {
  for (let k = 0; k < n; k += BLOCK) {
    const end = Math.min(k + BLOCK, n);
    // The block column: what the earlier columns explain has been taken off already.
    for (let j = k; j < end; j++) {
      const row = j * n;
      let pivot = matrix[row + j] as number;
      for (let p = k; p < j; p++) pivot -= (matrix[row + p] as number) ** 2;
      if (!(pivot > 0)) return false;
      const root = Math.sqrt(pivot);
      matrix[row + j] = root;
      for (let i = j + 1; i < n; i++) {
        const other = i * n;
        let sum = matrix[other + j] as number;
        for (let p = k; p < j; p++) sum -= (matrix[other + p] as number) * (matrix[row + p] as number);
        matrix[other + j] = sum / root;
      }
    }
    subtractProducts(matrix, n, k, end);
  }
  return true;
}

/** Takes the product of block column [k, end) with itself off what is right of and below it. */
function subtractProducts(matrix: Float64Array, n: number, k: number, end: number): void {
  const width = end - k;
  for (let i = end; i < n; i++) {
    const a = i * n + k;
    const stop = i + 1;
    let j = end;
    // Four rows at a time: the row of i is loaded once for all of them.
    for (; j + 3 < stop; j += 4) {
      const [b0, b1, b2, b3] = [j * n + k, (j + 1) * n + k, (j + 2) * n + k, (j + 3) * n + k];
      let [s0, s1, s2, s3] = [0, 0, 0, 0];
      for (let p = 0; p < width; p++) {
        const x = matrix[a + p] as number;
        s0 += x * (matrix[b0 + p] as number);
        s1 += x * (matrix[b1 + p] as number);
        s2 += x * (matrix[b2 + p] as number);
        s3 += x * (matrix[b3 + p] as number);
      }
      const at = i * n + j;
      matrix[at] = (matrix[at] as number) - s0;
      matrix[at + 1] = (matrix[at + 1] as number) - s1;
      matrix[at + 2] = (matrix[at + 2] as number) - s2;
      matrix[at + 3] = (matrix[at + 3] as number) - s3;
    }
    for (; j < stop; j++) {
      const b = j * n + k;
      let sum = 0;
      for (let p = 0; p < width; p++) sum += (matrix[a + p] as number) * (matrix[b + p] as number);
      matrix[i * n + j] = (matrix[i * n + j] as number) - sum;
    }
  }
}

/** Solves L L^T X = B in place; B is row-major [n, columns], L as `factorise` left it. */
export function substitute(factor: Float64Array, n: number, b: Float64Array, columns: number): void {
  // Column panels stay in the cache while all rows pass by.
  for (let from = 0; from < columns; from += BLOCK) {
    const to = Math.min(from + BLOCK, columns);
    for (let i = 0; i < n; i++) {
      const row = i * columns;
      for (let p = 0; p < i; p++) subtractRow(b, row, p * columns, factor[i * n + p] as number, from, to);
      const pivot = factor[i * n + i] as number;
      for (let c = from; c < to; c++) b[row + c] = (b[row + c] as number) / pivot;
    }
    for (let i = n - 1; i >= 0; i--) {
      const row = i * columns;
      const pivot = factor[i * n + i] as number;
      for (let c = from; c < to; c++) b[row + c] = (b[row + c] as number) / pivot;
      // Row i is done: it leaves the rows above.
      for (let p = 0; p < i; p++) subtractRow(b, p * columns, row, factor[i * n + p] as number, from, to);
    }
  }
}

function subtractRow(b: Float64Array, row: number, other: number, factor: number, from: number, to: number): void {
  for (let c = from; c < to; c++) b[row + c] = (b[row + c] as number) - factor * (b[other + c] as number);
}
