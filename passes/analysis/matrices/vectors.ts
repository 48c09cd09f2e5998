/** Per-channel constants: gammas, betas, biases. */

import { type DataType, elementCount } from '../../../ir/type.js';
import { inlineWeight, reshape, type Weight } from '../../../ir/weight.js';
import { Refusal } from '../refusal.js';

/** `weight` as [length]. Throws Refusal when it is not one number per channel. */
export function vectorOf(weight: Weight, length: number): Weight {
  const vector = elementCount(weight.dims) === length ? reshape(weight, [length]) : null;
  if (!vector) throw new Refusal(`a constant of shape [${weight.dims}] is not one number per channel`);
  return vector;
}

/** Little-endian 1.0 of each floating-point type. */
const ONE: Partial<Record<DataType, readonly number[]>> = {
  float: [0, 0, 0x80, 0x3f],
  float16: [0, 0x3c],
  bfloat16: [0x80, 0x3f],
  double: [0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
};

/** A weight like `like` whose elements are all 0 or all 1. */
export function filled(like: Weight, value: 0 | 1): Weight {
  const bytes = new Uint8Array(like.byteLength);
  const one = ONE[like.dtype];
  if (value === 1 && !one) throw new TypeError(`no ones of type ${like.dtype}`);
  if (value === 1 && one) for (let i = 0; i < bytes.length; i++) bytes[i] = one[i % one.length] as number;
  return inlineWeight(bytes, like.dtype, like.dims);
}
