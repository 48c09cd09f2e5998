/** What attributes, and the attributes of functions, say beyond their values: see residue.ts. */
import type { Attribute, LocalFunction } from '../../core.js';
import type { ValueType } from '../../type.js';
import { type AttributeReader, decodeAttribute, encodeAttribute } from '../attribute.js';
import { TYPE_PROTO, TYPE_PROTOS } from '../canonical.js';
import { carry, type Original, type OriginalAttribute, originalOf } from '../carried.js';
import { readFramed } from '../frame.js';
import type { Messages } from '../messages.js';
import { decodeType } from '../metadata.js';
import { type Rope, ropeOf } from '../rope.js';
import { BYTES } from '../wire.js';
import {
  type RangeNote,
  type Residue,
  rangeBytes,
  rangeOfBytes,
  readerOf,
  residueOf,
  restore,
  sameRange,
} from './residue.js';

/** As `restore`, for an attribute. */
export function restoreAttribute(
  attribute: Attribute,
  canonical: Messages['AttributeProto'],
  residue: Residue | null,
): Attribute {
  const carried: OriginalAttribute = { ...restore('AttributeProto', canonical, residue), kind: attribute.kind };
  return { ...attribute, carried: carry(carried) };
}

/** What an attribute carries; null when its value is of another kind now. */
export function attributeResidue(attribute: Attribute, canonical: Messages['AttributeProto']): Residue | null {
  const isStale = originalOf<OriginalAttribute>(attribute.carried)?.kind !== attribute.kind;
  return isStale ? null : residueOf('AttributeProto', attribute, canonical);
}

/** The types in a type_proto or type_protos attribute; empty for everything else. */
export function attributeTypes(attribute: Attribute): readonly ValueType[] {
  if (attribute.kind !== 'opaque') return [];
  const message = originalOf<OriginalAttribute>(attribute.carried)?.message;
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
  const ranges = originalOf<Original<'FunctionProto'>>(item.carried)?.ranges ?? [];
  try {
    for (const range of ranges) {
      const bytes = rangeBytes(range);
      const framed = readFramed(readerOf(bytes), 'AttributeProto', 0, bytes.length);
      const { carried: _, ...attribute } = decodeAttribute(framed, NO_CHILDREN);
      const name = framed.message.name ?? '';
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
