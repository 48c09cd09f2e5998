/** Text to token ids and back: by the tokenizer.json beside the model, or bytes for a model with a token per byte. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errors, reasonOf } from '../../ir/index.js';
import { apiErrors } from '../basics/errors.js';

/** Turns text into token ids and back. */
export interface TextCodec {
  /** How it works, for people. */
  readonly name: string;
  encode(text: string): number[];
  /** Special tokens are left out; bytes that are no UTF-8 become the replacement character. */
  decode(ids: readonly number[]): string;
}

/** A byte-level model has one token per byte: no tokenizer is needed. */
export const BYTE_VOCABULARY = 256;

/** The codec of a byte-level model. */
export const BYTES: TextCodec = {
  name: 'bytes',
  encode: (text) => [...new TextEncoder().encode(text)],
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
};

/**
 * The codec of a model: a tokenizer.json named or lying beside the model, else bytes when the vocabulary is 256; null
 * when there is neither.
 * @throws Diagnostic OF_TOKENIZER for a file that is no tokenizer.
 */
export async function codecFor(
  modelFile: string,
  vocabulary: number | null,
  tokenizer?: string,
): Promise<TextCodec | null> {
  const path = tokenizer ?? join(dirname(modelFile), 'tokenizer.json');
  if (tokenizer !== undefined && !existsSync(path)) throw errors.noSuchFile(path);
  if (existsSync(path)) return loadTokenizer(path);
  return vocabulary === BYTE_VOCABULARY ? BYTES : null;
}

async function loadTokenizer(path: string): Promise<TextCodec> {
  // Loaded on use: most runs of the command need no tokenizer.
  const { Tokenizer } = await import('@huggingface/tokenizers');
  try {
    const settings = join(dirname(path), 'tokenizer_config.json');
    const made = new Tokenizer(readJson(path), existsSync(settings) ? readJson(settings) : {});
    // Some faults show on the first text only.
    made.encode('a');
    return {
      name: path,
      encode: (text) => made.encode(text).ids,
      decode: (ids) => made.decode([...ids], { skip_special_tokens: true }),
    };
  } catch (error) {
    throw apiErrors.tokenizer(path, reasonOf(error));
  }
}

function readJson(path: string): Record<string, unknown> {
  const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('it is no JSON object');
  return value as Record<string, unknown>;
}
