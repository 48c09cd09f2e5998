/** Text for a user who has none: the model writes it. It is good to fit and to search on, and is never called held out. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errors, openModel } from '../../ir/index.js';
import {
  checkClaim,
  hasCache,
  longestSequence,
  readSignature,
  type SessionOptions,
  sampleRows,
  withSession,
} from '../../runtime/index.js';
import { runtimeErrors } from '../../runtime/session/errors.js';
import type { Talk } from '../basics/progress.js';
import { isFolder } from '../folder/inside.js';
import { readJson } from '../folder/model-folder.js';
import type { TokenData } from './token-data.js';

/** What the model is to write, and how. */
export interface OwnTextRequest extends Pick<SessionOptions, 'provider' | 'threads'> {
  /** Tokens in all, at least; whole rows are written. 8192 by default. */
  readonly tokens?: number | undefined;
  /** Tokens of a row; 512 by default, 64 for a model without KV caches, which reads the row again for every token. */
  readonly length?: number | undefined;
  /** 0.9 by default. */
  readonly temperature?: number | undefined;
  /** 1 by default. */
  readonly seed?: number | undefined;
  /** Rows that are written together; 16 by default. */
  readonly rows?: number | undefined;
  readonly talk?: Talk | undefined;
}

const DEFAULTS = { tokens: 8192, length: 512, uncached: 64, temperature: 0.9, seed: 1, rows: 16 };

/**
 * Lets the model at `path` write: each row is one sequence. A document begins with the token that the configs beside the model
 * name (genai_config.json, generation_config.json, config.json), else with any; after one that ends a text another begins.
 * The same seed gives the same tokens on the same machine.
 * @throws Diagnostic OF_USAGE, OF_NO_RUNTIME, OF_RUNTIME, OF_CANNOT_FEED, or OF_NOT_COMPARABLE for a model without scores.
 */
export async function writeOwnText(path: string, request: OwnTextRequest = {}): Promise<TokenData> {
  const model = openModel(path);
  const signature = readSignature(model);
  checkClaim(signature, path);
  const { tokens = DEFAULTS.tokens, temperature = DEFAULTS.temperature, seed = DEFAULTS.seed, talk } = request;
  const { length: wanted = hasCache(signature) ? DEFAULTS.length : DEFAULTS.uncached } = request;
  if (!(temperature > 0) || !Number.isFinite(temperature))
    throw errors.usage('temperature of the text', `it is ${temperature}, expected more than 0`, 'try 0.9');
  for (const [name, value, least] of [
    ['tokens of the text', tokens, 2],
    ['length of a row', wanted, 2],
    ['rows written together', request.rows ?? DEFAULTS.rows, 1],
  ] as const) {
    if (Number.isSafeInteger(value) && value >= least) continue;
    throw errors.usage(name, `it is ${value}, expected a whole number from ${least} on`, `try ${Math.max(512, least)}`);
  }
  const length = Math.max(2, Math.min(wanted, longestSequence(signature)));
  const count = Math.ceil(tokens / length);
  const ids = specialIds(path, signature.vocabulary);
  const { provider, threads } = request;
  const options = { provider, threads };
  const sequences: number[][] = [];
  let together = Math.min(count, signature.batch ?? request.rows ?? DEFAULTS.rows);
  try {
    await withSession(path, options, async (session) => {
      while (sequences.length < count) {
        const done = sequences.length;
        const rows = Array.from({ length: Math.min(together, count - done) }, (_, i) => done + i);
        const onToken = (at: number): void =>
          talk?.progress('the model writes', done * length + at * rows.length, count * length);
        try {
          const asked = { ...ids, rows, length, temperature, seed, onToken };
          sequences.push(...(await sampleRows(session, signature, asked)));
        } catch (error) {
          // Some exports run no more than one row.
          if (together === 1 || signature.batch !== null || !runtimeErrors.runtimeFailed.is(error)) throw error;
          together = 1;
        }
      }
    });
  } finally {
    talk?.done();
  }
  const source = `written by the model (temperature ${temperature}, seed ${seed})`;
  return { sequences, tokens: count * length, source, cut: false };
}

/** What begins and what ends a document, as the configs beside a model say. */
export function specialIds(
  path: string,
  vocabulary: number | null,
): { begin: number | null; ends: ReadonlySet<number> } {
  const isId = (value: unknown): value is number =>
    Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < (vocabulary ?? Number.MAX_VALUE);
  const idsOf = (value: unknown): number[] => (Array.isArray(value) ? value : [value]).filter(isId);
  const found = { begin: [] as number[], ends: [] as number[] };
  for (const folder of foldersOf(path)) {
    for (const [file, scope] of [
      ['genai_config.json', ['model']],
      ['generation_config.json', []],
      ['config.json', []],
    ] as const) {
      if (!existsSync(join(folder, file))) continue;
      const config = readJson(folder, file);
      if (found.begin.length === 0) found.begin = idsOf(config?.get([...scope, 'bos_token_id']));
      if (found.ends.length === 0) found.ends = idsOf(config?.get([...scope, 'eos_token_id']));
    }
  }
  const begin = found.begin[0] ?? null;
  // Where one token does both, it has begun the next document already.
  return { begin, ends: new Set(found.ends.filter((id) => id !== begin)) };
}

/** The folder of the model; transformers.js has its models in a folder `onnx` below the one with the configs. */
function foldersOf(path: string): string[] {
  const folder = isFolder(path) ? path : dirname(path);
  return basename(folder) === 'onnx' ? [folder, dirname(folder)] : [folder];
}
