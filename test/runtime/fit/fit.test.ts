/** Least squares: the sums, the solver and the choice between map, bias and nothing, each against the plain formula. */
import * as assert from 'uvu/assert';
import { type BranchRows, canonicalFit } from '../../../runtime/fit/canonical.js';
import { fitMap, solveRidge } from '../../../runtime/fit/fit.js';
import { Gram, GramMachine } from '../../../runtime/fit/gram.js';
import { type DoubleMatrix, Products } from '../../../runtime/fit/products.js';
import { factorise, substitute } from '../../../runtime/fit/solve.js';
import { normal } from '../../../runtime/run/random.js';
import type { HostTensor } from '../../../runtime/session/tensor.js';
import { suite } from '../../helpers/suite.js';

const test = suite('runtime: fit');

/** Numbers of a normal distribution, the same for the same seed. */
const numbers = (seed: number, count: number): Float64Array => {
  return Float64Array.from({ length: count }, (_, i) => normal(seed, i));
};

const products = new Products();

test('a factorised matrix gives back what was multiplied, over the borders of blocks', async () => {
  for (const n of [1, 5, 127, 128, 129, 300]) {
    const a = numbers(1, n * n);
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        let sum = i === j ? n : 0;
        for (let p = 0; p < n; p++) sum += a[i * n + p]! * a[j * n + p]!;
        matrix[i * n + j] = sum;
      }
    }
    const [columns, x] = [7, numbers(2, n * 7)];
    const b = new Float64Array(n * columns);
    for (let i = 0; i < n; i++) {
      for (let c = 0; c < columns; c++) {
        for (let p = 0; p < n; p++) b[i * columns + c]! += matrix[i * n + p]! * x[p * columns + c]!;
      }
    }
    const factor = { data: matrix, rows: n, columns: n };
    assert.ok(await factorise(factor, products));
    await substitute(factor, { data: b, rows: n, columns }, products);
    const worst = Math.max(...b.map((value, i) => Math.abs(value - x[i]!)));
    assert.ok(worst < 1e-9, `${n}: ${worst}`);
  }
  const bad = { data: Float64Array.from([1, 2, 2, 1]), rows: 2, columns: 2 };
  assert.not(await factorise(bad, products), 'a matrix that is not positive');
});

const [ROWS, TOKENS, HIDDEN] = [9, 40, 6];

function tensor(values: Float64Array): HostTensor {
  return { dtype: 'float', dims: [ROWS, TOKENS, HIDDEN], data: Float32Array.from(values) };
}

/** Normed inputs, the student's stream, and a teacher's stream that a map of the inputs leads to, with noise. */
function text(seed: number, map: Float64Array, noise: number) {
  const [x, s, e] = [1, 2, 3].map((part) => numbers(10 * seed + part, ROWS * TOKENS * HIDDEN)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const t = s.map((value, i) => {
    const [row, c] = [Math.floor(i / HIDDEN), i % HIDDEN];
    let sum = value + noise * e[i]! + map[HIDDEN * HIDDEN + c]!;
    for (let p = 0; p < HIDDEN; p++) sum += x[row * HIDDEN + p]! * map[p * HIDDEN + c]!;
    return sum;
  });
  return { x, s, t };
}

async function gramOf({ x, s, t }: ReturnType<typeof text>): Promise<Gram> {
  const machine = new GramMachine({});
  const gram = new Gram(HIDDEN);
  await machine.add(gram, tensor(x), tensor(s), tensor(t));
  await machine.release();
  return gram;
}

test('sums are those of the formula, without the first token of each sequence', async () => {
  const data = text(1, numbers(5, (HIDDEN + 1) * HIDDEN), 0.1);
  const gram = await gramOf(data);
  assert.is(gram.rows, ROWS * (TOKENS - 1));
  const size = HIDDEN + 1;
  const [g, c] = [new Float64Array(size * size), new Float64Array(size * HIDDEN)];
  let error = 0;
  for (let row = 0; row < ROWS * TOKENS; row++) {
    if (row % TOKENS === 0) continue;
    const at = (values: Float64Array, i: number): number => values[row * HIDDEN + i]!;
    const own = [...Array(HIDDEN).keys()].map((i) => at(data.x, i)).concat(1);
    const mean = [...Array(HIDDEN).keys()].reduce((sum, i) => sum + at(data.t, i) ** 2, 0) / HIDDEN;
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) g[i * size + j]! += (own[i]! * own[j]!) / mean;
      for (let j = 0; j < HIDDEN; j++) c[i * HIDDEN + j]! += (own[i]! * (at(data.t, j) - at(data.s, j))) / mean;
    }
    for (let j = 0; j < HIDDEN; j++) error += (at(data.t, j) - at(data.s, j)) ** 2 / mean;
  }
  const off = (found: Float64Array, expected: Float64Array): number =>
    Math.max(...found.map((value, i) => Math.abs(value - expected[i]!))) / Math.max(...expected.map(Math.abs));
  assert.ok(
    off(gram.inputs, g) < 1e-5 && off(gram.targets, c) < 1e-5,
    `${off(gram.inputs, g)}, ${off(gram.targets, c)}`,
  );
  assert.ok(Math.abs(gram.error / error - 1) < 1e-5);
});

test('a map that is there is found, and what is left is the noise', async () => {
  const map = numbers(6, (HIDDEN + 1) * HIDDEN);
  const [seen, unseen] = [await gramOf(text(1, map, 0.05)), await gramOf(text(2, map, 0.05))];
  const fit = await fitMap(seen, unseen, products);
  assert.is(fit.kind, 'map');
  assert.is(fit.ridge, 0.01, 'with so little noise the least ridge is the best');
  const exact = ((await solveRidge(seen, 0, products)) as DoubleMatrix).data;
  const worst = Math.max(...exact.map((value, i) => Math.abs(value - map[i]!)));
  assert.ok(worst < 0.05, `${worst}`);
  assert.ok(fit.unseen.map < 0.02 && fit.unseen.bias > 0.5, `${fit.unseen.map}, ${fit.unseen.bias}`);
});

test('what was found best is fitted again on both texts, where that is asked for', async () => {
  const map = numbers(6, (HIDDEN + 1) * HIDDEN);
  const [seen, unseen] = [await gramOf(text(1, map, 0.3)), await gramOf(text(2, map, 0.3))];
  const [alone, all] = [await fitMap(seen, unseen, products), await fitMap(seen, unseen, products, { onAll: true })];
  assert.equal({ ...all, map: null }, { ...alone, map: null }, 'it is judged before');
  const both = (await solveRidge(seen.plus(unseen), all.ridge as number, products)) as DoubleMatrix;
  assert.equal(all.map?.weight, Float32Array.from(both.data.subarray(0, HIDDEN * HIDDEN)));
  assert.not.equal(all.map?.weight, alone.map?.weight);
  assert.is(seen.plus(unseen).rows, seen.rows + unseen.rows);
});

test('where only a bias helps on unseen text it stands alone, and where nothing helps there is nothing', async () => {
  const bias = new Float64Array((HIDDEN + 1) * HIDDEN).fill(2, HIDDEN * HIDDEN);
  // Another map in the unseen text: what was fitted does not hold there.
  const other = (seed: number): Float64Array => numbers(seed, (HIDDEN + 1) * HIDDEN).fill(2, HIDDEN * HIDDEN);
  const onlyBias = await fitMap(await gramOf(text(1, other(7), 0.1)), await gramOf(text(2, other(8), 0.1)), products);
  assert.is(onlyBias.kind, 'bias', JSON.stringify(onlyBias.unseen));
  assert.ok(onlyBias.map?.weight.every((value) => value === 0) && onlyBias.map.bias.every((value) => value > 1));
  const opposite = bias.map((value) => -value);
  const nothing = await fitMap(await gramOf(text(1, bias, 0.1)), await gramOf(text(2, opposite, 0.1)), products);
  assert.is(nothing.kind, 'nothing', JSON.stringify(nothing.unseen));
  assert.is(nothing.map, null);
});

test.after(() => products.release());

test('canonical correlations: nothing is lost of a linear branch, all of noise, and the map is least squares', async () => {
  const [rows, hidden] = [4000, 5];
  const x = numbers(21, rows * hidden);
  const w = numbers(22, hidden * hidden);
  const noise = numbers(23, rows * hidden);
  const made = (part: number): BranchRows => {
    const added = new Float32Array(rows * hidden);
    for (let row = 0; row < rows; row++) {
      for (let c = 0; c < hidden; c++) {
        let sum = 0.25 * c + part * noise[row * hidden + c]!;
        for (let i = 0; i < hidden; i++) sum += x[row * hidden + i]! * w[i * hidden + c]!;
        added[row * hidden + c] = sum;
      }
    }
    return { normed: Float32Array.from(x), added };
  };
  async function* parts(all: BranchRows): AsyncGenerator<BranchRows> {
    const half = (rows / 2) * hidden;
    yield { normed: all.normed.slice(0, half), added: all.added.slice(0, half) };
    yield { normed: all.normed.slice(half), added: all.added.slice(half) };
  }
  const exact = await canonicalFit(parts(made(0)), hidden, products);
  assert.ok(Math.abs(exact!.loss) < 1e-6, `${exact!.loss}`);
  for (let i = 0; i < w.length; i++) assert.ok(Math.abs(exact!.map.weight[i]! - w[i]!) < 1e-5);
  for (let c = 0; c < hidden; c++) assert.ok(Math.abs(exact!.map.bias[c]! - 0.25 * c) < 1e-5);
  // Where noise is all, what is left of y = x + a is independent of x but for chance: rho^2 is about 1 / rows.
  const lost = await canonicalFit(parts(made(1e4)), hidden, products);
  assert.ok(lost!.loss > 0.98 * hidden && lost!.loss <= hidden, `${lost!.loss}`);
  assert.is(
    await canonicalFit(parts({ normed: new Float32Array(rows * hidden), added: made(0).added }), hidden, products),
    null,
  );
});

test.run();
