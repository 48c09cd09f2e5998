/** What attributes, and the attributes of functions, say beyond their values: see leftover.ts. */
import type { Attribute, LocalFunction } from '../../core.js';
import type { ValueType } from '../../type.js';
import { type AttributeReader, decodeAttribute, encodeAttribute } from '../attribute.js';
import { TYPE_PROTO, TYPE_PROTOS } from '../canonical.js';
import { type Kept, type KeptAttribute, keep, kept } from '../carried.js';
import { readHollow } from '../frame.js';
import type { Messages } from '../messages.js';
import { decodeType } from '../metadata.js';
import { type Rope, ropeOf } from '../rope.js';
import { BYTES } from '../wire.js';
import {
  type Leftover,
  leftoverOf,
  type RangeNote,
  rangeBytes,
  rangeOfBytes,
  readerOf,
  restore,
  sameRange,
} from './residue.js';

/** As `restore`, for an attribute. */
export function restoreAttribute(
  attribute: Attribute,
  said: Messages['AttributeProto'],
  leftover: Leftover | null,
): Attribute {
  const carried: KeptAttribute = { ...restore('AttributeProto', said, leftover), kind: attribute.kind };
  return { ...attribute, carried: keep(carried) };
}

/** What an attribute carries; null when its value is of another kind now. */
export function attributeLeftover(attribute: Attribute, said: Messages['AttributeProto']): Leftover | null {
  const isStale = kept<KeptAttribute>(attribute.carried)?.kind !== attribute.kind;
  return isStale ? null : leftoverOf('AttributeProto', attribute, said);
}

/** The types in a type_proto or type_protos attribute; empty for everything else. */
export function attributeTypes(attribute: Attribute): readonly ValueType[] {
  if (attribute.kind !== 'opaque') return [];
  const message = kept<KeptAttribute>(attribute.carried)?.message;
  const found =
    attribute.type === TYPE_PROTO ? [message?.tp] : attribute.type === TYPE_PROTOS ? (message?.typeProtos ?? []) : [];
  return found.map(decodeType).filter((type) => type !== null);
}

/**
 * Defaults of function attributes that are plain values, with the ranges they come from. Empty when one of them is more
 * than that: then all stay carried.
 */
export function functionDefaults(item: LocalFunction): ReadonlyMap<string, Attribute> {
  const found = new Map<string, Attribute>();
  const ranges = kept<Kept<'FunctionProto'>>(item.carried)?.ranges ?? [];
  try {
    for (const range of ranges) {
      const bytes = rangeBytes(range);
      const hollow = readHollow(readerOf(bytes), 'AttributeProto', 0, bytes.length);
      const { carried: _, ...attribute } = decodeAttribute(hollow, NO_CHILDREN);
      const name = hollow.message.name ?? '';
      const [implied] = defaultRanges([[name, attribute]]);
      if (found.has(name) || !implied || !sameRange(range, implied)) return new Map();
      found.set(name, attribute);
    }
  } catch {
    return new Map();
  }
  return found;
}

const NO_CHILDREN: AttributeReader = {
  place: 'function attribute',
  tensor: () => {
    throw new TypeError('a default with a tensor stays carried');
  },
  graph: () => {
    throw new TypeError('a default with a graph stays carried');
  },
};

/** The carried fields of a function with these defaults. */
export function defaultRanges(defaults: Iterable<readonly [string, Attribute]>): RangeNote[] {
  const writer = { tensor: (): Rope => ropeOf(), graph: (): Rope => ropeOf() };
  return [...defaults].map(([name, attribute]) => {
    const { chunks } = encodeAttribute(name, attribute, writer);
    return rangeOfBytes(ATTRIBUTE_PROTO, BYTES, chunks[0] instanceof Uint8Array ? chunks[0] : new Uint8Array(0));
  });
}

/** FunctionProto.attribute_proto. */
const ATTRIBUTE_PROTO = 11;
