/** metadata_props and the types of values, between messages and the core. */
import type { Metadata } from '../core.js';
import { errors } from '../diagnostic.js';
import { type DataType, type Dim, dataTypeCode, dataTypeOf, type ValueType } from '../type.js';
import {
  type DimensionMessage,
  decodeMessage,
  type EntryMessage,
  encodeMessage,
  type TypeMessage,
  toLong,
  toNumber,
} from './messages.js';

export function decodeMetadata(message: { metadataProps?: EntryMessage[] }): Metadata {
  return (message.metadataProps ?? []).map((entry) => [entry.key ?? '', entry.value ?? ''] as const);
}

/** Leaves the entries as they were read when they still say the same. */
export function encodeMetadata(message: { metadataProps?: EntryMessage[] }, metadata: Metadata): void {
  const old = message.metadataProps ?? [];
  const isSame =
    old.length === metadata.length &&
    old.every((entry, i) => (entry.key ?? '') === metadata[i]?.[0] && (entry.value ?? '') === metadata[i]?.[1]);
  if (!isSame) message.metadataProps = metadata.map(([key, value]) => ({ key, value }));
}

export function decodeType(message: TypeMessage | undefined): ValueType | null {
  if (!message) return null;
  const tensor = message.tensorType;
  if (!tensor) return { kind: 'other', wire: encodeMessage('TypeProto', message) };
  const shape = tensor.shape ? (tensor.shape.dim ?? []).map(decodeDim) : null;
  return { kind: 'tensor', dtype: decodeElementType(tensor.elemType ?? 0), shape };
}

/** Codes that are newer than the schema are carried. Throws OF_BAD_WIRE for a negative one. */
export function decodeElementType(code: number): DataType {
  if (code < 0) throw errors.badWire('element type', `${code} is none`);
  return dataTypeOf(code);
}

function decodeDim(dim: DimensionMessage): Dim {
  if (Object.hasOwn(dim, 'dimValue') && dim.dimValue) {
    // Some exporters write -1 for "unknown".
    const size = toNumber(dim.dimValue);
    return size >= 0 ? size : null;
  }
  return dim.dimParam ? dim.dimParam : null;
}

export function encodeType(type: ValueType): TypeMessage {
  if (type.kind === 'other') return decodeMessage('TypeProto', type.wire);
  const dim = type.shape?.map((size): DimensionMessage => {
    if (size === null) return {};
    return typeof size === 'number' ? { dimValue: toLong(size) } : { dimParam: size };
  });
  return { tensorType: { elemType: dataTypeCode(type.dtype), ...(dim ? { shape: { dim } } : {}) } };
}
