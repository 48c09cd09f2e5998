/** Finds external data: only regular files inside the model's folder, symlinks resolved, ranges checked. */
import { realpathSync } from 'node:fs';
import { isAbsolute, join, relative, sep } from 'node:path';
import type { ReadableSource } from '../bytes.js';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import type { ExternalResolver } from '../proto/tensor.js';
import { FileSource } from './source.js';

/** Stands for a data file that is not there: a model can be looked at without its weights, but not read from. */
class AbsentSource implements ReadableSource {
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

/** A resolver for models that lie in `folder`; every file is opened once. With `mayLack`, files may be absent. */
export function externalResolver(folder: string, mayLack = false): ExternalResolver {
  const sources = new Map<string, FileSource | AbsentSource>();
  let root: string | null = null;
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
        root ??= realpathSync(folder);
        const inside = relative(root, realpathSync(path));
        if (inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)) {
          throw errors.externalEscapes(tensor, location);
        }
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
