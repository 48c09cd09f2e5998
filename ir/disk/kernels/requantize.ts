/**
 * Quantises rows of blocks again after their columns were multiplied: the arithmetic of the `requantize` weight.
 * Everything is f64 until a scale is rounded to its type; the integers are chosen for the rounded scale.
 */
import { bitsOf } from '../../type.js';
import type { RequantizeWeight } from '../../weight.js';
import { loadFloats, overflowOf, storeFloats } from './kernel.js';

/** The bytes of one row of each tensor; `zeroPoints` is empty where there are none. */
export interface BlockRow {
  readonly blocks: Uint8Array;
  readonly scales: Uint8Array;
  readonly zeroPoints: Uint8Array;
}

/**
 * Writes the row of `weight.part` to `target` (which it overwrites whole). `factors` are the values of `weight.by`.
 * Calls `overflow` with a scale that is finite and too large for its type.
 */
export function requantizeRow(
  { part, matrix }: RequantizeWeight,
  row: BlockRow,
  factors: Float64Array,
  target: Uint8Array,
  overflow: (scale: number) => never,
): void {
  const { bits, blocks, scales, zeroPoints } = matrix;
  const count = blocks.dims[1] as number;
  const block = ((blocks.dims[2] as number) * 8) / bits;
  const most = 2 ** bits - 1;
  const middle = 2 ** (bits - 1);
  const width = bitsOf(scales.dtype) / 8;
  const isPacked = zeroPoints?.dtype === 'uint8';
  const oldScales = floatsOf(scales.dtype, row.scales, count);
  const oldZeros =
    zeroPoints && !isPacked
      ? floatsOf(scales.dtype, row.zeroPoints, count)
      : Float64Array.from({ length: count }, (_, j) => (isPacked ? unpack(row.zeroPoints, j, bits) : middle));

  const values = new Float64Array(count * block);
  const newScales = new Float64Array(count);
  const ranges = new Float64Array(count);
  for (let j = 0; j < count; j++) {
    const scale = oldScales[j] as number;
    const zero = oldZeros[j] as number;
    let [low, high] = [0, 0];
    for (let k = j * block; k < (j + 1) * block && k < factors.length; k++) {
      const value = (unpack(row.blocks, k, bits) - zero) * scale * (factors[k] as number);
      values[k] = value;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    // The extreme value sits at the end of the range that has one step more, hence the sign.
    newScales[j] = zeroPoints ? (high - low) / most : (high > -low ? high : low) / -middle;
    ranges[j] = low;
  }
  const limit = overflowOf(scales.dtype);
  const over = newScales.find((scale) => Math.abs(scale) >= limit && Number.isFinite(scale));
  if (over !== undefined) overflow(over);
  const scaleBytes = part === 'scales' ? target : new Uint8Array(count * width);
  storeFloats(scales.dtype, newScales, 0, count, scaleBytes, 0);
  if (part === 'scales') return;

  const rounded = floatsOf(scales.dtype, scaleBytes, count);
  const zeros = new Float64Array(count);
  for (let j = 0; j < count; j++) {
    const scale = rounded[j] as number;
    zeros[j] = !zeroPoints ? middle : scale === 0 ? 0 : clamp(Math.round(-(ranges[j] as number) / scale), most);
  }
  if (part === 'zero_points' && !isPacked) {
    storeFloats(scales.dtype, zeros, 0, count, target, 0);
    return;
  }
  target.fill(0);
  if (part === 'zero_points') {
    for (let j = 0; j < count; j++) pack(target, j, bits, zeros[j] as number);
    return;
  }
  for (let k = 0; k < values.length; k++) {
    const j = Math.floor(k / block);
    const scale = rounded[j] as number;
    const zero = zeros[j] as number;
    // Places beyond the width hold 0.
    const level = scale === 0 ? zero : clamp(Math.round((values[k] as number) / scale + zero), most);
    pack(target, k, bits, level);
  }
}

function clamp(level: number, most: number): number {
  return Math.min(Math.max(level, 0), most);
}

function unpack(bytes: Uint8Array, index: number, bits: number): number {
  const bit = index * bits;
  return ((bytes[Math.floor(bit / 8)] as number) >> (bit % 8)) & (2 ** bits - 1);
}

function pack(bytes: Uint8Array, index: number, bits: number, level: number): void {
  const bit = index * bits;
  const at = Math.floor(bit / 8);
  bytes[at] = (bytes[at] as number) | (level << (bit % 8));
}

function floatsOf(dtype: RequantizeWeight['dtype'], bytes: Uint8Array, count: number): Float64Array {
  const values = new Float64Array(count);
  loadFloats(dtype, bytes, 0, count, values, 0);
  return values;
}
