/**
 * Framed decoding: protobufjs sees every field but the big ones. A message is walked tag by tag; the children in FRAMED
 * are taken out (as messages of their own, or as byte ranges that nobody reads), and the rest of the message, put
 * together again, is what protobufjs decodes. Writing goes the other way.
 *
 * A message that another writer would have written differently (field order, default values, overlong varints) keeps
 * what it takes to come out as it came in: see Shape.
 */
import { errors, reasonOf } from '../diagnostic.js';
import { type ByteSource, sourceWeight } from '../weight.js';
import { canonicalUnlike, decodeMessage, encodeMessage, type MessageName, type Messages } from './messages.js';
import { joinRopes, type Rope, ropeOf } from './rope.js';
import { BYTES, END_GROUP, equalBytes, fieldHead, joinBytes, WireReader } from './wire.js';

/** Fields taken out of a message: their message type, or 'range' for bytes that are carried without a look inside. */
const FRAMED: { readonly [N in MessageName]: Readonly<Record<number, MessageName | 'range'>> } = {
  ModelProto: { 7: 'GraphProto', 8: 'OperatorSetIdProto', 20: 'range', 25: 'FunctionProto' },
  GraphProto: {
    1: 'NodeProto',
    5: 'TensorProto',
    11: 'ValueInfoProto',
    12: 'ValueInfoProto',
    13: 'ValueInfoProto',
    15: 'range',
  },
  NodeProto: { 5: 'AttributeProto' },
  AttributeProto: {
    5: 'TensorProto',
    6: 'GraphProto',
    10: 'TensorProto',
    11: 'GraphProto',
    22: 'range',
    23: 'range',
  },
  TensorProto: { 4: 'range', 5: 'range', 7: 'range', 9: 'range', 10: 'range', 11: 'range' },
  FunctionProto: { 7: 'NodeProto', 9: 'OperatorSetIdProto', 11: 'range', 12: 'ValueInfoProto' },
  SparseTensorProto: { 1: 'TensorProto', 2: 'range' },
  ValueInfoProto: {},
  OperatorSetIdProto: {},
  TypeProto: {},
};

/** Ranges up to this size are held in memory: axes, shapes and eps live there. */
export const SMALL = 1024;
/** Graphs in graphs. */
const GRAPH_DEPTH = 64;
/** What is left of one message without its framed children; no real model comes near. */
const REST_LIMIT = 2 ** 30;

/** The payload of a field that is carried as it came. */
export interface Range {
  readonly number: number;
  readonly wireType: number;
  readonly source: ByteSource;
  readonly offset: number;
  readonly length: number;
  /** The bytes, when there are few. */
  readonly bytes: Uint8Array | null;
}

/**
 * How a message has to be written so that it comes out as it came in. Where its other fields were not in canonical form:
 * their bytes (`wire`), to be used as long as the fields still encode to `canonical`. Where fields were not in ascending
 * order: the field number of every entry.
 */
export interface Shape {
  readonly wire?: Uint8Array;
  readonly canonical?: Uint8Array;
  readonly order?: readonly number[];
}

/** A message whose big children are taken out: decoded as messages of their own, or only located. */
export interface Framed<N extends MessageName = MessageName> {
  readonly type: N;
  readonly message: Messages[N];
  readonly children: ReadonlyMap<number, readonly Framed[]>;
  readonly ranges: readonly Range[];
  readonly shape: Shape | null;
}

/** Decodes the message between `start` and `end`. Throws OF_TRUNCATED, OF_BAD_WIRE, OF_TOO_DEEP. */
export function readFramed<N extends MessageName>(
  reader: WireReader,
  type: N,
  start: number,
  end: number,
  graphDepth = 0,
): Framed<N> {
  if (graphDepth > GRAPH_DEPTH) throw errors.tooDeep(reader.label, GRAPH_DEPTH);
  const framed = FRAMED[type];
  const children = new Map<number, Framed[]>();
  const ranges: Range[] = [];
  // Stretches of other fields, as pairs of begin and end: mostly there is one.
  const rest: number[] = [];
  let restLength = 0;
  const order: number[] = [];
  let isAscending = true;
  let last = 0;
  reader.pos = start;
  while (reader.pos < end) {
    const fieldStart = reader.pos;
    const tag = reader.tag(end);
    const number = Math.floor(tag / 8);
    const wireType = tag % 8;
    if (wireType === END_GROUP) throw reader.bad('a group ends that did not begin');
    const kind = framed[number];
    if (number < last) isAscending = false;
    last = number;
    order.push(number);
    const payload = wireType === BYTES && kind !== undefined ? reader.length(end) : 0;
    if (kind === 'range' && wireType === BYTES) {
      ranges.push(rangeOf(reader, number, wireType, reader.pos, payload));
      reader.pos += payload;
    } else if (kind === 'range' && type === 'TensorProto') {
      // An element of an unpacked *_data field.
      const at = reader.pos;
      reader.skip(number, wireType, end);
      ranges.push(rangeOf(reader, number, wireType, at, reader.pos - at));
    } else if (kind !== undefined && wireType === BYTES) {
      const childStart = reader.pos;
      const isGraph = kind === 'GraphProto';
      const child = readFramed(
        reader,
        kind as MessageName,
        childStart,
        childStart + payload,
        graphDepth + (isGraph ? 1 : 0),
      );
      const siblings = children.get(number);
      if (siblings) siblings.push(child);
      else children.set(number, [child]);
      reader.pos = childStart + payload;
    } else {
      // Readers that know the field skip it, and where it stood among its namesakes could not be kept.
      if (kind !== undefined) throw reader.bad(`field ${number} of ${type} is of wire type ${wireType}`);
      reader.skip(number, wireType, end);
      const length = reader.pos - fieldStart;
      restLength += length;
      if (restLength > REST_LIMIT) throw reader.bad(`${type} of more than ${REST_LIMIT} bytes without its tensors`);
      if (rest.length > 0 && rest.at(-1) === fieldStart) rest[rest.length - 1] = reader.pos;
      else rest.push(fieldStart, reader.pos);
    }
  }
  const wire = bytesOf(reader, rest);
  try {
    const message = decodeMessage(type, wire);
    const canonical = canonicalUnlike(type, message, wire);
    const shape =
      canonical === null && isAscending
        ? null
        : { ...(canonical ? { wire: wire.slice(), canonical } : {}), ...(isAscending ? {} : { order }) };
    return { type, message, children, ranges, shape };
  } catch (error) {
    throw errors.badWire(`${reader.label}, ${type} at offset ${start}`, reasonOf(error));
  }
}

/** The bytes of stretches, one after another; to be looked at only until the reader goes on. */
function bytesOf(reader: WireReader, stretches: readonly number[]): Uint8Array {
  const [start = 0, end = 0] = stretches;
  if (stretches.length <= 2) return reader.view(start, end - start);
  const parts: Uint8Array[] = [];
  for (let i = 0; i < stretches.length; i += 2) {
    const from = stretches[i] as number;
    parts.push(reader.view(from, (stretches[i + 1] as number) - from));
  }
  return joinBytes(parts);
}

function rangeOf(reader: WireReader, number: number, wireType: number, offset: number, length: number): Range {
  const bytes = length <= SMALL ? reader.copy(offset, length) : null;
  return { number, wireType, source: reader.source, offset, length, bytes };
}

/** Decodes a carried range as a message of its own. */
export function readFramedRange<N extends MessageName>(reader: WireReader, type: N, range: Range): Framed<N> {
  return readFramed(reader, type, range.offset, range.offset + range.length);
}

/** One framed child on the way out: the whole field, tag included. */
export interface Field {
  readonly number: number;
  readonly rope: Rope;
}

/** A field holding a message, a string or bytes. */
export function bytesField(number: number, payload: Rope): Field {
  return { number, rope: joinRopes([ropeOf(fieldHead(number, BYTES, payload.byteLength)), payload]) };
}

/** A field with a carried range, written as it was read. */
export function rangeField(range: Range): Field {
  const { number, wireType, source, offset, length, bytes } = range;
  const payload = bytes ?? sourceWeight(source, offset, 'uint8', [length]);
  return { number, rope: ropeOf(fieldHead(number, wireType, length), payload) };
}

/** Encodes a message with its framed children in their places. */
export function writeFramed<N extends MessageName>(
  type: N,
  message: Messages[N],
  fields: readonly Field[],
  shape: Shape | null,
): Rope {
  const encoded = encodeMessage(type, message);
  const rest = shape?.wire && shape.canonical && equalBytes(encoded, shape.canonical) ? shape.wire : encoded;
  if (fields.length === 0 && !shape?.order) return ropeOf(rest);
  const all = [...splitFields(rest), ...fields];
  return joinRopes((shape?.order ? inOrder(all, shape.order) : ascending(all)).map((field) => field.rope));
}

function ascending(fields: readonly Field[]): Field[] {
  return [...fields].sort((a, b) => a.number - b.number);
}

/** The fields in exactly this order when they are still the same ones; otherwise kinds in order of first appearance. */
export function inOrder(fields: readonly Field[], order: readonly number[]): Field[] {
  const byNumber = new Map<number, Field[]>();
  for (const field of fields) {
    const queue = byNumber.get(field.number);
    if (queue) queue.push(field);
    else byNumber.set(field.number, [field]);
  }
  const taken = new Map<number, number>();
  const result: Field[] = [];
  for (const number of order) {
    const index = taken.get(number) ?? 0;
    const field = byNumber.get(number)?.[index];
    if (!field) break;
    taken.set(number, index + 1);
    result.push(field);
  }
  if (result.length === fields.length && order.length === fields.length) return result;
  const rank = new Map<number, number>();
  for (const number of order) if (!rank.has(number)) rank.set(number, rank.size);
  const rankOf = (number: number): number => rank.get(number) ?? rank.size;
  return [...fields].sort((a, b) => rankOf(a.number) - rankOf(b.number) || a.number - b.number);
}

/** The fields of encoded bytes, in their order. */
export function splitFields(wire: Uint8Array): Field[] {
  const fields: Field[] = [];
  const source = {
    id: 'encoded',
    size: wire.length,
    readInto: (target: Uint8Array, at: number, length: number, offset: number) =>
      target.set(wire.subarray(offset, offset + length), at),
  };
  const reader = new WireReader(source, 'encoded message');
  while (reader.pos < wire.length) {
    const start = reader.pos;
    const tag = reader.tag(wire.length);
    const number = Math.floor(tag / 8);
    reader.skip(number, tag % 8, wire.length);
    fields.push({ number, rope: ropeOf(wire.subarray(start, reader.pos)) });
  }
  return fields;
}
