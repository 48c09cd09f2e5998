/** Numbers as element types hold them: little-endian bytes to numbers and back, and what a Cast makes of one. */
import { fromBfloat16Bits, fromFloat16Bits, toFloat16Bits } from '../../../ir/half.js';
import { type DataType, isScalable } from '../../../ir/type.js';

type Read = (view: DataView, at: number) => number;

/** Bytes of an element, and how it is read. */
export const READERS: Partial<Record<DataType, readonly [number, Read]>> = {
  float: [4, (view, at) => view.getFloat32(at, true)],
  double: [8, (view, at) => view.getFloat64(at, true)],
  float16: [2, (view, at) => fromFloat16Bits(view.getUint16(at, true))],
  bfloat16: [2, (view, at) => fromBfloat16Bits(view.getUint16(at, true))],
  int64: [8, (view, at) => Number(view.getBigInt64(at, true))],
  int32: [4, (view, at) => view.getInt32(at, true)],
  uint8: [1, (view, at) => view.getUint8(at)],
  int8: [1, (view, at) => view.getInt8(at)],
  bool: [1, (view, at) => view.getUint8(at)],
};

/** The bytes of a number, rounded to a floating-point type; null for any other type. */
export function encodeFloat(value: number, dtype: DataType): Uint8Array | null {
  const view = new DataView(new ArrayBuffer(8));
  switch (dtype) {
    case 'float':
      view.setFloat32(0, value, true);
      return new Uint8Array(view.buffer, 0, 4);
    case 'double':
      view.setFloat64(0, value, true);
      return new Uint8Array(view.buffer);
    case 'float16':
      view.setUint16(0, toFloat16Bits(value), true);
      return new Uint8Array(view.buffer, 0, 2);
    case 'bfloat16': {
      view.setFloat32(0, value, true);
      const bits = view.getUint32(0, true);
      // To the nearest, ties to the even one.
      view.setUint32(0, Number.isNaN(value) ? 0x7fc00000 : bits + 0x7fff + ((bits >>> 16) & 1), true);
      return new Uint8Array(view.buffer, 2, 2);
    }
  }
  return null;
}

const INTEGERS: Partial<Record<DataType, readonly [number, number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-(2 ** 15), 2 ** 15 - 1],
  uint16: [0, 2 ** 16 - 1],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  uint64: [0, Number.MAX_SAFE_INTEGER],
};

/** What a Cast to `dtype` makes of a number; null where that is not known (an integer type that cannot hold it). */
export function castNumber(value: number, dtype: DataType): number | null {
  if (dtype === 'bool') return value === 0 ? 0 : 1;
  const bytes = encodeFloat(value, dtype);
  if (bytes && isScalable(dtype)) return READERS[dtype]?.[1](new DataView(bytes.buffer, bytes.byteOffset), 0) ?? null;
  const range = INTEGERS[dtype];
  const whole = Math.trunc(value);
  return range && whole >= range[0] && whole <= range[1] ? whole : null;
}
