import * as assert from 'uvu/assert';
import { fillTensor, type HostTensor, toFloat32 } from '../../../runtime/session/tensor.js';
import { compareLogits, compareOutputs } from '../../../runtime/verify/compare.js';
import { suite } from '../../helpers/suite.js';

const test = suite('runtime: compare');

const floats = (values: number[], dims = [1, values.length]): HostTensor => ({
  dtype: 'float',
  dims,
  data: Float32Array.from(values),
});
const one = (name: string, tensor: HostTensor) => new Map([[name, tensor]]);

test('errors are relative to the norm of the reference', () => {
  const { outputs } = compareOutputs(one('a', floats([3, 4])), one('a', floats([3, 4.5])));
  assert.equal(outputs[0]?.absolute, 0.5);
  assert.ok(Math.abs((outputs[0]?.relative ?? 0) - 0.1) < 1e-9);
  assert.ok((outputs[0]?.cosine ?? 0) < 1);
  assert.equal(outputs[0]?.broken, 0);
});

test('equal outputs differ by nothing, empty and zero ones too', () => {
  for (const values of [[1, 2, 3], [], [0, 0]]) {
    const { outputs } = compareOutputs(one('a', floats(values)), one('a', floats(values)));
    assert.equal([outputs[0]?.absolute, outputs[0]?.relative, outputs[0]?.cosine], [0, 0, 1]);
  }
});

test('a candidate that is not finite where the reference is fails', () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const [output] = compareOutputs(one('a', floats([1, 2])), one('a', floats([1, bad]))).outputs;
    assert.is(output?.relative, Number.POSITIVE_INFINITY);
    assert.equal([output?.nonFinite, output?.broken], [[0, 1], 1]);
  }
});

test('the same infinities on both sides are reported and do not count as a difference', () => {
  const values = [1, Number.NEGATIVE_INFINITY, Number.NaN];
  const [output] = compareOutputs(one('a', floats(values)), one('a', floats(values))).outputs;
  assert.equal([output?.relative, output?.nonFinite, output?.broken], [0, [2, 2], 0]);
  const [flipped] = compareOutputs(one('a', floats([1, Infinity])), one('a', floats([1, -Infinity]))).outputs;
  assert.is(flipped?.broken, 1);
});

test('the KL divergence is that of the distributions', () => {
  // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln(4 / 3) / 2... in closed form.
  const kl = 0.5 * Math.log(0.5 / 0.25) + 0.5 * Math.log(0.5 / 0.75);
  const found = compareLogits(Float32Array.of(0, 0), Float32Array.of(0, Math.log(3)), 2);
  assert.ok(Math.abs((found?.meanKl ?? 0) - kl) < 1e-7);
  assert.is(found?.maxKl, found?.meanKl);
});

test('scores too large for an exponential still compare', () => {
  const found = compareLogits(Float32Array.of(3e4, 3e4 - 1), Float32Array.of(-3e4, -3e4 - 1), 2);
  assert.equal(found, { positions: 1, top1: 1, meanKl: 0, maxKl: 0 });
});

test('top-1 agreement is the fraction of positions', () => {
  const a = Float32Array.of(1, 0, 0, 1, 1, 0, 0, 1);
  const b = Float32Array.of(1, 0, 1, 0, 1, 0, 0, 1);
  assert.is(compareLogits(a, b, 2)?.top1, 0.75);
});

test('rows of scores that are not numbers are left out of the distributions', () => {
  const found = compareLogits(Float32Array.of(NaN, 0, 1, 0), Float32Array.of(0, 0, 1, 0), 2);
  assert.is(found?.positions, 1);
  assert.is(compareLogits(Float32Array.of(NaN), Float32Array.of(0), 1), null);
});

test('outputs of one side only are listed', () => {
  const a = new Map([...one('y', floats([1])), ...one('cache.0', floats([1]))]);
  const b = new Map([...one('y', floats([1])), ...one('extra', floats([1]))]);
  const { outputs, onlyReference, onlyCandidate } = compareOutputs(a, b);
  assert.equal([outputs.length, onlyReference, onlyCandidate], [1, ['cache.0'], ['extra']]);
});

test('other shapes, other kinds of element and nothing in common are errors', () => {
  const text = (a: HostTensor, b: HostTensor, name = 'y') => {
    try {
      compareOutputs(one('y', a), one(name, b));
    } catch (error) {
      return (error as Error).message;
    }
    return '';
  };
  assert.match(text(floats([1, 2]), floats([1, 2], [2, 1])), "output 'y': its shape is [1,2] and [2,1]");
  assert.match(
    text(
      floats([1]),
      fillTensor('int64', [1, 1], () => 1),
    ),
    'its type is float and int64',
  );
  assert.match(text(floats([1]), floats([1]), 'z'), 'OF_NOT_COMPARABLE');
});

test('float16 outputs are read by their bits, and compare with float32 ones', () => {
  const half = fillTensor('float16', [1, 5], (i) => [1, -2.5, 65504, 2 ** -24, 1 / 3][i] ?? 0);
  assert.equal([...toFloat32(half)], [1, -2.5, 65504, 2 ** -24, 0.333251953125]);
  assert.is(compareOutputs(one('y', half), one('y', floats([...toFloat32(half)]))).outputs[0]?.relative, 0);
});

test.run();
