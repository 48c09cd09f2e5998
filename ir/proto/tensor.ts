/** TensorProto: where its bytes are, without reading more than a little. */

import { readable } from '../bytes.js';
import { type Storage, Tensor } from '../core.js';
import { errors } from '../diagnostic.js';
import { bitsOf, byteSize, type DataType, dataTypeCode, elementCount } from '../type.js';
import { type ByteSource, inlineWeight, sourceWeight, type Weight } from '../weight.js';
import { carry, type OriginalTensor, originalOf } from './carried.js';
import { bytesField, type Field, type Framed, type Range, rangeField, SMALL, writeFramed } from './frame.js';
import { copyMessage, type EntryMessage, ownString, setOptional, setString, toLong, toNumber } from './messages.js';
import { decodeElementType, decodeMetadata, encodeMetadata } from './metadata.js';
import { type Rope, ropeOf } from './rope.js';
import { BYTES, FIXED32, FIXED64, joinBytes, VARINT, WireReader } from './wire.js';

const FLOAT_DATA = 4;
const INT32_DATA = 5;
const INT64_DATA = 7;
const RAW_DATA = 9;
const DOUBLE_DATA = 10;
const UINT64_DATA = 11;
const EXTERNAL = 1;

/** Finds the bytes of an external tensor. Throws the OF_EXTERNAL_* diagnostics. */
export type ExternalResolver = (
  tensor: string,
  entries: ReadonlyMap<string, string>,
  byteLength: number,
) => { readonly source: ByteSource; readonly offset: number };

/** Where a tensor's bytes will lie in the output's data file. */
export interface ExternalLocation {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/**
 * The tensor of a TensorProto. Throws OF_TENSOR_SIZE, OF_BAD_WIRE, OF_UNSAFE_INTEGER and the OF_EXTERNAL_* diagnostics.
 */
export function decodeTensor(framed: Framed<'TensorProto'>, resolve: ExternalResolver): Tensor {
  const { message, ranges, shape } = framed;
  const name = message.name ?? '';
  const dims = (message.dims ?? []).map((dim) => {
    const size = toNumber(dim);
    if (!(size >= 0)) throw errors.unsafeInteger(`dimension of tensor '${name}'`, String(dim));
    return size;
  });
  const dtype = decodeElementType(message.dataType ?? 0);
  const [storage, weight] = decodeData(framed, name, dtype, dims, resolve);
  const strings = dtype === 'string' && storage === 'typed' ? (message.stringData ?? []) : null;
  if (strings && strings.length !== elementCount(dims)) {
    throw errors.badWire(`tensor '${name}'`, `${strings.length} strings for the shape [${dims}]`);
  }
  const tensor = new Tensor(name, dtype, dims, weight, storage, strings);
  tensor.docString = ownString(message, 'docString');
  tensor.metadata = decodeMetadata(message);
  const carried: OriginalTensor = { message, ranges, shape, storage };
  tensor.carried = carry(carried);
  return tensor;
}

function decodeData(
  { message, ranges }: Framed<'TensorProto'>,
  name: string,
  dtype: DataType,
  dims: readonly number[],
  resolve: ExternalResolver,
): [Storage, Weight | null] {
  const place = `tensor '${name}'`;
  if (message.segment) throw errors.badWire(place, 'it is a segment of a larger tensor; no exporter writes these');
  const hasFixedWidth = bitsOf(dtype) > 0;
  const size = byteSize(dtype, dims);
  if (message.dataLocation === EXTERNAL) {
    if (!hasFixedWidth) throw errors.badWire(place, `external data of type ${dtype}, whose size is not known`);
    const entries = new Map((message.externalData ?? []).map((entry) => [entry.key ?? '', entry.value ?? '']));
    const { source, offset } = resolve(name, entries, size);
    return ['external', sourceWeight(source, offset, dtype, dims)];
  }
  const filled = ranges.filter((range) => range.length > 0);
  const number = filled[0]?.number ?? RAW_DATA;
  if (filled.some((range) => range.number !== number)) throw errors.badWire(place, 'data in more than one field');
  if (dtype === 'string') return ['typed', null];
  // An unknown type's bytes are carried; an undefined type has none.
  if (!hasFixedWidth) return [number === RAW_DATA ? 'raw' : 'typed', null];
  const storage = number === RAW_DATA ? 'raw' : 'typed';
  if (number === RAW_DATA || number === FLOAT_DATA || number === DOUBLE_DATA) {
    if (number !== RAW_DATA && !TYPED_FIELD[number]?.includes(dtype)) throw errors.tensorSize(name, 0, size);
    const isUnpacked = filled.some((range) => range.wireType !== (number === FLOAT_DATA ? FIXED32 : FIXED64));
    if (number === RAW_DATA ? filled.some(isNotBytes) : isUnpacked && filled.some(isNotBytes)) {
      throw errors.badWire(place, `its data have the wrong wire type`);
    }
    const found = filled.reduce((sum, range) => sum + range.length, 0);
    if (found !== size) throw errors.tensorSize(name, found, size);
    return [storage, weightOf(filled, dtype, dims)];
  }
  if (!TYPED_FIELD[number]?.includes(dtype)) throw errors.tensorSize(name, 0, size);
  return [storage, inlineWeight(decodeVarints(filled, name, dtype, size), dtype, dims)];
}

const isNotBytes = (range: Range): boolean => range.wireType !== BYTES;

/** Which types each *_data field holds (onnx.proto). */
const TYPED_FIELD: Readonly<Record<number, readonly DataType[]>> = {
  [FLOAT_DATA]: ['float', 'complex64'],
  [INT32_DATA]: [
    'int32',
    'int16',
    'int8',
    'int4',
    'int2',
    'uint16',
    'uint8',
    'uint4',
    'uint2',
    'bool',
    'float16',
    'bfloat16',
    'float8e4m3fn',
    'float8e4m3fnuz',
    'float8e5m2',
    'float8e5m2fnuz',
    'float8e8m0',
    'float4e2m1',
  ],
  [INT64_DATA]: ['int64'],
  [DOUBLE_DATA]: ['double', 'complex128'],
  [UINT64_DATA]: ['uint64', 'uint32'],
};

/** Bytes that lie in the file as they lie in memory: little-endian. */
function weightOf(ranges: readonly Range[], dtype: DataType, dims: readonly number[]): Weight {
  const [first, second] = ranges;
  if (!first) return inlineWeight(new Uint8Array(0), dtype, dims);
  if (!second && !first.bytes) return sourceWeight(first.source, first.offset, dtype, dims);
  return inlineWeight(joinBytes(ranges.map(bytesOf)), dtype, dims);
}

function bytesOf(range: Range): Uint8Array {
  if (range.bytes) return range.bytes;
  const bytes = new Uint8Array(range.length);
  readable(range.source).readInto(bytes, 0, range.length, range.offset);
  return bytes;
}

/** int32_data, int64_data, uint64_data: every element a varint, of which the low bytes count. */
function decodeVarints(ranges: readonly Range[], name: string, dtype: DataType, size: number): Uint8Array {
  const width = Math.max(bitsOf(dtype), 8) / 8;
  const found = ranges.reduce((sum, range) => sum + range.length, 0);
  // Before any memory is claimed: an element takes at least one byte.
  if (size > found * width) throw errors.tensorSize(name, found * width, size);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const range of ranges) {
    if (range.wireType !== BYTES && range.wireType !== VARINT) {
      throw errors.badWire(`tensor '${name}'`, 'its data have the wrong wire type');
    }
    const reader = new WireReader(readable(range.source), `tensor '${name}'`);
    reader.pos = range.offset;
    const end = range.offset + range.length;
    while (reader.pos < end) {
      const { low, high } = reader.varint64(end);
      if (at + width > size) throw errors.tensorSize(name, at + width, size);
      if (width === 1) view.setUint8(at, low & 255);
      else if (width === 2) view.setUint16(at, low & 65535, true);
      else view.setUint32(at, low >>> 0, true);
      if (width === 8) view.setUint32(at + 4, high >>> 0, true);
      at += width;
    }
  }
  if (at !== size) throw errors.tensorSize(name, at, size);
  return bytes;
}

/** Encodes a tensor; its bytes go to `location` of the data file, or stay in the message when that is null. */
export function encodeTensor(tensor: Tensor, location: ExternalLocation | null): Rope {
  const old = originalOf<OriginalTensor>(tensor.carried);
  const message = copyMessage('TensorProto', old?.message);
  if (!old) {
    message.dims = tensor.dims.map(toLong);
    message.dataType = dataTypeCode(tensor.dtype);
  }
  setString(message, 'name', tensor.name);
  setOptional(message, 'docString', tensor.docString);
  encodeMetadata(message, tensor.metadata);
  const fields: Field[] = [];
  if (location) {
    message.externalData = externalEntries(location, old?.message.externalData ?? []);
    message.dataLocation = EXTERNAL;
  } else if (old && old.storage === tensor.storage && tensor.storage !== 'external') {
    for (const range of old.ranges) fields.push(rangeField(range));
  } else {
    if (message.dataLocation === EXTERNAL) {
      delete message.dataLocation;
      delete message.externalData;
    }
    if (tensor.strings) message.stringData = [...tensor.strings];
    if (tensor.weight) fields.push(bytesField(RAW_DATA, ropeOf(inlineBytes(tensor.weight))));
  }
  return writeFramed('TensorProto', message, fields, old?.shape ?? null);
}

function inlineBytes(weight: Weight): Uint8Array | Weight {
  return weight.op === 'inline' && weight.byteLength <= SMALL ? weight.bytes : weight;
}

/**
 * The three entries onnxruntime reads, then keys that nobody here knows. A checksum is of the old file, and `prepacked_0`
 * and so on say where in it onnxruntime saved the tensor in the layout of its kernels: dropped, and made anew at load.
 */
function externalEntries(location: ExternalLocation, old: readonly EntryMessage[]): EntryMessage[] {
  const isOfOldFile = (key: string): boolean => /^(location|offset|length|checksum|prepacked_\d+)$/.test(key);
  return [
    { key: 'location', value: location.location },
    { key: 'offset', value: String(location.offset) },
    { key: 'length', value: String(location.length) },
    ...old.filter((entry) => !isOfOldFile(entry.key ?? '')),
  ];
}
