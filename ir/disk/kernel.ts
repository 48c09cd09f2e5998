/** The inner loops over elements: floating-point bytes to f64 and back, rounding to nearest even once. */
import { getFloat16 } from '@petamoriken/float16';
import type { DataType } from '../type.js';

/** All 65536 float16 values: a look-up is the fastest decoder there is in JavaScript. */
const FLOAT16 = new Float64Array(65536);
{
  const view = new DataView(new ArrayBuffer(2));
  for (let bits = 0; bits < 65536; bits++) {
    view.setUint16(0, bits);
    FLOAT16[bits] = getFloat16(view, 0);
  }
}

const f64 = new Float64Array(1);
const f64Words = new Uint32Array(f64.buffer);
const HIGH = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0;
const f32 = new Float32Array(1);
const f32Word = new Uint32Array(f32.buffer);
/** Adding and subtracting it rounds a smaller non-negative f64 to an integer, ties to even. */
const ROUND = 2 ** 52;

/** A 16-bit format: `mantissa` stored bits, smallest normal exponent `minExponent`, everything above it infinite. */
interface Half {
  readonly mantissa: number;
  readonly minExponent: number;
  readonly infinity: number;
  readonly nan: number;
  /** 2^(mantissa - exponent) by exponent - minExponent. */
  readonly scales: Float64Array;
}

function half(mantissa: number, minExponent: number, infinity: number, nan: number): Half {
  const scales = Float64Array.from({ length: 1 - 2 * minExponent + 2 }, (_, i) => 2 ** (mantissa - minExponent - i));
  return { mantissa, minExponent, infinity, nan, scales };
}
const FLOAT16_FORMAT = half(10, -14, 0x7c00, 0x7e00);
const BFLOAT16_FORMAT = half(7, -126, 0x7f80, 0x7fc0);

/** The bits of `value` rounded to a 16-bit format straight from f64: going through f32 would round twice. */
function toHalf(value: number, format: Half): number {
  f64[0] = value;
  const high = f64Words[HIGH] as number;
  const sign = (high >>> 16) & 0x8000;
  if (Number.isNaN(value)) return format.nan;
  const above = Math.max(((high >>> 20) & 0x7ff) - 1023 - format.minExponent, 0);
  const scale = format.scales[above];
  if (scale === undefined) return sign | format.infinity;
  const rounded = Math.abs(value) * scale + ROUND - ROUND;
  // A mantissa that rounds up to the next power of two carries into the exponent by itself.
  const bits = rounded + above * 2 ** format.mantissa;
  return sign | Math.min(bits, format.infinity);
}

/** float16 bits of a number, correctly rounded. */
export function toFloat16Bits(value: number): number {
  return toHalf(value, FLOAT16_FORMAT);
}
/** bfloat16 bits of a number, correctly rounded. */
export function toBfloat16Bits(value: number): number {
  return toHalf(value, BFLOAT16_FORMAT);
}

/** Decodes `count` elements at byte `at` into `out` from index `outAt`. */
export function loadFloats(
  dtype: DataType,
  bytes: DataView,
  at: number,
  count: number,
  out: Float64Array,
  outAt: number,
): void {
  switch (dtype) {
    case 'float':
      for (let i = 0; i < count; i++) out[outAt + i] = bytes.getFloat32(at + 4 * i, true);
      return;
    case 'double':
      for (let i = 0; i < count; i++) out[outAt + i] = bytes.getFloat64(at + 8 * i, true);
      return;
    case 'float16':
      for (let i = 0; i < count; i++) out[outAt + i] = FLOAT16[bytes.getUint16(at + 2 * i, true)] as number;
      return;
    case 'bfloat16':
      for (let i = 0; i < count; i++) {
        f32Word[0] = bytes.getUint16(at + 2 * i, true) << 16;
        out[outAt + i] = f32[0] as number;
      }
      return;
    default:
      throw new TypeError(`no arithmetic on ${dtype}`);
  }
}

/** Encodes `count` values from index `from`, each rounded once. */
export function storeFloats(
  dtype: DataType,
  values: Float64Array,
  from: number,
  count: number,
  bytes: DataView,
  at: number,
): void {
  switch (dtype) {
    case 'float':
      for (let i = 0; i < count; i++) bytes.setFloat32(at + 4 * i, values[from + i] as number, true);
      return;
    case 'double':
      for (let i = 0; i < count; i++) bytes.setFloat64(at + 8 * i, values[from + i] as number, true);
      return;
    case 'float16':
      for (let i = 0; i < count; i++) {
        bytes.setUint16(at + 2 * i, toHalf(values[from + i] as number, FLOAT16_FORMAT), true);
      }
      return;
    case 'bfloat16':
      for (let i = 0; i < count; i++) {
        bytes.setUint16(at + 2 * i, toHalf(values[from + i] as number, BFLOAT16_FORMAT), true);
      }
      return;
    default:
      throw new TypeError(`no arithmetic on ${dtype}`);
  }
}

/** The smallest magnitude that rounds to infinity. */
const OVERFLOW: Readonly<Partial<Record<DataType, number>>> = {
  float: 2 ** 127 * (2 - 2 ** -24),
  double: Number.POSITIVE_INFINITY,
  float16: 65520,
  bfloat16: 2 ** 127 * (2 - 2 ** -8),
};

/** From this magnitude on, a value of this type is infinite. */
export function overflowOf(dtype: DataType): number {
  return OVERFLOW[dtype] ?? Number.POSITIVE_INFINITY;
}

/** Writes the transpose of a [rows, columns] block of `width`-byte elements to `target`, in tiles that fit the cache. */
export function transposeBlock(
  source: Uint8Array,
  rows: number,
  columns: number,
  width: number,
  target: Uint8Array,
  at: number,
  rowStride: number,
): void {
  const BLOCK = 32;
  for (let r0 = 0; r0 < rows; r0 += BLOCK) {
    const r1 = Math.min(r0 + BLOCK, rows);
    for (let c0 = 0; c0 < columns; c0 += BLOCK) {
      const c1 = Math.min(c0 + BLOCK, columns);
      for (let c = c0; c < c1; c++) {
        let to = at + c * rowStride + r0 * width;
        for (let r = r0; r < r1; r++) {
          const from = (r * columns + c) * width;
          for (let b = 0; b < width; b++) target[to++] = source[from + b] as number;
        }
      }
    }
  }
}
