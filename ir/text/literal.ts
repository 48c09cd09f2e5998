/**
 * Tensor elements in text, exactly as the official parser reads them:
 * - float and double as the shortest decimal that gives the same value back; complex numbers as pairs;
 * - float16, bfloat16 and the float8 types as the integer of their bit pattern;
 * - types below one byte as the packed bytes (official parsers put literals into int32_data, which is packed).
 *
 * For people, the parser also takes float constants for float16 and bfloat16 (`1.5`; `1` is a bit pattern) and one
 * constant per element for the types below one byte.
 */
import { toFloat16Bits } from '../half.js';
import { bitsOf, byteSize, type DataType, elementCount } from '../type.js';
import type { Lexer, Literal } from './lex.js';

/** The constants of a tensor; not `isExact` when they do not give the same bytes back (odd NaNs, a wrong size). */
export function literalText(
  bytes: Uint8Array,
  dtype: DataType,
  dims: readonly number[],
): { readonly text: string; readonly isExact: boolean } {
  const element = writers[dtype] ?? writers['uint8'];
  if (bitsOf(dtype) === 0 || !element) return { text: '', isExact: bytes.length === 0 };
  if (bytes.length !== byteSize(dtype, dims)) return { text: '', isExact: false };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = WIDTHS[dtype] ?? 1;
  const words: string[] = [];
  let isExact = !hasOddPadding(bytes, dtype, dims);
  for (let at = 0; at < bytes.length; at += width) {
    const word = element(view, at);
    isExact &&= word !== null;
    words.push(word ?? 'nan');
  }
  return { text: words.join(', '), isExact };
}

/** True when a single element below one byte has bits set above it, which the parser would take for padding. */
function hasOddPadding(bytes: Uint8Array, dtype: DataType, dims: readonly number[]): boolean {
  const bits = bitsOf(dtype);
  return bits < 8 && elementCount(dims) === 1 && (bytes[0] ?? 0) >= 2 ** bits;
}

type Writer = (view: DataView, at: number) => string | null;

/** Bytes of one constant, where it is not one. */
const WIDTHS: Readonly<Record<string, number>> = {
  uint16: 2,
  int16: 2,
  float16: 2,
  bfloat16: 2,
  uint32: 4,
  int32: 4,
  float: 4,
  complex64: 4,
  uint64: 8,
  int64: 8,
  double: 8,
  complex128: 8,
};

/** The NaNs that a constant can stand for; the bits of all others would be lost. */
const NANS: Readonly<Record<string, string>> = {
  [0x7fc00000]: 'nan',
  [0xffc00000]: '-nan',
  [String(0x7ff8000000000000n)]: 'nan',
  [String(0xfff8000000000000n)]: '-nan',
};

const float: Writer = (view, at) => {
  const value = view.getFloat32(at, true);
  return Number.isNaN(value) ? (NANS[view.getUint32(at, true)] ?? null) : floatText(value);
};
const double: Writer = (view, at) => {
  const value = view.getFloat64(at, true);
  return Number.isNaN(value) ? (NANS[String(view.getBigUint64(at, true))] ?? null) : doubleText(value);
};
const uint16: Writer = (view, at) => String(view.getUint16(at, true));

const writers: Readonly<Record<string, Writer>> = {
  float,
  complex64: float,
  double,
  complex128: double,
  uint8: (view, at) => String(view.getUint8(at)),
  int8: (view, at) => String(view.getInt8(at)),
  uint16,
  float16: uint16,
  bfloat16: uint16,
  int16: (view, at) => String(view.getInt16(at, true)),
  uint32: (view, at) => String(view.getUint32(at, true)),
  int32: (view, at) => String(view.getInt32(at, true)),
  uint64: (view, at) => String(view.getBigUint64(at, true)),
  int64: (view, at) => String(view.getBigInt64(at, true)),
};

/** The shortest decimal whose float32 is `value`, which must be one. */
export function floatText(value: number): string {
  // Integers below 2^24 are at their shortest.
  if (!Number.isFinite(value) || (Number.isInteger(value) && Math.abs(value) < 2 ** 24)) return doubleText(value);
  // Nine digits always suffice, and most values need eight or nine.
  let digits = 9;
  while (digits > 1 && roundTrips(value, digits - 1)) digits--;
  return String(Number(value.toPrecision(digits)));
}

function roundTrips(value: number, digits: number): boolean {
  return Math.fround(Number(value.toPrecision(digits))) === value;
}

function doubleText(value: number): string {
  if (Number.isFinite(value)) return Object.is(value, -0) ? '-0' : String(value);
  if (Number.isNaN(value)) return 'nan';
  return value > 0 ? 'inf' : '-inf';
}

/** A float attribute: always recognisable as one. */
export function floatAttributeText(value: number): string {
  // A double that is no float32 is written as the float32 it will become in the file.
  const text = floatText(Math.fround(value));
  return /^-?[0-9]+$/.test(text) ? `${text}.0` : text;
}

/** The number of an int or float constant, rounded to float32 unless `wide`. Throws OF_TEXT beyond its range. */
export function parseNumber(lexer: Lexer, literal: Literal, wide = false): number {
  const word = literal.text.toLowerCase();
  if (word.endsWith('nan')) return Number.NaN;
  if (word.includes('inf')) return word.startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const value = wide ? Number(word) : Math.fround(Number(word));
  if (!Number.isFinite(value)) throw lexer.error(`a number in the range of a ${wide ? 'double' : 'float'}`, literal.at);
  return value;
}

/**
 * Reads `{...}` as the bytes of a tensor of this type and shape. Throws OF_TEXT when the constants or their number do not
 * fit.
 */
export function parseLiteral(lexer: Lexer, dtype: DataType, dims: readonly number[]): Uint8Array {
  const start = lexer.at;
  const literals = parseConstants(lexer);
  const bits = bitsOf(dtype);
  const first = literals[0];
  if (bits === 0 && first) throw lexer.error(`no constants of type ${dtype}`, first.at);
  if (bits === 0) return new Uint8Array(0);
  const size = byteSize(dtype, dims);
  const perElement = dtype.startsWith('complex') ? 2 : 1;
  const isPacked = bits < 8 && literals.length === size;
  const expected = elementCount(dims) * perElement;
  if (!isPacked && literals.length !== expected) {
    throw lexer.error(`${expected} constants`, start, `${literals.length}`);
  }
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  if (isPacked) {
    for (const [i, literal] of literals.entries()) bytes[i] = Number(fits(lexer, literal, 8));
    // One element in one byte may also have been written as an element: the bits above it are padding.
    if (expected === 1) bytes[0] = (bytes[0] as number) & (2 ** bits - 1);
  } else if (bits < 8) {
    for (const [i, literal] of literals.entries()) {
      const value = Number(BigInt.asUintN(bits, fits(lexer, literal, bits)));
      const at = Math.floor((i * bits) / 8);
      bytes[at] = (bytes[at] as number) | (value << ((i * bits) % 8));
    }
  } else {
    const width = WIDTHS[dtype] ?? 1;
    for (const [i, literal] of literals.entries()) writeElement(lexer, view, i * width, dtype, literal);
  }
  return bytes;
}

/** Reads `{...}`. */
export function parseConstants(lexer: Lexer): Literal[] {
  const literals: Literal[] = [];
  lexer.expect('{');
  if (lexer.matches('}')) return literals;
  do {
    const at = lexer.at;
    const literal = lexer.number();
    if (!literal) throw lexer.error('a number', at);
    literals.push(literal);
  } while (lexer.matches(','));
  lexer.expect('}');
  return literals;
}

/** An integer that `bits` bits hold, signed or not. */
function fits(lexer: Lexer, literal: Literal, bits: number): bigint {
  if (literal.kind !== 'int') throw lexer.error('an integer', literal.at);
  return lexer.toInteger(literal, 'an integer', bits, literal.text.startsWith('-'));
}

function writeElement(lexer: Lexer, view: DataView, at: number, dtype: DataType, literal: Literal): void {
  switch (dtype) {
    case 'float':
    case 'complex64': {
      const value = parseNumber(lexer, literal);
      // setFloat32 leaves open which NaN it writes.
      if (Number.isNaN(value)) view.setUint32(at, literal.text.startsWith('-') ? 0xffc00000 : 0x7fc00000, true);
      else view.setFloat32(at, value, true);
      return;
    }
    case 'double':
    case 'complex128': {
      const value = parseNumber(lexer, literal, true);
      const nan = literal.text.startsWith('-') ? 0xfff8000000000000n : 0x7ff8000000000000n;
      if (Number.isNaN(value)) view.setBigUint64(at, nan, true);
      else view.setFloat64(at, value, true);
      return;
    }
    case 'float16':
      if (literal.kind === 'float') view.setUint16(at, toFloat16Bits(parseNumber(lexer, literal, true)), true);
      else view.setUint16(at, Number(fits(lexer, literal, 16)), true);
      return;
    case 'bfloat16':
      view.setUint16(
        at,
        literal.kind === 'float' ? toBfloat16(parseNumber(lexer, literal)) : Number(fits(lexer, literal, 16)),
        true,
      );
      return;
  }
  const width = WIDTHS[dtype] ?? 1;
  const isSigned = dtype.startsWith('int');
  if (literal.kind !== 'int') throw lexer.error('an integer', literal.at);
  const value = lexer.toInteger(literal, 'an integer', width * 8, isSigned);
  switch (width) {
    case 1:
      view.setUint8(at, Number(BigInt.asUintN(8, value)));
      return;
    case 2:
      view.setUint16(at, Number(BigInt.asUintN(16, value)), true);
      return;
    case 4:
      view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
      return;
    default:
      view.setBigUint64(at, BigInt.asUintN(64, value), true);
  }
}

/** The bits of the nearest bfloat16, ties to even. */
function toBfloat16(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  if (Number.isNaN(value)) return 0x7fc0;
  return Math.floor((bits + 0x7fff + (Math.floor(bits / 65536) % 2)) / 65536) % 65536;
}
