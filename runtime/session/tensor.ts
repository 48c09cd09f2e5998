/** Tensors in memory on their way into and out of onnxruntime. */
import { toFloat16Bits } from '../../ir/half.js';
import { type DataType, elementCount } from '../../ir/type.js';
import { runtimeErrors } from './errors.js';

/** The elements of a tensor. */
export type TensorData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** A dense row-major tensor. float16 is its bits in a Uint16Array, bool is 0 or 1 in a Uint8Array. */
export interface HostTensor {
  readonly dtype: DataType;
  readonly dims: readonly number[];
  readonly data: TensorData;
  /** onnxruntime's own tensor where the values were left on a GPU (`SessionOptions.onGpu`); `data` is then empty. */
  readonly onGpu?: { dispose(): void };
}

/** Inputs or outputs of a run, by name. */
export type TensorMap = ReadonlyMap<string, HostTensor>;

const ARRAYS = {
  float: Float32Array,
  double: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
} as const;

/** onnxruntime's names for the types above where they differ from ONNX's. */
const TO_NATIVE: Record<string, string> = { float: 'float32', double: 'float64' };
const FROM_NATIVE: Record<string, DataType> = { float32: 'float', float64: 'double' };

/** onnxruntime's name of an element type. */
export function nativeType(dtype: DataType): string {
  return TO_NATIVE[dtype] ?? dtype;
}
/** The element type of onnxruntime's name. */
export function dataTypeOfNative(type: string): DataType {
  return FROM_NATIVE[type] ?? (type as DataType);
}

/** True when Node can hold and pass tensors of this type (bfloat16, float8, strings and sub-byte types it cannot). */
export function isHostType(dtype: DataType): boolean {
  return dtype in ARRAYS;
}

/** `count` zero elements. @throws Diagnostic OF_RUNTIME for a type that Node cannot pass. */
export function allocate(dtype: DataType, count: number): TensorData {
  const array = ARRAYS[dtype as keyof typeof ARRAYS];
  if (!array) throw runtimeErrors.runtimeFailed(dtype, 'tensors of this type cannot be passed to it from Node');
  return new array(count);
}

/** A tensor whose element i is `value(i)`, rounded to the type. */
export function fillTensor(dtype: DataType, dims: readonly number[], value: (index: number) => number): HostTensor {
  const data = allocate(dtype, elementCount(dims));
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    for (let i = 0; i < data.length; i++) data[i] = BigInt(Math.trunc(value(i)));
  } else if (dtype === 'float16') {
    for (let i = 0; i < data.length; i++) data[i] = toFloat16Bits(value(i));
  } else {
    for (let i = 0; i < data.length; i++) data[i] = value(i);
  }
  return { dtype, dims, data };
}

/** The same bytes as the array type we use: onnxruntime may hand out another view (Float16Array on newer Nodes). */
export function normalised(dtype: DataType, data: ArrayBufferView): TensorData {
  const array = ARRAYS[dtype as keyof typeof ARRAYS];
  if (!array) throw runtimeErrors.runtimeFailed(dtype, 'tensors of this type cannot be read from Node');
  if (data instanceof array) return data;
  return new array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength / array.BYTES_PER_ELEMENT);
}

/** The first `length` places along `axis`, copied. */
export function truncate(tensor: HostTensor, axis: number, length: number): HostTensor {
  return rangeAlong(tensor, axis, 0, length);
}

/** Places [start, end) along `axis`, copied. */
export function rangeAlong(tensor: HostTensor, axis: number, start: number, end: number): HostTensor {
  const dims = tensor.dims.map((dim, i) => (i === axis ? end - start : dim));
  const inner = elementCount(tensor.dims.slice(axis + 1));
  const before = (tensor.dims[axis] ?? 0) * inner;
  const [first, length] = [start * inner, (end - start) * inner];
  const data = allocate(tensor.dtype, elementCount(dims));
  for (let from = first, to = 0; to < data.length; from += before, to += length) {
    // The two arrays are of the same type, which the union cannot say.
    (data as Float32Array).set((tensor.data as Float32Array).subarray(from, from + length), to);
  }
  return { dtype: tensor.dtype, dims, data };
}

/** Tensors of one type one after another along `axis`; their other dimensions agree. */
export function joinAlong(tensors: readonly HostTensor[], axis: number): HostTensor {
  const [first] = tensors as [HostTensor];
  const sizes = tensors.map((tensor) => tensor.dims[axis] ?? 0);
  const dims = first.dims.map((dim, i) => (i === axis ? sizes.reduce((sum, size) => sum + size, 0) : dim));
  const inner = elementCount(first.dims.slice(axis + 1));
  const data = allocate(first.dtype, elementCount(dims));
  const outer = elementCount(first.dims.slice(0, axis));
  for (let row = 0, to = 0; row < outer; row++) {
    for (const [i, tensor] of tensors.entries()) {
      const length = (sizes[i] as number) * inner;
      // The arrays are of one type, which the union cannot say.
      (data as Float32Array).set((tensor.data as Float32Array).subarray(row * length, (row + 1) * length), to);
      to += length;
    }
  }
  return { dtype: first.dtype, dims, data };
}

let halves: Float32Array | null = null;

/** All 65536 float16 values, by their bits: conversion by table is faster than by arithmetic. */
function halfTable(): Float32Array {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const sign = bits & 0x8000 ? -1 : 1;
    if (exponent === 31) halves[bits] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else halves[bits] = sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  }
  return halves;
}

/** The elements as float32 (the tensor's own array when it is float32 already). Integers above 2^24 are rounded. */
export function toFloat32(tensor: HostTensor): Float32Array {
  const { data } = tensor;
  if (data instanceof Float32Array) return data;
  const out = new Float32Array(data.length);
  if (tensor.dtype === 'float16') {
    const table = halfTable();
    for (let i = 0; i < out.length; i++) out[i] = table[data[i] as number] as number;
  } else {
    for (let i = 0; i < out.length; i++) out[i] = Number(data[i]);
  }
  return out;
}
