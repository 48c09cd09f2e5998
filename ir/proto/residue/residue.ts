/**
 * The residue: what an original message says beyond the canonical one, for the text. It is made of fields that the core
 * has no room for, fields written out with their defaults or left out, wire bytes that are not in canonical form, the
 * order of fields, and carried ranges. `residueOf` takes it from the original message; `restore` makes the message that the reader would have decoded.
 */

import { MemorySource, readable } from '../../bytes.js';
import type { Carried, Graph, Model } from '../../core.js';
import { LONG_DEFAULT_DOMAIN } from '../../names.js';
import type { ByteSource } from '../../weight.js';
import { canonicalGraph, canonicalModel } from '../canonical.js';
import {
  carry,
  type ExtraInfo,
  type Original,
  type OriginalGraph,
  type OriginalModel,
  originalOf,
} from '../carried.js';
import { inOrder, type Range, type Shape, splitFields } from '../frame.js';
import { copyMessage, decodeMessage, encodeMessage, type MessageName, type Messages } from '../messages.js';
import { equalBytes, joinBytes, WireReader } from '../wire.js';

/** A carried field: its payload in memory, or where it is. */
export interface RangeNote {
  readonly number: number;
  readonly wireType: number;
  readonly bytes: Uint8Array | null;
  readonly source: ByteSource;
  readonly offset: number;
  readonly length: number;
}

/** What is left of an original message when the canonical one is taken away. */
export interface Residue {
  /** Fields with other content than the core says, as a message of the same type. */
  readonly fields?: Uint8Array;
  /** Names of strings that are written out although they are empty. */
  readonly present?: readonly string[];
  /** Names of fields that the core says and the file leaves out. */
  readonly absent?: readonly string[];
  /** All fields but the framed ones as they came, where another writer would write them differently. */
  readonly wire?: Uint8Array;
  /** The field number of every entry, where they do not ascend. */
  readonly order?: readonly number[];
  /** Carried fields; undefined when they are those that the core implies. */
  readonly ranges?: readonly RangeNote[];
}

/** Fields that the encoder takes from the core, whatever was in the file. */
const OWNED: { readonly [N in MessageName]?: readonly string[] } = {
  ModelProto: ['irVersion', 'producerName', 'producerVersion', 'domain', 'modelVersion', 'docString'],
  GraphProto: ['docString'],
  NodeProto: ['input', 'output', 'docString'],
  AttributeProto: ['docString', 'floats', 'ints', 'strings', 'refAttrName'],
  TensorProto: ['docString'],
  FunctionProto: ['input', 'output', 'attribute', 'docString'],
};
/** Fields that the encoder takes from the core, except that a default stays out when the file left it out, or in. */
const OWNED_UNLESS_DEFAULT: { readonly [N in MessageName]?: readonly string[] } = {
  OperatorSetIdProto: ['domain', 'version'],
  GraphProto: ['name'],
  NodeProto: ['name', 'opType', 'domain', 'overload'],
  AttributeProto: ['name', 'f', 'i', 's'],
  TensorProto: ['name'],
  FunctionProto: ['name', 'domain', 'overload'],
};

/** What `thing` carries beyond the message `canonical`; null when that says it all. `implied` are the ranges it implies. */
export function residueOf<N extends MessageName>(
  type: N,
  thing: { readonly carried?: Carried },
  canonical: Messages[N],
  implied: readonly RangeNote[] = [],
): Residue | null {
  const old = originalOf<Original<N>>(thing.carried);
  return old && residueOfOriginal(type, old, canonical, implied);
}

/** As `residueOf`, of the original message. */
export function residueOfOriginal<N extends MessageName>(
  type: N,
  { message, shape, ranges }: Original<N>,
  canonical: Messages[N],
  implied: readonly RangeNote[] = [],
): Residue | null {
  const wire = shape && oddWire(shape);
  const difference = wire ? { wire } : differenceOf(type, message, canonical);
  const residue: Residue = {
    ...difference,
    ...(shape?.order ? { order: shape.order } : {}),
    ...(sameRanges(ranges, implied) ? {} : { ranges }),
  };
  return Object.keys(residue).length > 0 ? residue : null;
}

/** The bytes of fields that are not canonical, unless all that is odd is their order, which the shape says anyway. */
function oddWire({ wire, canonical, order }: Shape): Uint8Array | null {
  if (!wire || !canonical || !order) return wire ?? null;
  const fields = splitFields(canonical);
  const reordered = inOrder(
    fields,
    splitFields(wire).map(({ number }) => number),
  );
  const bytes = reordered.flatMap(({ rope }) => rope.chunks.filter((chunk) => chunk instanceof Uint8Array));
  return equalBytes(joinBytes(bytes), wire) ? null : wire;
}

function differenceOf<N extends MessageName>(type: N, old: Messages[N], canonical: Messages[N]): Residue {
  if (equalBytes(encodeMessage(type, old), encodeMessage(type, canonical))) return {};
  const owned: readonly string[] = OWNED[type] ?? [];
  const soft: readonly string[] = OWNED_UNLESS_DEFAULT[type] ?? [];
  const fields = copyMessage(type, undefined);
  const present: string[] = [];
  const absent: string[] = [];
  for (const key of new Set([...fieldsOf(old), ...fieldsOf(canonical)])) {
    const was = encodeField(type, old, key);
    const is = encodeField(type, canonical, key);
    if (owned.includes(key) || equalBytes(was, is)) continue;
    // The core has one name for the default domain.
    if (key === 'domain' && isSpelledOut(old, canonical)) setField(fields, key, LONG_DEFAULT_DOMAIN);
    else if (soft.includes(key)) {
      // Both there: the encoder takes the core's. Only the default can be on one side alone and stay there.
      if (was.length > 0 && is.length > 0) continue;
      const value = (old as Record<string, unknown>)[key];
      if (was.length > 0 && typeof value === 'string') present.push(key);
      else if (was.length > 0) setField(fields, key, value);
      else if (isDefault((canonical as Record<string, unknown>)[key])) absent.push(key);
    } else if (key === 'metadataProps' && !sameEntries(type, old, canonical)) {
    } else if (was.length > 0) setField(fields, key, (old as Record<string, unknown>)[key]);
    else absent.push(key);
  }
  const wire = encodeMessage(type, fields);
  return {
    ...(wire.length > 0 ? { fields: wire } : {}),
    ...(present.length > 0 ? { present } : {}),
    ...(absent.length > 0 ? { absent } : {}),
  };
}

/** True where the file has the long name of the default domain, and the core its short one. */
function isSpelledOut(old: object, said: object): boolean {
  const domainOf = (message: object): unknown => (message as { domain?: string }).domain ?? '';
  return domainOf(old) === LONG_DEFAULT_DOMAIN && domainOf(said) === '';
}

function fieldsOf(message: object): string[] {
  // Unknown fields are not enumerable.
  return Object.getOwnPropertyNames(message);
}

function encodeField<N extends MessageName>(type: N, message: Messages[N], key: string): Uint8Array {
  if (!Object.hasOwn(message, key)) return new Uint8Array(0);
  const only = copyMessage(type, undefined);
  setField(only, key, (message as Record<string, unknown>)[key]);
  return encodeMessage(type, only);
}

function setField(message: object, key: string, value: unknown): void {
  Object.defineProperty(message, key, { value, writable: true, enumerable: true, configurable: true });
}

function isDefault(value: unknown): boolean {
  if (typeof value === 'number') return Object.is(value, 0);
  if (typeof value === 'string' || value instanceof Uint8Array) return value.length === 0;
  const long = value as { low?: number; high?: number };
  return long.low === 0 && long.high === 0;
}

/** True when the encoder would leave the entries of the file as they are (it does while they say the same). */
function sameEntries<N extends MessageName>(type: N, old: Messages[N], canonical: Messages[N]): boolean {
  const list = (message: Messages[N]): string => {
    const entries = (message as { metadataProps?: { key?: string; value?: string }[] }).metadataProps ?? [];
    return JSON.stringify(entries.map((entry) => [entry.key ?? '', entry.value ?? '']));
  };
  return type !== 'OperatorSetIdProto' && list(old) === list(canonical);
}

function sameRanges(ranges: readonly Range[], implied: readonly RangeNote[]): boolean {
  return ranges.length === implied.length && ranges.every((range, i) => sameRange(range, implied[i] as RangeNote));
}

export function sameRange(a: RangeNote, b: RangeNote): boolean {
  if (a.number !== b.number || a.wireType !== b.wireType || a.length !== b.length) return false;
  if (a.source === b.source && a.offset === b.offset) return true;
  return equalBytes(rangeBytes(a), rangeBytes(b));
}

/** The payload of a carried range. */
export function rangeBytes(range: RangeNote): Uint8Array {
  if (range.bytes) return range.bytes;
  const bytes = new Uint8Array(range.length);
  readable(range.source).readInto(bytes, 0, range.length, range.offset);
  return bytes;
}

export function rangeOfBytes(number: number, wireType: number, bytes: Uint8Array): RangeNote {
  return { number, wireType, bytes, source: new MemorySource(bytes), offset: 0, length: bytes.length };
}

/** The message and shape that the reader would have decoded. Throws whatever protobufjs throws for bad wire. */
export function restore<N extends MessageName>(
  type: N,
  canonical: Messages[N],
  residue: Residue | null,
  implied: readonly RangeNote[] = [],
): Original<N> {
  const ranges = residue?.ranges ?? implied;
  const order = residue?.order ? { order: residue.order } : {};
  if (residue?.wire) {
    const message = decodeMessage(type, residue.wire);
    return { message, ranges, shape: { wire: residue.wire, canonical: encodeMessage(type, message), ...order } };
  }
  const message = copyMessage(type, canonical);
  if (residue?.fields) {
    const fields = decodeMessage(type, residue.fields);
    for (const key of fieldsOf(fields)) {
      // protobufjs makes empty lists for repeated fields.
      if (encodeField(type, fields, key).length === 0) continue;
      Object.defineProperty(message, key, Object.getOwnPropertyDescriptor(fields, key) as PropertyDescriptor);
    }
  }
  for (const key of residue?.present ?? []) setField(message, key, '');
  for (const key of residue?.absent ?? []) delete (message as Record<string, unknown>)[key];
  const shape: Shape | null = residue?.order ? order : null;
  return { message, ranges, shape };
}

/** What a model carries, from its residue and the files that it refers to. */
export function restoreModel(model: Model, residue: Residue | null, sources: readonly ByteSource[]): void {
  if (!residue && sources.length === 0) return;
  const carried: OriginalModel = { ...restore('ModelProto', canonicalModel(model), residue), sources };
  model.carried = carry(carried);
}

/** What a graph carries, from its residue, extra value_info and the order of its nodes in the file. */
export function restoreGraph(
  graph: Graph,
  residue: Residue | null,
  extraInfos: readonly ExtraInfo[],
  unsorted: OriginalGraph['unsorted'],
): void {
  if (!residue && extraInfos.length === 0 && !unsorted) return;
  const carried: OriginalGraph = { ...restore('GraphProto', canonicalGraph(graph), residue), extraInfos, unsorted };
  graph.carried = carry(carried);
}

/** What anything else carries; null when nothing. */
export function restoreCarried<N extends MessageName>(
  type: N,
  canonical: Messages[N],
  residue: Residue | null,
  implied: readonly RangeNote[] = [],
): Carried {
  return residue || implied.length > 0 ? carry(restore(type, canonical, residue, implied)) : null;
}

/** A reader of bytes in memory. */
export function readerOf(bytes: Uint8Array): WireReader {
  return new WireReader(new MemorySource(bytes), 'carried bytes');
}
