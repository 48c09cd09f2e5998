/** Text to measure on, as sequences of token ids. The files are not trusted: what is no id of the model is refused. */

import { closeSync, existsSync, read } from 'node:fs';
import { extname } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { errors } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import { apiErrors } from '../basics/errors.js';
import { inputError, openInput } from '../basics/small-file.js';
import { readNpyRows } from './npy.js';
import { BYTES, type TextCodec } from './text-codec.js';

const readPiece = promisify(read);

/** How data are read and cut. */
export interface TokenDataOptions {
  /** Valid ids are 0 to this, exclusive; null: the model does not tell, any id from 0 is taken. */
  readonly vocabulary: number | null;
  /** For text; null when the model has neither a tokenizer nor a token per byte. */
  readonly codec: TextCodec | null;
  /** Tokens of a sequence, 256 by default: longer records are cut, one piece after another. */
  readonly length?: number | undefined;
  /** Tokens in all, from the beginning of the file; 65536 by default. */
  readonly maxTokens?: number | undefined;
}

/** Sequences of token ids. */
export interface TokenData {
  readonly sequences: readonly (readonly number[])[];
  readonly tokens: number;
  /** What was read, for people: the file, and that it was not read to its end. */
  readonly source: string;
  /** Whether `maxTokens` ended it before the file did. */
  readonly cut: boolean;
}

/** Tokens of a sequence, unless told otherwise. */
export const DEFAULT_LENGTH = 256;
/** Tokens that are read, unless told otherwise. */
export const DEFAULT_MAX_TOKENS = 65536;

/**
 * Reads sequences from .jsonl (a line is an array of ids, {"input_ids": [...]} or {"text": "..."}), .npy (integers, one or
 * two dimensions) or any other file as text. Each record is cut into pieces of `length`; pieces of one token ask nothing
 * and are dropped. The same file gives the same sequences.
 * @throws Diagnostic OF_TOKEN_DATA with the line, OF_NO_SUCH_FILE, OF_READ or OF_USAGE.
 */
export async function loadTokenData(path: string, options: TokenDataOptions): Promise<TokenData> {
  const length = options.length ?? DEFAULT_LENGTH;
  const limit = options.maxTokens ?? DEFAULT_MAX_TOKENS;
  if (!Number.isInteger(length) || length < 2)
    throw errors.usage('option length', `it is ${length}, expected 2 or more`, 'try 256');
  if (!Number.isInteger(limit) || limit < 2)
    throw errors.usage('option max-tokens', `it is ${limit}, expected 2 or more`, 'try 65536');
  if (!existsSync(path)) throw errors.noSuchFile(path);
  const sequences: number[][] = [];
  let tokens = 0;
  let cut = false;
  for await (const { ids, place, isCut } of recordsOf(path, options, limit + 1)) {
    checkIds(ids, options.vocabulary, place);
    cut = isCut ?? false;
    for (let at = 0; at < ids.length; at += length) {
      const piece = ids.slice(at, Math.min(at + length, at + limit - tokens));
      if (piece.length < Math.min(length, ids.length - at)) cut = true;
      if (piece.length >= 2) {
        sequences.push(piece);
        tokens += piece.length;
      }
      if (cut && !isCut) break;
    }
    if (cut) break;
  }
  if (sequences.length === 0) throw apiErrors.tokenData(path, 'it has no sequence of two or more tokens');
  return { sequences, tokens, source: cut ? `the first ${counted(tokens, 'token')} of ${path}` : path, cut };
}

interface TokenRecord {
  readonly ids: readonly number[];
  readonly place: string;
  /** Whether there is more of the record in the file. */
  readonly isCut?: boolean;
}

/** A line holds a text or a sequence; longer ones are none. */
const LONGEST_LINE = 16 * 2 ** 20;
/** Bytes of a text that are read for each token that is wanted: no tokenizer makes longer ones on a text. */
const BYTES_PER_TOKEN = 64;
const PIECE = 256 * 1024;

/** The records of a file; reading may end after `limit` tokens. */
function recordsOf(path: string, options: TokenDataOptions, limit: number): AsyncIterable<TokenRecord> {
  const kind = extname(path).toLowerCase();
  if (kind === '.jsonl' || kind === '.ndjson') return jsonLines(path, options.codec);
  if (kind === '.npy') return npyRecords(path, limit);
  return textRecord(path, options.codec, limit);
}

async function* npyRecords(path: string, limit: number): AsyncGenerator<TokenRecord> {
  let row = 0;
  for (const ids of readNpyRows(path, limit)) {
    yield { ids, place: `${path}, row ${row++}` };
    // Signals are heard between pieces of work.
    if (row % 256 === 0) await setImmediate();
  }
}

async function* jsonLines(path: string, codec: TextCodec | null): AsyncGenerator<TokenRecord> {
  let number = 0;
  for await (const line of linesOf(path)) {
    number++;
    if (line.trim() === '') continue;
    const place = `${path}:${number}`;
    yield { ids: await lineIds(line, place, codec), place };
  }
}

/** The lines of a file. Memory is that of one line. */
async function* linesOf(path: string): AsyncGenerator<string> {
  let rest: Buffer[] = [];
  let length = 0;
  let number = 1;
  const text = (last: Buffer): string => Buffer.concat([...rest, last]).toString('utf8');
  for await (const piece of piecesOf(path)) {
    let from = 0;
    for (let at = piece.indexOf(10); at >= 0; at = piece.indexOf(10, from)) {
      yield text(piece.subarray(from, at));
      [rest, length, from] = [[], 0, at + 1];
      number++;
    }
    rest.push(piece.subarray(from));
    length += piece.length - from;
    if (length > LONGEST_LINE)
      throw apiErrors.tokenData(`${path}:${number}`, `it is longer than ${LONGEST_LINE} bytes`);
  }
  if (length > 0) yield text(Buffer.alloc(0));
}

/** The bytes of a file, piece by piece, each in a buffer of its own. */
async function* piecesOf(path: string): AsyncGenerator<Buffer> {
  const { file } = openInput(path);
  try {
    for (;;) {
      const { bytesRead, buffer } = await readPiece(file, Buffer.allocUnsafe(PIECE), 0, PIECE, null);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    throw inputError(path, error);
  } finally {
    closeSync(file);
  }
}

const FORMS = 'expected an array of ids, {"input_ids": [...]} or {"text": "..."}';

async function lineIds(line: string, place: string, codec: TextCodec | null): Promise<readonly number[]> {
  let value: unknown;
  try {
    value = JSON.parse(line.replace(/^\uFEFF/, ''));
  } catch {
    throw apiErrors.tokenData(place, `it is no JSON; ${FORMS}`);
  }
  if (Array.isArray(value)) return value as number[];
  const { input_ids: ids, text } = (typeof value === 'object' && value !== null ? value : {}) as {
    input_ids?: unknown;
    text?: unknown;
  };
  if (Array.isArray(ids)) return ids as number[];
  if (typeof text === 'string') return needCodec(codec, place).encode(text);
  throw apiErrors.tokenData(place, FORMS);
}

/** A text file, as far as it can matter. A model with a token per byte takes any bytes. */
async function* textRecord(path: string, codec: TextCodec | null, limit: number): AsyncGenerator<TokenRecord> {
  const known = needCodec(codec, path);
  const most = limit * (known === BYTES ? 1 : BYTES_PER_TOKEN);
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of piecesOf(path)) {
    pieces.push(piece);
    length += piece.length;
    if (length > most) break;
  }
  const bytes = Buffer.concat(pieces).subarray(0, most);
  const isCut = length > most;
  if (known === BYTES) {
    yield { ids: [...bytes], place: path };
    return;
  }
  let text: string;
  try {
    // What was cut in the middle of a character ends before it.
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: isCut });
  } catch {
    throw apiErrors.tokenData(path, 'it is no UTF-8 text');
  }
  yield { ids: await known.encode(text), place: path, isCut };
}

function needCodec(codec: TextCodec | null, place: string): TextCodec {
  if (codec) return codec;
  throw apiErrors.tokenData(place, 'text needs a tokenizer, and there is no tokenizer.json beside the model');
}

function checkIds(ids: readonly unknown[], vocabulary: number | null, place: string): void {
  const limit = vocabulary ?? Number.MAX_SAFE_INTEGER;
  for (const [at, id] of ids.entries()) {
    if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < limit) continue;
    const found = JSON.stringify(id)?.slice(0, 40);
    throw apiErrors.tokenData(
      place,
      `element ${at} is ${found}, expected a token id${vocabulary === null ? '' : ` below ${vocabulary}`}`,
    );
  }
}
