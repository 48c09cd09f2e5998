/**
 * Weights in text. Inline ones are constants in braces. Bytes in a file take the official form for external data:
 *
 *   float[4,4] w = ["location": "weights.bin", "offset": "0", "length": "64"]
 *
 * All other expressions stand in the same place, with leaves `type@file+offset`:
 *
 *   float[4,8] w = ["expr": "concat(1, scale(0, float[4,4]@weights.bin+0, float[4]@weights.bin+64), float[4,4]{...})"]
 *
 * `scale(axis, weight, by)`, `slice(axis, start, end, weight)`, `transpose(weight)`, `add(weights...)`,
 * `contract(weight, by)`, `cast(type, weight)`, `requantize(part, bits, blocks, scales, [zero points,] by)`.
 */
import { Diagnostic, errors } from '../diagnostic.js';
import { byteSize, type DataType, dataTypeCode, dataTypeOf, elementCount } from '../type.js';
import {
  add,
  type BlockPart,
  type ByteSource,
  cast,
  concat,
  contract,
  inlineWeight,
  requantize,
  scale,
  slice,
  sourceWeight,
  transpose,
  type Weight,
} from '../weight.js';
import { Lexer, quote } from './lex.js';
import { literalText, parseLiteral } from './literal.js';
import { tensorText } from './type-syntax.js';

/** What a source is called in text. */
export type Locate = (source: ByteSource) => string;
/** The source that a location in text stands for. Throws a Diagnostic when there is none. */
export type Resolve = (location: string) => ByteSource;

/** Where entries stand, worked out only for messages: it takes a walk through the text. */
type Place = () => string;

/** Inline weights above this size are what `elide` leaves out. */
export const ELIDE_ABOVE = 1024;
const BLOCK_PARTS: readonly BlockPart[] = ['blocks', 'scales', 'zero_points'];
const MAX_DEPTH = 64;
const MAX_LEAVES = 100_000;
/** Keeps the size in bytes an exact number. */
export const MAX_ELEMENTS = 2 ** 49;
const BARE_LOCATION = /[A-Za-z0-9_./-]+/y;

/** The entries in brackets for a weight that is not inline, for a tensor of this type and shape. */
export function weightEntries(
  weight: Weight,
  dtype: DataType,
  dims: readonly number[],
  locate: Locate,
  elide: boolean,
): [string, string][] {
  if (weight.op === 'source' && weight.dtype === dtype && weight.dims.join() === dims.join()) {
    return [
      ['location', locate(weight.source)],
      ['offset', String(weight.offset)],
      ['length', String(weight.byteLength)],
    ];
  }
  return [['expr', expressionText(weight, locate, elide)]];
}

function expressionText(weight: Weight, locate: Locate, elide: boolean): string {
  const inner = (part: Weight): string => expressionText(part, locate, elide);
  switch (weight.op) {
    case 'source': {
      const location = locate(weight.source);
      BARE_LOCATION.lastIndex = 0;
      const isBare = BARE_LOCATION.exec(location)?.[0] === location;
      return `${tensorText(weight.dtype, weight.dims)}@${isBare ? location : quote(location)}+${weight.offset}`;
    }
    case 'inline': {
      const head = tensorText(weight.dtype, weight.dims);
      if (elide && weight.byteLength > ELIDE_ABOVE) return `${head}{...}`;
      const { text, isExact } = literalText(weight.bytes, weight.dtype, weight.dims);
      return isExact ? `${head}{${text}}` : `${head}="${Buffer.from(weight.bytes).toString('base64')}"`;
    }
    case 'slice':
      return `slice(${weight.axis}, ${weight.start}, ${weight.end}, ${inner(weight.operand)})`;
    case 'scale':
      return `scale(${weight.axis}, ${inner(weight.operand)}, ${inner(weight.by)})`;
    case 'transpose':
      return `transpose(${inner(weight.operand)})`;
    case 'concat':
      return `concat(${weight.axis}, ${weight.parts.map(inner).join(', ')})`;
    case 'add':
      return `add(${weight.parts.map(inner).join(', ')})`;
    case 'contract':
      return `contract(${inner(weight.operand)}, ${inner(weight.by)})`;
    case 'cast':
      return `cast(${weight.dtype}, ${inner(weight.operand)})`;
    case 'requantize': {
      const { blocks, scales, zeroPoints, bits } = weight.matrix;
      const tensors = [blocks, scales, ...(zeroPoints ? [zeroPoints] : []), weight.by];
      return `requantize(${weight.part}, ${bits}, ${tensors.map(inner).join(', ')})`;
    }
  }
}

/**
 * The weight of the entries in brackets. `place` says where they stand. Throws OF_TEXT for what is not understood or does
 * not fit together, OF_EXTERNAL_* for entries that onnxruntime would refuse too.
 */
export function parseEntries(
  entries: ReadonlyMap<string, string>,
  tensor: string,
  dtype: DataType,
  dims: readonly number[],
  resolve: Resolve | undefined,
  place: Place,
): Weight {
  const expression = entries.get('expr');
  if (expression !== undefined) {
    const parser = new ExpressionParser(expression, place, resolve);
    const weight = parser.parse();
    if (weight.dtype === dtype && weight.dims.join() === dims.join()) return weight;
    const found = tensorText(weight.dtype, weight.dims);
    throw errors.text(place(), `an expression of type ${found}`, `one of type ${tensorText(dtype, dims)}`);
  }
  if (entries.has('elided')) throw errors.text(place(), 'an elided weight', 'its values: print with weights in full');
  const location = entries.get('location');
  if (location === undefined) throw errors.text(place(), 'entries without a location', "'location'");
  const offset = wholeNumber(entries, 'offset', tensor) ?? 0;
  const length = wholeNumber(entries, 'length', tensor);
  const size = byteSize(dtype, dims);
  if (length !== undefined && length !== size) throw errors.externalLength(tensor, length, size);
  return leafOf(resolve, location, offset, dtype, dims, place);
}

function wholeNumber(entries: ReadonlyMap<string, string>, key: string, tensor: string): number | undefined {
  const text = entries.get(key);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^[0-9]{1,16}$/.test(text) || !Number.isSafeInteger(value)) throw errors.externalEntry(tensor, key, text);
  return value;
}

function leafOf(
  resolve: Resolve | undefined,
  location: string,
  offset: number,
  dtype: DataType,
  dims: readonly number[],
  place: Place,
): Weight {
  if (!resolve)
    throw errors.text(place(), `data in the file '${location}'`, 'constants: no folder is known for this text');
  const source = resolve(location);
  const end = offset + byteSize(dtype, dims);
  if (end > source.size) throw errors.externalShort(place(), location, end, source.size);
  return sourceWeight(source, offset, dtype, dims);
}

class ExpressionParser {
  readonly #lexer: Lexer;
  readonly #place: Place;
  readonly #resolve: Resolve | undefined;
  #leaves = 0;

  constructor(text: string, place: Place, resolve: Resolve | undefined) {
    this.#lexer = new Lexer(text, (at) => `${place()}, character ${at + 1} of the expression`);
    this.#place = place;
    this.#resolve = resolve;
  }

  parse(): Weight {
    try {
      const weight = this.#weight(0);
      this.#lexer.expectEnd();
      return weight;
    } catch (error) {
      // The constructors of weights refuse shapes and types that do not go together.
      if (error instanceof Diagnostic || !(error instanceof TypeError || error instanceof RangeError)) throw error;
      throw errors.text(this.#place(), error.message, 'weights whose types and shapes go together');
    }
  }

  #weight(depth: number): Weight {
    const lexer = this.#lexer;
    if (depth > MAX_DEPTH) throw lexer.error(`expressions nested at most ${MAX_DEPTH} deep`);
    const word = lexer.identifier('a weight');
    if (dataTypeCode(word) >= 0) return this.#leaf(dataTypeOf(dataTypeCode(word)));
    lexer.expect('(');
    const weight = this.#call(word, depth + 1);
    lexer.expect(')');
    return weight;
  }

  #call(word: string, depth: number): Weight {
    const lexer = this.#lexer;
    switch (word) {
      case 'transpose':
        return transpose(this.#weight(depth));
      case 'add':
        return add(this.#weights(depth));
      case 'concat': {
        const axis = this.#integer();
        return concat(this.#weights(depth), axis);
      }
      case 'scale': {
        const axis = this.#integer();
        const operand = this.#weight(depth);
        lexer.expect(',');
        return scale(operand, axis, this.#weight(depth));
      }
      case 'slice': {
        const axis = this.#integer();
        const start = this.#integer();
        const end = this.#integer();
        return slice(this.#weight(depth), axis, start, end);
      }
      case 'contract': {
        const operand = this.#weight(depth);
        lexer.expect(',');
        return contract(operand, this.#weight(depth));
      }
      case 'cast': {
        const dtype = dataTypeOf(dataTypeCode(lexer.identifier()));
        lexer.expect(',');
        return cast(this.#weight(depth), dtype);
      }
      case 'requantize': {
        const name = lexer.identifier();
        const part = BLOCK_PARTS.find((each) => each === name);
        if (!part) throw lexer.error(BLOCK_PARTS.join(', '), undefined, `'${name}'`);
        lexer.expect(',');
        const bits = this.#integer();
        const at = lexer.at;
        const [blocks, scales, ...rest] = this.#weights(depth);
        const [zeroPoints, by] = rest.length === 1 ? [null, rest[0]] : rest;
        if (!blocks || !scales || !by || zeroPoints === undefined || rest.length > 2) {
          throw lexer.error('blocks, scales, zero points where there are any, and factors', at);
        }
        return requantize(part, { blocks, scales, zeroPoints, bits }, by);
      }
      default: {
        const known = 'concat, scale, slice, transpose, add, contract, cast, requantize or a type';
        throw lexer.error(known, undefined, `'${word}'`);
      }
    }
  }

  #integer(): number {
    const value = this.#lexer.safeInteger();
    this.#lexer.expect(',');
    return value;
  }

  #weights(depth: number): Weight[] {
    const parts = [this.#weight(depth)];
    while (this.#lexer.matches(',')) parts.push(this.#weight(depth));
    return parts;
  }

  #leaf(dtype: DataType): Weight {
    const lexer = this.#lexer;
    if (++this.#leaves > MAX_LEAVES) throw lexer.error(`at most ${MAX_LEAVES} leaves`);
    const dims = parseDims(lexer);
    if (lexer.matches('@')) {
      const location = lexer.next('"') ? lexer.string() : lexer.pattern(BARE_LOCATION, 'the name of a file');
      lexer.expect('+');
      return leafOf(this.#resolve, location, lexer.safeInteger('an offset'), dtype, dims, this.#place);
    }
    if (!lexer.matches('=')) return inlineWeight(parseLiteral(lexer, dtype, dims), dtype, dims);
    const at = lexer.at;
    const bytes = parseBase64(lexer.string());
    if (!bytes) throw lexer.error('base64', at);
    if (bytes.length !== byteSize(dtype, dims))
      throw errors.tensorSize(this.#place(), bytes.length, byteSize(dtype, dims));
    return inlineWeight(bytes, dtype, dims);
  }
}

/** `[2,3]`, or nothing for a scalar. */
export function parseDims(lexer: Lexer): number[] {
  if (!lexer.matches('[')) return [];
  const dims: number[] = [];
  do {
    const at = lexer.at;
    const size = lexer.safeInteger('the size of a dimension');
    if (size < 0) throw lexer.error('a size', at);
    dims.push(size);
  } while (lexer.matches(','));
  if (elementCount(dims) > MAX_ELEMENTS) throw lexer.error('a tensor of less than 2^49 elements');
  lexer.expect(']');
  return dims;
}

/** The bytes of base64 text; null when it is none. */
export function parseBase64(text: string): Uint8Array | null {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return null;
  return new Uint8Array(Buffer.from(text, 'base64'));
}
