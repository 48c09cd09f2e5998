/**
 * Finds external data: only regular files, links resolved, inside the folder in which the model is named or inside the one
 * in which it really lies (caches such as Hugging Face's link both from one place to another), ranges checked.
 */
import { realpathSync } from 'node:fs';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import type { ReadableSource } from '../bytes.js';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import type { ExternalResolver } from '../proto/tensor.js';
import { FileSource } from './source.js';

/** Stands for a data file that is not there: a model can be looked at without its weights, but not read from. */
export class AbsentSource implements ReadableSource {
  readonly id: string;
  readonly size = Number.MAX_SAFE_INTEGER;
  constructor(
    readonly path: string,
    readonly tensor: string,
  ) {
    this.id = `absent|${path}`;
  }
  readInto(): void {
    throw errors.externalMissing(this.tensor, this.path);
  }
}

/** Whether a path without links is that of `folder` or of something in it. */
export function isInside(folder: string, real: string): boolean {
  const inside = relative(folder, real);
  return inside !== '..' && !inside.startsWith(`..${sep}`) && !isAbsolute(inside);
}

/**
 * A resolver for a model that lies in `folder`, under the path `header` where it is a file; every data file is opened
 * once. With `mayLack`, files may be absent.
 */
export function externalResolver(folder: string, header: string | null, mayLack = false): ExternalResolver {
  const sources = new Map<string, FileSource | AbsentSource>();
  let roots: readonly string[] | null = null;
  return (tensor, entries, byteLength) => {
    const location = entries.get('location');
    if (!location) throw errors.externalEntry(tensor, 'location', location ?? '');
    if (location.includes('\0')) throw errors.externalEntry(tensor, 'location', location);
    const segments = location.split(/[\\/]/);
    if (isAbsolute(location) || /^[A-Za-z]:/.test(location) || segments[0] === '' || segments.includes('..')) {
      throw errors.externalEscapes(tensor, location);
    }
    const offset = entryNumber(tensor, entries, 'offset') ?? 0;
    const length = entryNumber(tensor, entries, 'length');
    let source = sources.get(location);
    if (!source) {
      const path = join(folder, location);
      try {
        roots ??= [realpathSync(folder), ...(header === null ? [] : [dirname(realpathSync(header))])];
        const real = realpathSync(path);
        if (!roots.some((root) => isInside(root, real))) throw errors.externalEscapes(tensor, location);
        source = new FileSource(path);
      } catch (error) {
        if (error instanceof Diagnostic && !errors.noSuchFile.is(error)) throw error;
        const code = (error as NodeJS.ErrnoException).code ?? '';
        if (['EACCES', 'EIO', 'EPERM'].includes(code)) throw errors.readFailed(path, reasonOf(error));
        if (!mayLack) throw errors.externalMissing(tensor, path);
        source = new AbsentSource(path, tensor);
      }
      sources.set(location, source);
    }
    if (length !== null && length !== byteLength) throw errors.externalLength(tensor, length, byteLength);
    if (offset + byteLength > source.size) {
      throw errors.externalShort(tensor, source.path, offset + byteLength, source.size);
    }
    return { source, offset };
  };
}

function entryNumber(tensor: string, entries: ReadonlyMap<string, string>, key: string): number | null {
  const text = entries.get(key);
  if (text === undefined || text === '') return null;
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw errors.externalEntry(tensor, key, text);
  return value;
}
