/** Where bytes come from: files read in bounded pieces, or memory. */
import { closeSync, constants, fstatSync, openSync, readSync, readv, type Stats, statSync } from 'node:fs';
import type { ReadableSource } from '../bytes.js';
import { errors, reasonOf } from '../diagnostic.js';

/** Rows of bytes in a file, `pitch` apart from `offset` on, and where they go: `stride` apart from `at` on. */
export interface Strips {
  readonly offset: number;
  readonly pitch: number;
  /** Bytes of a row. */
  readonly length: number;
  readonly rows: number;
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly stride: number;
}

/** fs.read aborts the process above 2^31-1 bytes. */
const PIECE = 2 ** 30;
const MAX_OPEN = 16;
/** Rows of one scattered read; with the gaps between them they are at most 1024 pieces, which is what systems allow. */
const MAX_ROWS = 512;
/** Where the bytes between rows go. Nobody reads it, so any number of reads may write to it at once. */
let gap = new Uint8Array(0);

/** A file as it was when first seen: any change of size, time or identity after that is an error. */
export class FileSource implements ReadableSource {
  readonly id: string;
  readonly size: number;
  readonly mtimeMs: number;
  readonly dev: number;
  readonly ino: number;
  /** Bytes read so far. */
  bytesRead = 0;
  #fd: number | null = null;
  /** Reads that go on: the descriptor must stay, and goes when they are through. */
  #reading = 0;
  #isLeft = false;

  /** Throws OF_NO_SUCH_FILE, OF_READ. */
  constructor(readonly path: string) {
    const stats = this.#open();
    this.size = stats.size;
    this.mtimeMs = stats.mtimeMs;
    this.dev = stats.dev;
    this.ino = stats.ino;
    this.id = `${path}|${stats.size}|${stats.mtimeMs}|${stats.dev}:${stats.ino}`;
  }

  #open(): Stats {
    try {
      // Without waiting: a pipe would hang here.
      const fd = openSync(this.path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
      const stats = fstatSync(fd);
      const fault = noFile(this.path, stats);
      if (fault) {
        closeSync(fd);
        throw fault;
      }
      this.#fd = fd;
      openFiles.add(this);
      for (const file of openFiles) {
        if (openFiles.size <= MAX_OPEN) break;
        if (file !== this && file.#reading === 0) file.close();
      }
      return stats;
    } catch (error) {
      throw readError(this.path, error);
    }
  }

  readInto(target: Uint8Array, at: number, length: number, offset: number): void {
    if (this.#fd === null) this.#check(this.#open());
    const fd = this.#fd as unknown as number;
    for (let done = 0; done < length; ) {
      let count: number;
      try {
        count = readSync(fd, target, at + done, Math.min(length - done, PIECE), offset + done);
      } catch (error) {
        throw readError(this.path, error);
      }
      if (count === 0) throw errors.changedUnderfoot(this.path);
      done += count;
      this.bytesRead += count;
    }
  }

  /**
   * Reads strips while other work goes on; the gaps between them are read, too, and must be shorter than four strips.
   * Throws OF_CHANGED, OF_READ.
   */
  async readStrips({ offset, pitch, length, rows, bytes, at, stride }: Strips): Promise<void> {
    if (this.#fd === null) this.#check(this.#open());
    const fd = this.#fd as unknown as number;
    const between = rows > 1 ? pitch - length : 0;
    if (gap.length < between) gap = new Uint8Array(between);
    this.#reading++;
    try {
      for (let row = 0; row < rows; row += MAX_ROWS) {
        const pieces: Uint8Array[] = [];
        for (let i = row; i < Math.min(row + MAX_ROWS, rows); i++) {
          if (i > row && between > 0) pieces.push(gap.subarray(0, between));
          pieces.push(bytes.subarray(at + i * stride, at + i * stride + length));
        }
        await this.#readPieces(fd, pieces, offset + row * pitch);
      }
    } finally {
      this.#reading--;
      if (this.#isLeft) this.close();
    }
  }

  async #readPieces(fd: number, pieces: Uint8Array[], position: number): Promise<void> {
    for (let left = pieces; left.length > 0; ) {
      let count = await new Promise<number>((resolve, reject) => {
        readv(fd, left, position, (error, read) => (error ? reject(readError(this.path, error)) : resolve(read)));
      });
      if (count === 0) throw errors.changedUnderfoot(this.path);
      position += count;
      this.bytesRead += count;
      let full = 0;
      for (; full < left.length && count >= (left[full] as Uint8Array).length; full++) {
        count -= (left[full] as Uint8Array).length;
      }
      left = left.slice(full);
      if (left[0]) left[0] = left[0].subarray(count);
    }
  }

  #check(stats: Stats): void {
    if (
      stats.size !== this.size ||
      stats.mtimeMs !== this.mtimeMs ||
      stats.ino !== this.ino ||
      stats.dev !== this.dev
    ) {
      throw errors.changedUnderfoot(this.path);
    }
  }

  /** Throws OF_CHANGED when the file is no longer the one that was opened. Reads that go on are not disturbed. */
  checkUnchanged(): void {
    let stats: Stats;
    try {
      stats = statSync(this.path);
    } catch (error) {
      throw readError(this.path, error);
    }
    const fault = noFile(this.path, stats);
    if (fault) throw fault;
    this.#check(stats);
  }

  /** Gives the descriptor back once no read needs it; the next one opens the file again. */
  close(): void {
    this.#isLeft = this.#reading > 0;
    if (this.#isLeft) return;
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
    openFiles.delete(this);
  }
}

/** Files with a descriptor, oldest first. */
const openFiles = new Set<FileSource>();

/** Closes the descriptors of every source. */
export function closeSources(): void {
  for (const file of openFiles) file.close();
}

function noFile(path: string, stats: Stats): Error | null {
  if (stats.isFile()) return null;
  return errors.readFailed(path, stats.isDirectory() ? 'it is a folder' : 'it is not a regular file');
}

function readError(path: string, error: unknown): Error {
  if (error instanceof Error && error.name === 'Diagnostic') return error;
  const code = (error as NodeJS.ErrnoException)?.code;
  return code === 'ENOENT' || code === 'ENOTDIR' ? errors.noSuchFile(path) : errors.readFailed(path, reasonOf(error));
}
