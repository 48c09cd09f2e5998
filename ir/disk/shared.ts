/**
 * Files that a model shares with another: `--share-weights` names the data files of the input instead of copying them. The
 * model says in its metadata which files these were, and whoever opens it is told when they are others by now.
 */
import { createHash } from 'node:crypto';
import { dirname, join, relative, resolve, sep } from 'node:path';
import type { Model } from '../core.js';
import { errors } from '../diagnostic.js';
import type { FileSource } from './source.js';

/** The entry of metadata_props that says what a model shares. */
export const SHARES_KEY = 'onnx-fuse.shares';
/** Tells a person who looks at the metadata what that means. */
export const SHARES_NOTE_KEY = 'onnx-fuse.shares.note';
const NOTE =
  'Weights of this model lie in files of another model, beside it. It cannot be read without them, or after they change. ' +
  'onnx-fuse pack MODEL WHOLE writes a copy with weights of its own.';

/** A file that holds weights of two models. */
export interface SharedFile {
  /** Relative to the folder of the model, with slashes. */
  readonly file: string;
  readonly bytes: number;
  /** Of the whole file, or of `samples` stretches of it. */
  readonly sha256: string;
  /** How many stretches were hashed; 0 for a file that was hashed as a whole. */
  readonly samples: number;
}

/** Files up to this size are hashed whole: hashing gigabytes takes longer than writing what is new. */
const WHOLE_UP_TO = 16 * 1024 * 1024;
const SAMPLES = 256;
const SAMPLE_BYTES = 32 * 1024;

/** What is known of a file to recognise it by: all of it when it is small, else stretches spread evenly, with both ends. */
export function sharedFile(source: FileSource, file: string): SharedFile {
  const hash = createHash('sha256');
  const { size } = source;
  if (size <= WHOLE_UP_TO) {
    const bytes = new Uint8Array(size);
    source.readInto(bytes, 0, size, 0);
    return { file, bytes: size, sha256: hash.update(bytes).digest('hex'), samples: 0 };
  }
  const bytes = new Uint8Array(SAMPLE_BYTES);
  for (let i = 0; i < SAMPLES; i++) {
    source.readInto(bytes, 0, SAMPLE_BYTES, Math.floor(((size - SAMPLE_BYTES) * i) / (SAMPLES - 1)));
    hash.update(bytes);
  }
  return { file, bytes: size, sha256: hash.digest('hex'), samples: SAMPLES };
}

/**
 * How a model in `folder` names a file: the path from there, with slashes. Loaders take data from no other place than the
 * model's folder and those in it, so a file elsewhere cannot be shared. Throws OF_USAGE.
 */
export function sharedName(source: FileSource, folder: string): string {
  const path = relative(resolve(folder), resolve(source.path));
  if (path !== '' && path.split(sep)[0] !== '..' && resolve(folder, path) === resolve(source.path)) {
    return path.split(sep).join('/');
  }
  const why = `weights can be shared only with a file beside it, and ${source.path} lies elsewhere`;
  throw errors.usage(
    folder,
    why,
    `write into ${dirname(source.path)}, or copy the weights (without option share-weights)`,
  );
}

/** Says in a model which files it shares; with none, that it shares nothing any more. */
export function noteShares(model: Model, files: readonly SharedFile[]): void {
  const others = model.metadata.filter(([key]) => key !== SHARES_KEY && key !== SHARES_NOTE_KEY);
  if (files.length === 0 && others.length === model.metadata.length) return;
  model.metadata =
    files.length === 0 ? others : [...others, [SHARES_KEY, JSON.stringify(files)], [SHARES_NOTE_KEY, NOTE]];
}

/** Files that were found to be as they were, by what identifies them: a run opens its input several times. */
const known = new Set<string>();

/**
 * Checks that the files that a model in `folder` shares are those that it was made from. Files that are not there are for
 * whoever reads their weights. Throws OF_SHARED_CHANGED.
 */
export function checkShares(model: Model, sources: readonly FileSource[], folder: string): void {
  const text = model.metadata.find(([key]) => key === SHARES_KEY)?.[1];
  if (text === undefined) return;
  for (const expected of parseShares(text)) {
    const path = resolve(join(folder, expected.file));
    // Only what the model reads anyway: metadata make us open nothing.
    const source = sources.find((each) => resolve(each.path) === path);
    if (!source || known.has(`${source.id}|${expected.sha256}`)) continue;
    if (source.size !== expected.bytes) {
      throw errors.sharedChanged(source.path, `${source.size} bytes`, `${expected.bytes} bytes`);
    }
    const { sha256 } = sharedFile(source, expected.file);
    if (sha256 !== expected.sha256) throw errors.sharedChanged(source.path, short(sha256), short(expected.sha256));
    known.add(`${source.id}|${expected.sha256}`);
  }
}

/** What metadata of a stranger say: entries that are none of ours count for nothing. */
function parseShares(text: string): SharedFile[] {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    return [];
  }
  if (!Array.isArray(found)) return [];
  return found.filter(
    (each): each is SharedFile =>
      typeof each === 'object' &&
      each !== null &&
      typeof each.file === 'string' &&
      typeof each.bytes === 'number' &&
      typeof each.sha256 === 'string',
  );
}

function short(sha256: string): string {
  return `sha256 ${sha256.slice(0, 12)}...`;
}
