/**
 * Where the heads of several attentions lie in a value when the attentions are made one: along one axis, member after
 * member. How Reshape and Transpose move that axis is worked out on the shape of the first member, the frame.
 */
import type { Weight } from '../../ir/weight.js';
import { fixedSize, type Size, type Sizes } from './dimensions.js';
import { NotExact } from './matrix.js';

/** Members' sizes along the axis, [part][member]. A packed projection has parts: the queries of all, then all keys... */
export type Parts = readonly (readonly number[])[];

export interface Spread {
  /** Dimensions of the frame's value as if none were merged with the one before it; null where not known. */
  readonly dims: readonly (number | null)[];
  /** The dimension along which members follow one another. */
  readonly axis: number;
  /** dims[from..axis] are stored as one dimension; equal to `axis` where nothing is merged. */
  readonly from: number;
  readonly parts: Parts;
  /** Factors for the channels of a head, of each member, that are still to be applied: a norm's differing weights. */
  readonly scale?: readonly Weight[];
}

export function rankOf({ dims, axis, from }: Spread): number {
  return dims.length - (axis - from);
}

/** The frame's size along the axis, and the size for all members together. */
export function sizesOf({ parts }: Spread): { readonly now: number; readonly later: number } {
  const now = parts.reduce((sum, part) => sum + (part[0] as number), 0);
  return { now, later: parts.flat().reduce((sum, size) => sum + size, 0) };
}

/** The shape as the graph has it, and will have it. */
export function shapeOf(spread: Spread): Sizes {
  const { dims, axis, from } = spread;
  const { now, later } = sizesOf(spread);
  const own: Size = from === axis ? { now, later, grows: true } : { now: null, later: null, grows: true };
  return [...dims.slice(0, from).map(fixedSize), own, ...dims.slice(axis + 1).map(fixedSize)];
}

/** Position of the stored dimension `at` among `dims`. Not for the axis of a spread that has merged dimensions. */
export function virtualAxis({ axis, from }: Spread, at: number): number {
  return at <= from ? (at === from ? axis : at) : at + axis - from;
}

/** With a dimension changed; `at` counts stored dimensions. */
export function withDim(spread: Spread, at: number, size: number | null): Spread {
  const place = virtualAxis(spread, at);
  return { ...spread, dims: spread.dims.map((dim, i) => (i === place ? size : dim)) };
}

export function samePlace(a: Spread, b: Spread): boolean {
  const isAligned = a.dims.length - a.axis === b.dims.length - b.axis && a.axis - a.from === b.axis - b.from;
  return isAligned && JSON.stringify(a.parts) === JSON.stringify(b.parts);
}

/** What Transpose makes of a spread. */
export function transposed(spread: Spread, perm: readonly number[]): Spread {
  const { dims, axis, from } = spread;
  const merged = axis - from;
  if (merged > 0 && perm.indexOf(from) !== from) throw new NotExact('heads that are merged with tokens are transposed');
  const at = perm.indexOf(from);
  const order = perm.flatMap((i) => (i === from ? range(from, axis + 1) : [virtualAxis(spread, i)]));
  return { ...spread, dims: order.map((i) => dims[i] ?? null), from: at, axis: at + merged };
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

export interface Reshaped {
  readonly spread: Spread;
  /** Element of the target that must be another number for all members together; null where the target fits as it is. */
  readonly patch: { readonly position: number; readonly value: number } | null;
}

/**
 * What Reshape to `target` makes of a spread. The axis may be split, merged with what follows it, or merged with what
 * comes before it and split off again. With one head, a merge may look like nothing at all: `joinsTokens` says that it
 * is wanted. Throws NotExact where the heads cannot be followed.
 */
export function reshaped(spread: Spread, target: Sizes, copiesZero: boolean, joinsTokens = false): Reshaped {
  const { dims, axis } = spread;
  const stored = shapeOf(spread);
  const wanted = target.map((size, i) => (size.now === 0 && copiesZero ? (stored[i] ?? size) : size));
  const rest = leftOver(wanted, stored);
  const inner = wanted.map((size) => (size.now === -1 && rest !== null ? fixedSize(rest) : size));
  let rightmost: Reshaped | null = null;
  for (let position = target.length - 1; position >= 0; position--) {
    const before = wanted.slice(0, position);
    const isPrefix = before.every((size, i) => i < axis && matches(size, dims[i] ?? null));
    const found = placeAt(spread, [...wanted.slice(0, position + 1), ...inner.slice(position + 1)], position, isPrefix);
    // Dimensions of 1 leave a choice: where all that came before the axis still does, it is the axis.
    if (found && isPrefix && position === axis) return found;
    const isJoined = found && found.spread.from < found.spread.axis;
    if (!rightmost || (joinsTokens && isJoined)) rightmost = found;
  }
  if (!rightmost) throw new NotExact('where a Reshape puts the heads was not found');
  return rightmost;
}

/** What Expand to `target` makes of a spread. Throws NotExact where heads would be repeated. */
export function expanded(spread: Spread, target: Sizes): Reshaped {
  if (spread.from !== spread.axis) throw new NotExact('heads that are merged with tokens are repeated');
  const added = Math.max(target.length - spread.dims.length, 0);
  const axis = spread.axis + added;
  const position = axis - (spread.dims.length + added - target.length);
  const size = target[position];
  const { now, later } = sizesOf(spread);
  const isOwn = !size || takesAll(size) || size.now === 1 || size.later === later;
  if (!isOwn && (size.now !== now || size.grows)) throw new NotExact('an Expand repeats heads');
  const wide = [...new Array<number>(added).fill(1), ...spread.dims];
  const dims = broadcast(
    wide,
    target.map((each) => (each.now === -1 ? 1 : each.now)),
  );
  const made = { ...spread, dims: dims.map((dim, i) => (i === axis ? now : dim)), axis, from: axis };
  return { spread: made, patch: isOwn ? null : { position, value: later } };
}

/** What broadcasting makes of dimensions, aligned at the end; the first list is the longer one. */
export function broadcast(a: readonly (number | null)[], b: readonly (number | null)[]): (number | null)[] {
  const shift = a.length - b.length;
  return a.map((dim, i) => {
    const other = i < shift ? 1 : (b[i - shift] ?? null);
    if (dim === 1) return other;
    return dim ?? (other === 1 ? null : other);
  });
}

/** The spread of one member alone. */
export function ofMember(spread: Spread, m: number): Spread {
  const parts = spread.parts.map((part) => [part[m] as number]);
  const size = parts.reduce((sum, [own]) => sum + (own as number), 0);
  return { ...spread, dims: spread.dims.map((dim, i) => (i === spread.axis ? size : dim)), parts };
}

/** True where `own` is how the spread of all looks for member `m`; unknown sizes agree with all. */
export function agrees(spread: Spread, own: Spread, m: number): boolean {
  const expected = ofMember(spread, m);
  const isPlace = expected.axis === own.axis && expected.from === own.from && expected.dims.length === own.dims.length;
  return isPlace && expected.dims.every((dim, i) => dim === null || own.dims[i] === null || dim === own.dims[i]);
}

/** What -1 stands for, where all unknown sizes of the one shape are in the other too. */
function leftOver(target: Sizes, stored: Sizes): number | null {
  const isUnknown = ({ now }: Size): boolean => now === null;
  if (target.filter(isUnknown).length !== stored.filter(isUnknown).length) return null;
  const product = (sizes: Sizes): number => sizes.reduce((all, { now }) => all * (now ?? 1), 1);
  const size = product(stored) / Math.abs(product(target));
  return Number.isInteger(size) ? size : null;
}

function matches(size: Size, dim: number | null): boolean {
  return !size.grows && size.now !== -1 && (size.now === dim || size.now === null || dim === null);
}

function placeAt(spread: Spread, wanted: Sizes, position: number, isPrefix: boolean): Reshaped | null {
  const { dims, axis } = spread;
  const inner = innerSize(wanted.slice(position + 1), dims.slice(axis + 1));
  if (inner === null) return null;
  const parts = spread.parts.map((part) => part.map((size) => size / inner));
  if (!parts.flat().every(Number.isInteger) || (parts.length > 1 && inner !== 1)) return null;
  const size = wanted[position] as Size;
  const { now, later } = sizesOf({ ...spread, parts });
  const rest = [now, ...wanted.slice(position + 1).map((each) => each.now)];
  if (size.now === now || (takesAll(size) && isPrefix && position === axis)) {
    const fits = takesAll(size) || size.later === later;
    if (!fits && size.grows) return null;
    const first = wanted.slice(0, position).map((each) => (each.now === -1 ? null : each.now));
    const made = { dims: [...first, ...rest], axis: position, from: position, parts };
    return { spread: made, patch: fits ? null : { position, value: later } };
  }
  // -1 takes up the axis and what comes before it.
  if (!takesAll(size) || !isPrefix || position >= axis) return null;
  return { spread: { dims: [...dims.slice(0, axis), ...rest], axis, from: position, parts }, patch: null };
}

/** Whatever is left: -1, or a number computed from the sizes that change. */
function takesAll({ now, grows }: Size): boolean {
  return now === -1 || (now === null && grows);
}

/**
 * How many of the axis' elements the dimensions after the axis take up in the target: 64 where [.., 512] becomes
 * [.., 8, 64], 1/64 where [.., 8, 64] becomes [.., 512]. Null where that cannot be told.
 */
function innerSize(target: Sizes, after: readonly (number | null)[]): number | null {
  if (target.some(({ now, grows }) => grows || now === -1)) return null;
  // Unknown sizes (tokens) are on both sides or on none.
  const unknown = target.filter(({ now }) => now === null).length;
  if (unknown !== after.filter((dim) => dim === null).length || unknown > 1) return null;
  const product = (list: readonly (number | null)[]): number => list.reduce<number>((all, dim) => all * (dim ?? 1), 1);
  return product(target.map(({ now }) => now)) / product(after);
}
