/** The 16-bit floating-point types, one number at a time: decoded exactly, and rounded once, to nearest even. */
import { getFloat16 } from '@petamoriken/float16';

const f64 = new Float64Array(1);
const f64Words = new Uint32Array(f64.buffer);
/** Where the upper half of an f64 lies on this machine. */
const HIGH = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0;
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

/** The bits of `value` rounded to a 16-bit format straight from f64: right for every value, and slow. */
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

const view = new DataView(new ArrayBuffer(2));

/** The number that float16 bits mean. */
export function fromFloat16Bits(bits: number): number {
  view.setUint16(0, bits);
  return getFloat16(view, 0);
}

/** The number that bfloat16 bits mean: they are the upper half of an f32. */
export function fromBfloat16Bits(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(2, bits, true);
  return view.getFloat32(0, true);
}
