/**
 * What a folder may make us read: files in it. A downloaded folder is not trusted: names in its configs that leave it are
 * refused, links in it that leave it are not followed.
 */
import { existsSync, lstatSync, realpathSync, statSync } from 'node:fs';
import { isAbsolute, join, sep, win32 } from 'node:path';
import { isInside } from '../../ir/index.js';

export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/**
 * Where the files of a folder may really lie: in the folder, or among the blobs of the Hugging Face cache that the folder
 * is a snapshot of (models--owner--name/snapshots/revision links to models--owner--name/blobs, and a copy of such a cache
 * may have another name). A folder cannot choose what lies above it.
 */
export function rootsOf(folder: string): readonly string[] {
  const real = realpathSync(folder);
  const parts = real.split(sep);
  const at = parts.lastIndexOf('snapshots');
  if (at < 1 || at + 1 >= parts.length) return [real];
  const blobs = [...parts.slice(0, at), 'blobs'].join(sep);
  // The blobs are a folder of the cache, not a link to one elsewhere.
  return lstatSync(blobs, { throwIfNoEntry: false })?.isDirectory() ? [real, blobs] : [real];
}

/** Whether a name that a file gives is that of something below the folder, on any system. */
export function staysInside(name: string): boolean {
  if (name === '' || name.includes('\0') || isAbsolute(name) || win32.isAbsolute(name) || /^[A-Za-z]:/.test(name)) {
    return false;
  }
  return !name.split(/[\\/]/).includes('..');
}

/** Why a file of a folder is not read; null when it is a regular file that lies, links followed, where it may. */
export function whyNotRead(folder: string, roots: readonly string[], name: string): string | null {
  if (!staysInside(name)) return 'its name leads out of the folder';
  const path = join(folder, name);
  let real: string;
  try {
    real = realpathSync(path);
  } catch {
    return existsSync(path) || lstatSync(path, { throwIfNoEntry: false }) ? 'a link to nothing' : 'it does not exist';
  }
  if (!roots.some((root) => isInside(root, real))) return 'a link that leads out of the folder';
  return statSync(real).isFile() ? null : 'it is not a regular file';
}
