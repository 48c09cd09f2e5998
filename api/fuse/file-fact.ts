/** What a report says about a file. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import { pipeline as pump } from 'node:stream/promises';

export interface FileFact {
  readonly path: string;
  readonly bytes: number;
  /** Of the whole file; null when no report was asked for (hashing reads the input once more). */
  readonly sha256: string | null;
}

/** Path, size and, when wanted, hash of a file. */
export async function fileFact(path: string, bytes: number, hash: boolean): Promise<FileFact> {
  if (!hash) return { path: resolve(path), bytes, sha256: null };
  const digest = createHash('sha256');
  await pump(createReadStream(path), digest);
  return { path: resolve(path), bytes, sha256: digest.digest('hex') };
}
