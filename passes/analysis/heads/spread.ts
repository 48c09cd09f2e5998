/**
 * Where the heads of several attentions lie in a value when the attentions are made one: along one axis, member after
 * member; or where those of one attention lie that is cut over ranks. How Reshape and Transpose move that axis is worked
 * out on the shape of the first member, the frame.
 */

import { tensorType, type ValueType } from '../../../ir/type.js';
import { counted } from '../../../ir/visible.js';
import type { Weight } from '../../../ir/weight.js';
import { Refusal } from '../refusal.js';
import { fixedSize, type Size, type Sizes } from '../values/dimensions.js';

/** Members' sizes along the axis, [part][member]. A packed projection has parts: the queries of all, then all keys... */
export type Parts = readonly (readonly number[])[];

/** What a rank gets of a part of an axis. */
export interface Cut {
  /** Elements that each rank holds; more than there are where the last ones are filled up with zeros. */
  readonly size: number;
  /** Different pieces: as many as ranks, or fewer where several ranks hold the same (key-value heads). */
  readonly pieces: number;
}

/** Sizes along an axis and, where they are cut over ranks, what a rank gets. */
export interface Portions {
  readonly parts: Parts;
  /** One for each part; absent where members are put together. */
  readonly cuts?: readonly Cut[] | undefined;
}

/** Where the heads of all members lie along the axes of a value. */
export interface Spread extends Portions {
  /** Dimensions of the frame's value as if none were merged with the one before it; null where not known. */
  readonly dims: readonly (number | null)[];
  /** The dimension along which members follow one another. */
  readonly axis: number;
  /** dims[from..axis] are stored as one dimension; equal to `axis` where nothing is merged. */
  readonly from: number;
  /** How often ranks that hold the same heads repeat them less than the frame does, along the dimension after the axis. */
  readonly fewer?: number;
  /** Factors for the channels of a head, of each member, that are still to be applied: a norm's differing weights. */
  readonly scale?: readonly Weight[];
}

/** How many dimensions the value has as it is stored. */
export function rankOf({ dims, axis, from }: Spread): number {
  return dims.length - (axis - from);
}

/** The frame's size along the axis, and the size for all members together, or for one rank. */
export function sizesOf(portions: Portions): { readonly now: number; readonly later: number } {
  const now = portions.parts.reduce((sum, part) => sum + (part[0] as number), 0);
  return { now, later: laterSizes(portions).reduce((sum, size) => sum + size, 0) };
}

/** The size of each part for all members together, or for one rank. */
export function laterSizes({ parts, cuts }: Portions): readonly number[] {
  return parts.map((part, i) => cuts?.[i]?.size ?? part.reduce((sum, size) => sum + size, 0));
}

/** So many of something cannot be dealt to ranks equally; `how` says in which portions they come. */
export function indivisible(count: number, what: string, ranks?: number, how = ''): Refusal {
  const among = ranks === undefined ? 'the ranks' : `${ranks} ranks`;
  return new Refusal(`${counted(count, what)}${how} ${count === 1 ? 'does' : 'do'} not divide among ${among}`);
}

/**
 * Counts `own`, cut in the proportion in which part `index` of `like` is: of heads where `like` counts channels.
 * Throws Refusal where a rank would get a part of one.
 */
export function inProportion(own: readonly number[], like: Portions | null, index = 0): Portions {
  const cut = like?.cuts?.[index];
  if (!cut) return { parts: [own] };
  const [count = 0] = own;
  const size = (count * cut.size) / (like?.parts[index]?.[0] ?? 1);
  if (!Number.isInteger(size)) throw indivisible(count, 'head');
  return { parts: [own], cuts: [{ size, pieces: cut.pieces }] };
}

/** The shape as the graph has it, and will have it. */
export function shapeOf(spread: Spread): Sizes {
  const { dims, axis, from } = spread;
  const { now, later } = sizesOf(spread);
  const own: Size = from === axis ? { now, later, grows: true } : { now: null, later: null, grows: true };
  const after = dims.slice(axis + 1).map((size, i): Size => {
    const isRepeated = i === 0 && spread.fewer !== undefined && size !== null;
    return isRepeated ? { now: size, later: size / (spread.fewer as number), grows: true } : fixedSize(size);
  });
  return [...dims.slice(0, from).map(fixedSize), own, ...after];
}

/** The type of a value once the heads are more or fewer: sizes stated in the file must not lie, those that lied are left out. */
export function resizedType(type: ValueType | null, spread: Spread): ValueType | null {
  if (type?.kind !== 'tensor' || !type.shape) return type;
  const later = shapeOf(spread);
  const isLie = (size: Size, i: number): boolean => {
    const dim = type.shape?.[i];
    return size.grows && size.now !== null && typeof dim === 'number' && dim !== size.now;
  };
  if (later.length !== type.shape.length || later.some(isLie)) return tensorType(type.dtype, null);
  const isStated = (i: number): boolean => later[i]?.grows === true && later[i]?.now === type.shape?.[i];
  if (!type.shape.some((dim, i) => typeof dim === 'number' && isStated(i))) return type;
  return tensorType(
    type.dtype,
    type.shape.map((dim, i) => (typeof dim === 'number' && isStated(i) ? (later[i]?.later ?? null) : dim)),
  );
}

/** Position of the stored dimension `at` among `dims`. Not for the axis of a spread that has merged dimensions. */
export function virtualAxis({ axis, from }: Spread, at: number): number {
  return at <= from ? (at === from ? axis : at) : at + axis - from;
}

/** The spread with one dimension changed; `at` counts stored dimensions. */
export function withDim(spread: Spread, at: number, size: number | null): Spread {
  const axis = virtualAxis(spread, at);
  return { ...spread, dims: spread.dims.map((dim, i) => (i === axis ? size : dim)) };
}

/** True when two values hold the same heads at the same place, counted from the end. */
export function sameSpread(a: Spread, b: Spread): boolean {
  const isAligned = a.dims.length - a.axis === b.dims.length - b.axis && a.axis - a.from === b.axis - b.from;
  const text = ({ parts, cuts }: Spread): string => JSON.stringify([parts, cuts]);
  return isAligned && text(a) === text(b);
}

/** What Transpose makes of a spread. */
export function transposed(spread: Spread, perm: readonly number[]): Spread {
  const { dims, axis, from } = spread;
  const merged = axis - from;
  if (merged > 0 && perm.indexOf(from) !== from) throw new Refusal('heads that are merged with tokens are transposed');
  const at = perm.indexOf(from);
  const order = perm.flatMap((i) => (i === from ? range(from, axis + 1) : [virtualAxis(spread, i)]));
  return { ...spread, dims: order.map((i) => dims[i] ?? null), from: at, axis: at + merged };
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

/** A reshaped spread, and how the target of the Reshape has to change. */
export interface Reshaped {
  readonly spread: Spread;
  /** Elements of the target that must be other numbers for all members together, or for one rank. */
  readonly patches: readonly { readonly position: number; readonly value: number }[];
}

/**
 * What Reshape to `target` makes of a spread. The axis may be split, merged with what follows it, or merged with what
 * comes before it and split off again. With one head, a merge may look like nothing at all: `joinsTokens` says that it
 * is wanted. Throws Refusal where the heads cannot be followed.
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
  if (!rightmost) throw new Refusal('where a Reshape puts the heads was not found');
  return rightmost;
}

/**
 * What Expand to `target` makes of a spread. Of heads that several of `ranks` ranks hold, each rank repeats fewer, which
 * is said in the dimension after the axis. Throws Refusal where heads would be repeated along their own axis.
 */
export function expanded(spread: Spread, target: Sizes, ranks = 1): Reshaped {
  if (spread.from !== spread.axis) throw new Refusal('heads that are merged with tokens are repeated');
  const added = Math.max(target.length - spread.dims.length, 0);
  const axis = spread.axis + added;
  const position = axis - (spread.dims.length + added - target.length);
  const size = target[position];
  const { now, later } = sizesOf(spread);
  const isOwn = !size || takesAll(size) || size.now === 1 || size.later === later;
  if (!isOwn && (size.now !== now || size.grows)) throw new Refusal('an Expand repeats heads');
  const wide = [...new Array<number>(added).fill(1), ...spread.dims];
  const dims = broadcast(
    wide,
    target.map((each) => (each.now === -1 ? 1 : each.now)),
  );
  const made = { ...spread, dims: dims.map((dim, i) => (i === axis ? now : dim)), axis, from: axis };
  const patches = isOwn ? [] : [{ position, value: later }];
  const holders = ranks / (spread.cuts?.[0]?.pieces ?? ranks);
  const repeats = wide[axis + 1] === 1 ? (dims[axis + 1] ?? 1) : 1;
  if (holders === 1 || repeats === 1) return { spread: made, patches };
  if (repeats % holders !== 0) {
    throw new Refusal(`${repeats} queries for each key-value head do not divide among ${holders} ranks`);
  }
  return {
    spread: { ...made, fewer: holders },
    patches: [...patches, { position: position + 1, value: repeats / holders }],
  };
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
  // The size of a head may be computed from the width, which a rank has less of: it stays as it is.
  const after = wanted.slice(position + 1);
  const kept = spread.cuts
    ? after.map((size) => (size.now !== null && size.grows ? fixedSize(size.now) : size))
    : after;
  const inner = innerSize(kept, dims.slice(axis + 1));
  if (inner === null) return null;
  const frozen = kept.flatMap((size, i) =>
    size === after[i] || size.now === after[i]?.later
      ? []
      : [{ position: position + 1 + i, value: size.now as number }],
  );
  const portions = divided(spread, inner);
  if (!portions || (portions.parts.length > 1 && inner !== 1)) return null;
  const size = wanted[position] as Size;
  const { now, later } = sizesOf(portions);
  const rest = [now, ...wanted.slice(position + 1).map((each) => each.now)];
  if (size.now === now || (takesAll(size) && isPrefix && position === axis)) {
    const fits = takesAll(size) || size.later === later;
    // A size that is computed is replaced in a rank's graph; where members are put together, it must come out right.
    if (!fits && size.grows && !portions.cuts) return null;
    const first = wanted.slice(0, position).map((each) => (each.now === -1 ? null : each.now));
    const made = { dims: [...first, ...rest], axis: position, from: position, ...portions };
    return { spread: made, patches: fits ? frozen : [{ position, value: later }, ...frozen] };
  }
  // -1 takes up the axis and what comes before it.
  if (!takesAll(size) || !isPrefix || position >= axis) return null;
  return { spread: { dims: [...dims.slice(0, axis), ...rest], axis, from: position, ...portions }, patches: frozen };
}

/** Parts with one element where there were `inner`; null where that does not come out even. */
function divided({ parts, cuts, fewer }: Spread, inner: number): Portions | null {
  const made = parts.map((part) => part.map((size) => size / inner));
  // Heads that were repeated for others to read become as many as those: each rank has its own.
  const isRepeated = fewer !== undefined && inner < 1;
  const pieces = cuts?.map((cut) => ({
    size: cut.size / inner / (isRepeated ? fewer : 1),
    pieces: cut.pieces * (isRepeated ? fewer : 1),
  }));
  if (![...made.flat(), ...(pieces ?? []).map(({ size }) => size)].every(Number.isInteger)) return null;
  return pieces ? { parts: made, cuts: pieces } : { parts: made };
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
