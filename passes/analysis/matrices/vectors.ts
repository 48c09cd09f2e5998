/** Per-channel constants: gammas, betas, biases. */

import { type DataType, elementCount } from '../../../ir/type.js';
import { inlineWeight, reshape, type Weight } from '../../../ir/weight.js';
import { Refusal } from '../refusal.js';
import { encodeFloat } from '../values/numbers.js';

/** `weight` as [length]. Throws Refusal when it is not one number per channel. */
export function vectorOf(weight: Weight, length: number): Weight {
  const vector = elementCount(weight.dims) === length ? reshape(weight, [length]) : null;
  if (!vector) throw new Refusal(`a constant of shape [${weight.dims}] is not one number per channel`);
  return vector;
}

/** A weight like `like` whose elements are all `value`. */
export function filled(like: Weight, value: number): Weight {
  return inlineWeight(repeated(value, like.dtype, elementCount(like.dims)), like.dtype, like.dims);
}

/** [length], all of them `value`, rounded to a floating-point type. Throws Refusal for other types. */
export function constantVector(value: number, dtype: DataType, length: number): Weight {
  return inlineWeight(repeated(value, dtype, length), dtype, [length]);
}

/** The same constant with so many dimensions, leading ones being added or left out; null where that cannot be. */
export function withRank(weight: Weight, rank: number): Weight | null {
  const { dims } = weight;
  if (dims.slice(0, Math.max(dims.length - rank, 0)).some((dim) => dim !== 1)) return null;
  const added = new Array<number>(Math.max(rank - dims.length, 0)).fill(1);
  return reshape(weight, [...added, ...dims.slice(Math.max(dims.length - rank, 0))]);
}

function repeated(value: number, dtype: DataType, count: number): Uint8Array {
  const one = encodeFloat(value, dtype);
  if (!one) throw new Refusal(`a constant of type ${dtype} cannot be made anew`);
  const bytes = new Uint8Array(one.length * count);
  for (let i = 0; i < count; i++) bytes.set(one, i * one.length);
  return bytes;
}
