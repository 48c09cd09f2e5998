/** Maps of low rank: the best there is by the error of what they give, held against eigenvectors that are worked out plainly. */
import * as assert from 'uvu/assert';
import { fitMap, solveRidge } from '../../../runtime/fit/fit.js';
import { Gram } from '../../../runtime/fit/gram.js';
import { leadingRows, lowerRank, orthonormalise } from '../../../runtime/fit/low-rank.js';
import { type DoubleMatrix, Products, transposed } from '../../../runtime/fit/products.js';
import { normal } from '../../../runtime/run/random.js';
import { suite } from '../../helpers/suite.js';

const test = suite('runtime: maps of low rank');

const products = new Products();
test.after(() => products.release());

const [HIDDEN, ROWS] = [24, 2000];

const random = (seed: number, rows: number, columns: number): DoubleMatrix => ({
  data: Float64Array.from({ length: rows * columns }, (_, i) => normal(seed, i)),
  rows,
  columns,
});

/** Sums over inputs whose channels differ much in size, around other means than 0, and what `map` [hidden, hidden] makes of them. */
function gramOf(seed: number, map: DoubleMatrix, noise: number): Gram {
  const [x, e] = [random(seed, ROWS, HIDDEN), random(seed + 1, ROWS, HIDDEN)];
  const [g, c] = [new Float64Array((HIDDEN + 1) ** 2), new Float64Array((HIDDEN + 1) * HIDDEN)];
  let error = 0;
  for (let row = 0; row < ROWS; row++) {
    const own = Array.from({ length: HIDDEN }, (_, i) => (x.data[row * HIDDEN + i]! + (i % 3)) * 0.7 ** i).concat(1);
    const target = Array.from({ length: HIDDEN }, (_, j) => {
      let sum = 0.5 * j + noise * e.data[row * HIDDEN + j]!;
      for (let i = 0; i < HIDDEN; i++) sum += own[i]! * map.data[i * HIDDEN + j]!;
      return sum;
    });
    for (const [i, value] of own.entries()) {
      for (const [j, other] of own.entries()) g[i * (HIDDEN + 1) + j]! += value * other;
      for (const [j, other] of target.entries()) c[i * HIDDEN + j]! += value * other;
    }
    for (const value of target) error += value * value;
  }
  const gram = new Gram(HIDDEN);
  gram.add(g, c, error, ROWS);
  return gram;
}

/** The eigenvalues of a symmetric matrix, largest first, by Jacobi's rotations. */
function eigenvalues({ data, rows: n }: DoubleMatrix): number[] {
  const a = Float64Array.from(data);
  for (let sweep = 0; sweep < 30; sweep++) {
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const angle = 0.5 * Math.atan2(2 * a[p * n + q]!, a[q * n + q]! - a[p * n + p]!);
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        for (let k = 0; k < n; k++) {
          const [x, y] = [a[k * n + p]!, a[k * n + q]!];
          a[k * n + p] = cos * x - sin * y;
          a[k * n + q] = sin * x + cos * y;
        }
        for (let k = 0; k < n; k++) {
          const [x, y] = [a[p * n + k]!, a[q * n + k]!];
          a[p * n + k] = cos * x - sin * y;
          a[q * n + k] = sin * x + cos * y;
        }
      }
    }
  }
  return Array.from({ length: n }, (_, i) => a[i * n + i]!).sort((x, y) => y - x);
}

const worstOf = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));

test('rows become orthonormal over the borders of blocks, and those that depend on others zero', async () => {
  for (const [rows, columns, rank] of [
    [5, 9, 5],
    [70, 80, 70],
    [70, 80, 40],
    [33, 33, 1],
  ] as const) {
    const matrix = await products.multiply(random(3, rows, rank), random(4, rank, columns));
    await orthonormalise(matrix, products);
    const { data } = await products.multiply(matrix, transposed(matrix));
    let left = 0;
    for (let i = 0; i < rows; i++) {
      const isZero = data[i * rows + i] === 0;
      if (!isZero) left++;
      for (let j = 0; j < rows; j++) {
        const expected = i === j && !isZero ? 1 : 0;
        assert.ok(Math.abs(data[i * rows + j]! - expected) < 1e-12, `${i}, ${j}: ${data[i * rows + j]}`);
      }
    }
    assert.is(left, rank);
  }
});

test('leading rows explain what the leading eigenvectors do, also of equal and of few eigenvalues', async () => {
  const n = 60;
  const basis = random(7, n, n);
  await orthonormalise(basis, products);
  for (const value of [
    (i: number) => 0.8 ** i,
    (i: number) => 1 / (i + 1),
    (i: number) => (i < 10 ? 2 : 1),
    (i: number) => (i < 3 ? 1 : 0),
  ]) {
    const scaled = { ...basis, data: basis.data.map((each, at) => each * value(Math.floor(at / n))) };
    const matrix = await products.multiply(transposed(basis), scaled);
    for (const count of [1, 10, 40]) {
      const rows = await leadingRows(matrix, count, products);
      const { data } = await products.multiply(rows, matrix);
      const trace = data.reduce((sum, each, i) => sum + each * rows.data[i]!, 0);
      const best = Array.from({ length: count }, (_, i) => value(i)).reduce((sum, each) => sum + each, 0);
      assert.ok(Math.abs(trace / best - 1) < 1e-5, `${count}: ${trace} of ${best}`);
    }
  }
});

test('a map of a known rank is found exactly, with its bias', async () => {
  const map = await products.multiply(random(11, HIDDEN, 3), random(12, 3, HIDDEN));
  const [seen, unseen] = [gramOf(21, map, 0), gramOf(31, map, 0)];
  const fit = await fitMap(seen, unseen, products, { ridges: [1e-12], rank: 3 });
  assert.is(fit.kind, 'map');
  assert.ok(Math.abs(fit.unseen.map) < 1e-9, `${fit.unseen.map}`);
  const { weight, bias, factors } = fit.map!;
  assert.equal([factors?.rank, factors?.left.length, factors?.right.length], [3, 3 * HIDDEN, 3 * HIDDEN]);
  const double = (data: Float32Array, rows: number): DoubleMatrix => ({
    data: Float64Array.from(data),
    rows,
    columns: data.length / rows,
  });
  const product = await products.multiply(double(factors!.left, HIDDEN), double(factors!.right, 3));
  assert.ok(worstOf(product.data, weight) < 1e-5);
  assert.ok(worstOf(weight, map.data) < 1e-3, `${worstOf(weight, map.data)}`);
  assert.ok(
    worstOf(
      bias,
      Float64Array.from(bias, (_, j) => 0.5 * j),
    ) < 1e-3,
  );
});

test('no map of the rank is better: what is lost is the rest of the eigenvalues, less than that of the truncated matrix', async () => {
  const gram = gramOf(41, random(13, HIDDEN, HIDDEN), 0.5);
  const ridge = 1e-9;
  const full = (await solveRidge(gram, ridge, products))!;
  const weight = { ...full, data: full.data.slice(0, HIDDEN * HIDDEN), rows: HIDDEN };
  const errorOf = async (map: DoubleMatrix): Promise<number> => (await gram.relativeError(map, products)) * gram.error;
  const least = await errorOf(full);
  // Of what the map gives, centred: W^T G W with G = sum (x - mean) (x - mean)^T.
  const centred = new Float64Array(HIDDEN * HIDDEN);
  const sum = (i: number, j: number): number => gram.inputs[i * (HIDDEN + 1) + j]!;
  for (let i = 0; i < HIDDEN; i++) {
    for (let j = 0; j < HIDDEN; j++)
      centred[i * HIDDEN + j] = sum(i, j) - (sum(i, HIDDEN) * sum(j, HIDDEN)) / sum(HIDDEN, HIDDEN);
  }
  const given = await products.multiply({ ...weight, data: centred }, weight);
  const values = eigenvalues(await products.multiply(transposed(weight), given));
  const gramOfWeight = await products.multiply(transposed(weight), weight);
  for (const rank of [1, 4, 11]) {
    const { map, left, right } = await lowerRank(full, gram, rank, products);
    assert.equal([left.rows, left.columns, right.rows, right.columns], [HIDDEN, rank, rank, HIDDEN]);
    const lost = (await errorOf(map)) - least;
    const rest = values.slice(rank).reduce((total, value) => total + value, 0);
    assert.ok(Math.abs(lost / rest - 1) < 1e-3, `rank ${rank}: ${lost} lost, where ${rest} has to be`);
    // The best matrix of this rank as such, with the bias that is best for it: what it gives is worse.
    const axes = await leadingRows(gramOfWeight, rank, products);
    const cut = await products.multiply(await products.multiply(weight, transposed(axes)), axes);
    const truncated = { ...full, data: new Float64Array(full.data.length) };
    truncated.data.set(cut.data);
    for (let j = 0; j < HIDDEN; j++) {
      let bias = gram.targets[HIDDEN * HIDDEN + j]!;
      for (let i = 0; i < HIDDEN; i++) bias -= sum(i, HIDDEN) * cut.data[i * HIDDEN + j]!;
      truncated.data[HIDDEN * HIDDEN + j] = bias / sum(HIDDEN, HIDDEN);
    }
    const other = (await errorOf(truncated)) - least;
    assert.ok(other > 1.2 * lost, `rank ${rank}: ${other} lost by truncation, ${lost} here`);
  }
});

test('a rank that holds everything gives the whole map', async () => {
  const gram = gramOf(51, random(14, HIDDEN, HIDDEN), 0.5);
  const full = (await solveRidge(gram, 0.01, products))!;
  const { map } = await lowerRank(full, gram, HIDDEN, products);
  assert.ok(worstOf(map.data, full.data) < 1e-9, `${worstOf(map.data, full.data)}`);
});

test('a map of rank 256 of 576 channels takes less than a few seconds', async () => {
  const [hidden, rank] = [576, 256];
  const rows = random(61, hidden, hidden);
  for (let i = 0; i < rows.data.length; i++) rows.data[i]! *= 1 / (1 + Math.floor(i / hidden));
  const matrix = await products.multiply(transposed(rows), rows);
  const start = performance.now();
  await leadingRows(matrix, rank, products);
  const seconds = (performance.now() - start) / 1000;
  assert.ok(seconds < 20, `${seconds} s`);
});

test.run();
