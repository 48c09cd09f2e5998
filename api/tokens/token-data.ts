/** Text to measure on, as sequences of token ids. The files are not trusted: what is no id of the model is refused. */
import { createReadStream, existsSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import { errors, reasonOf } from '../../ir/index.js';
import { apiErrors } from '../basics/errors.js';
import { readNpyRows } from './npy.js';
import { BYTES, type TextCodec } from './text-codec.js';

/** How data are read and cut. */
export interface TokenDataOptions {
  /** Valid ids are 0 to this, exclusive; null: the model does not tell, any id from 0 is taken. */
  readonly vocabulary: number | null;
  /** For text; null when the model has neither a tokenizer nor a token per byte. */
  readonly codec: TextCodec | null;
  /** Tokens of a sequence, 256 by default: longer records are cut, one piece after another. */
  readonly length?: number;
  /** Tokens in all, from the beginning of the file; 65536 by default. */
  readonly maxTokens?: number;
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
  try {
    for await (const { ids, place } of recordsOf(path, options, limit + 1)) {
      checkIds(ids, options.vocabulary, place);
      for (let at = 0; at < ids.length; at += length) {
        const piece = ids.slice(at, Math.min(at + length, at + limit - tokens));
        if (piece.length < Math.min(length, ids.length - at)) cut = true;
        if (piece.length >= 2) {
          sequences.push(piece);
          tokens += piece.length;
        }
        if (cut) break;
      }
      if (cut) break;
    }
  } catch (error) {
    const code = (error as { code?: string }).code ?? '';
    throw /^E[A-Z]+$/.test(code) ? errors.readFailed(path, reasonOf(error)) : error;
  }
  if (sequences.length === 0) throw apiErrors.tokenData(path, 'it has no sequence of two or more tokens');
  return { sequences, tokens, source: cut ? `the first ${tokens} tokens of ${path}` : path, cut };
}

interface TokenRecord {
  readonly ids: readonly number[];
  readonly place: string;
}

/** The records of a file; reading may end after `limit` tokens. */
function recordsOf(
  path: string,
  options: TokenDataOptions,
  limit: number,
): AsyncIterable<TokenRecord> | Iterable<TokenRecord> {
  const kind = extname(path).toLowerCase();
  if (kind === '.jsonl' || kind === '.ndjson') return jsonLines(path, options.codec);
  if (kind === '.npy') return npyRecords(path, limit);
  return [{ ids: textIds(path, options.codec), place: path }];
}

function* npyRecords(path: string, limit: number): Generator<TokenRecord> {
  let row = 0;
  for (const ids of readNpyRows(path, limit)) yield { ids, place: `${path}, row ${row++}` };
}

async function* jsonLines(path: string, codec: TextCodec | null): AsyncGenerator<TokenRecord> {
  const lines = createInterface({ input: createReadStream(path, 'utf8'), crlfDelay: Number.POSITIVE_INFINITY });
  let number = 0;
  for await (const line of lines) {
    number++;
    if (line.trim() === '') continue;
    const place = `${path}:${number}`;
    yield { ids: lineIds(line, place, codec), place };
  }
}

const FORMS = 'expected an array of ids, {"input_ids": [...]} or {"text": "..."}';

function lineIds(line: string, place: string, codec: TextCodec | null): readonly number[] {
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

/** The whole of a text file. A model with a token per byte takes any bytes. */
function textIds(path: string, codec: TextCodec | null): readonly number[] {
  const known = needCodec(codec, path);
  const bytes = readFileSync(path);
  if (known === BYTES) return [...bytes];
  try {
    return known.encode(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw error instanceof TypeError ? apiErrors.tokenData(path, 'it is no UTF-8 text') : error;
  }
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
