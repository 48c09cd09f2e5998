/** Element types, shapes and value types of ONNX (onnx.proto, TensorProto.DataType and TypeProto). */

/** Index = TensorProto.DataType code; the names are those of the ONNX textual syntax. */
const NAMES = [
  'undefined',
  'float',
  'uint8',
  'int8',
  'uint16',
  'int16',
  'int32',
  'int64',
  'string',
  'bool',
  'float16',
  'double',
  'uint32',
  'uint64',
  'complex64',
  'complex128',
  'bfloat16',
  'float8e4m3fn',
  'float8e4m3fnuz',
  'float8e5m2',
  'float8e5m2fnuz',
  'uint4',
  'int4',
  'float4e2m1',
  'float8e8m0',
  'uint2',
  'int2',
] as const;

const BITS = [0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2];

/** An element type by name; a code newer than this schema is carried as `dtype<code>`. */
export type DataType = (typeof NAMES)[number] | `dtype${number}`;

/** The largest code of a type that a file can hold, an int32. */
export const MAX_CODE = 2 ** 31 - 1;

/** Name of a TensorProto.DataType code; `undefined` for what can be none, as attributes of damaged models say. */
export function dataTypeOf(code: number): DataType {
  return NAMES[code] ?? (code > 0 && code <= MAX_CODE ? `dtype${code}` : 'undefined');
}

/** TensorProto.DataType code of a name; -1 when it is no type name. */
export function dataTypeCode(name: string): number {
  const index = (NAMES as readonly string[]).indexOf(name);
  if (index >= 0) return index;
  const match = /^dtype(\d+)$/.exec(name);
  return match ? Number(match[1]) : -1;
}

/** Bits of one element; 0 when elements have no fixed width (string, undefined, unknown). */
export function bitsOf(dtype: DataType): number {
  return BITS[dataTypeCode(dtype)] ?? 0;
}

/** True for the floating-point types that the weight kernels can scale. */
export function isScalable(dtype: DataType): boolean {
  return dtype === 'float' || dtype === 'float16' || dtype === 'bfloat16' || dtype === 'double';
}

/** True for every floating-point type, the 8-bit and smaller ones included. */
export function isFloat(dtype: DataType): boolean {
  return isScalable(dtype) || dtype.startsWith('float8') || dtype.startsWith('float4');
}

/** Number of elements of a shape (1 for a scalar). */
export function elementCount(dims: readonly number[]): number {
  let count = 1;
  for (const dim of dims) count *= dim;
  return count;
}

/** Bytes of a dense tensor; sub-byte types are packed, the last byte padded. */
export function byteSize(dtype: DataType, dims: readonly number[]): number {
  return Math.ceil((elementCount(dims) * bitsOf(dtype)) / 8);
}

/** A dimension: a size, a symbol, or null when nothing is said. */
export type Dim = number | string | null;

/** The type of a value. Everything that is not a plain tensor (sequence, map, optional, opaque...) is carried as wire. */
export type ValueType =
  | { readonly kind: 'tensor'; readonly dtype: DataType; readonly shape: readonly Dim[] | null }
  | { readonly kind: 'other'; readonly wire: Uint8Array };

/** The type of a plain tensor; the shape is null where it is not known. */
export function tensorType(dtype: DataType, shape: readonly Dim[] | null): ValueType {
  return { kind: 'tensor', dtype, shape };
}

/** The same type with another size of its last dimension, where it states one. */
export function withWidth(type: ValueType | null, width: number): ValueType | null {
  if (type?.kind !== 'tensor' || !type.shape || type.shape.length === 0) return type;
  return tensorType(type.dtype, [...type.shape.slice(0, -1), width]);
}
