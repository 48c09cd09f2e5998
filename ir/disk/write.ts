/**
 * Writes pieces to a file in bands. Several bands are under way at a time: reads go on in other threads while one band is computed
 * and written here. Where a file would hold nothing but zeros it gets a hole.
 */
import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { chmod, copyFile, type FileHandle, constants as fsConstants, open, rm } from 'node:fs/promises';
import { errors, reasonOf } from '../diagnostic.js';
import { BAND_BYTES, BANDS_UNDER_WAY, type Band, bandsOf, prepareBand } from './band.js';
import { scalableMemory } from './kernels/scale.js';
import type { LaidOutFile } from './layout.js';
import type { FileSource } from './source.js';

/** Blocks of zeros of this size are not written. */
const HOLE = 64 * 1024;
const ZEROS = Buffer.alloc(HOLE);
/**
 * Bytes of one write. For one of 2 MiB or more, ext4 takes pages of 2 MiB, which a virtual machine has given back to its host when they
 * were free: copying into them took 3 to 7 times as long (BENCHMARKS.md).
 */
const WRITE_BYTES = 512 * 1024;
/** After so many bytes the disk is told to take up what was written, while more is written. Nobody waits for it before the end. */
const SYNC_BYTES = 64 * 1024 * 1024;

/** Size and, when wanted, hash of a file that was written. */
export interface WrittenFile {
  readonly bytes: number;
  /** Null unless it was asked for. */
  readonly sha256: string | null;
}

/** Buffers for bands, for all files of an output. */
export class BandPool {
  readonly #free: Uint8Array[] = [];
  #memory: Uint8Array | null = null;
  #made = 0;
  #wake: (() => void) | null = null;

  /** Waits for a buffer. One caller at a time. */
  async take(): Promise<Uint8Array> {
    if (this.#free.length === 0 && this.#made === BANDS_UNDER_WAY) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const buffer = this.#free.pop();
    if (buffer) return buffer;
    this.#memory ??= scalableMemory(BANDS_UNDER_WAY * BAND_BYTES);
    const start = BAND_BYTES * this.#made++;
    return this.#memory.subarray(start, start + BAND_BYTES);
  }

  give(buffer: Uint8Array): void {
    this.#free.push(buffer);
    this.#wake?.();
    this.#wake = null;
  }
}

/** A file that was written, and that the disk may still be taking up. */
export interface WritingFile extends WrittenFile {
  /** Fulfilled when it is on the disk. Throws OF_WRITE. */
  readonly synced: Promise<void>;
}

/**
 * Writes a new file and returns its size, and its hash when `hash` is set (the file is read once more for that). The disk is
 * told to take it up, and meanwhile the next file can be written. Throws OF_WRITE, OF_READ, OF_CHANGED, OF_WEIGHT_OVERFLOW.
 */
export async function writeFile(
  path: string,
  laidOut: LaidOutFile,
  pool: BandPool,
  onBytes: (count: number) => void,
  hash: boolean,
): Promise<WritingFile> {
  const bytes = laidOut.byteLength;
  const cloned = laidOut.copyOf ? await clone(laidOut.copyOf, path) : null;
  const file = cloned ?? (await guard(path, open(path, 'wx+')));
  try {
    const writer = new BandWriter(file, path, pool, onBytes);
    if (cloned) onBytes(bytes);
    else await writer.write(bandsOf(laidOut.pieces, BAND_BYTES), bytes);
    const sha256 = hash ? await guard(path, hashOf(file, pool)) : null;
    const synced = writer.synced.then(() => guard(path, file.sync())).finally(() => file.close());
    // Whoever waits for it is told of a failure; until then it is nobody's.
    synced.catch(() => {});
    return { bytes, sha256, synced };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * A copy that shares its blocks with `source` until one of them changes; null where the file system has no such thing.
 * Never a link: loaders refuse those, and what is written to one would be in the other.
 */
async function clone(source: FileSource, path: string): Promise<FileHandle | null> {
  try {
    await copyFile(source.path, path, fsConstants.COPYFILE_EXCL | fsConstants.COPYFILE_FICLONE_FORCE);
    // The copy has the permissions of the source, which may be read-only.
    await chmod(path, 0o666 & ~process.umask());
  } catch {
    await rm(path, { force: true });
    return null;
  }
  const file = await guard(path, open(path, 'r+'));
  const { size } = await file.stat();
  if (size === source.size) return file;
  await file.close();
  throw errors.changedUnderfoot(source.path);
}

async function hashOf(file: FileHandle, pool: BandPool): Promise<string> {
  const hash = createHash('sha256');
  const buffer = await pool.take();
  try {
    for (let position = 0; ; ) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) return hash.digest('hex');
      hash.update(buffer.subarray(0, bytesRead));
      position += bytesRead;
    }
  } finally {
    pool.give(buffer);
  }
}

async function guard<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw errors.writeFailed(path, reasonOf(error));
  }
}

class BandWriter {
  #failures: unknown[] = [];
  #unsynced = 0;
  #isSyncing = false;
  /** Fulfilled when the disk has taken up what it was told to. Throws OF_WRITE. */
  synced: Promise<void> = Promise.resolve();

  constructor(
    readonly file: FileHandle,
    readonly path: string,
    readonly pool: BandPool,
    readonly onBytes: (count: number) => void,
  ) {}

  /** Writes bands and makes the file `byteLength` long. Whatever fails, nothing is under way any more when it returns. */
  async write(bands: Iterable<Band>, byteLength: number): Promise<void> {
    const running = new Set<Promise<void>>();
    for (const band of bands) {
      const buffer = await this.pool.take();
      const task: Promise<void> = this.#process(band, buffer)
        .catch((error: unknown) => {
          this.#failures.push(error);
        })
        .finally(() => {
          running.delete(task);
          this.pool.give(buffer);
        });
      running.add(task);
      if (this.#failures.length > 0) break;
    }
    await Promise.all(running);
    if (this.#failures.length > 0) throw this.#failures[0];
    await guard(this.path, this.file.truncate(byteLength));
  }

  async #process(band: Band, buffer: Uint8Array): Promise<void> {
    const { reads, steps } = prepareBand(band, buffer);
    const results = await Promise.allSettled(reads.map(({ source, strips }) => source.readStrips(strips)));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    for (const step of steps) step();
    // Here, and in no other thread: systems let one writer into a file at a time, and a write would wait behind the reads of other bands.
    try {
      this.#writeNonZero(buffer.subarray(0, band.length), band.position);
    } catch (error) {
      throw errors.writeFailed(this.path, reasonOf(error));
    }
    this.onBytes(band.length);
    this.#unsynced += band.length;
    if (this.#unsynced >= SYNC_BYTES) this.#syncSoFar();
  }

  /** Has the disk take up what was written, unless it is still at it. */
  #syncSoFar(): void {
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    this.#unsynced = 0;
    this.synced = guard(this.path, this.file.datasync()).then(() => {
      this.#isSyncing = false;
    });
    // Whoever waits in the end is told of a failure; until then it is nobody's, and the disk is told nothing more.
    this.synced.catch(() => {});
  }

  /** Writes all but blocks of zeros, which begin where blocks of the file begin. */
  #writeNonZero(bytes: Uint8Array, position: number): void {
    let start = 0;
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(at + HOLE - ((position + at) % HOLE), bytes.length);
      if (isZero(bytes, at, end)) {
        this.#write(bytes, start, at, position);
        start = end;
      }
      at = end;
    }
    this.#write(bytes, start, bytes.length, position);
  }

  #write(bytes: Uint8Array, start: number, end: number, position: number): void {
    for (let done = start; done < end; ) {
      done += writeSync(this.file.fd, bytes, done, Math.min(WRITE_BYTES, end - done), position + done);
    }
  }
}

function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  if (bytes[start] !== 0 || bytes[end - 1] !== 0) return false;
  return ZEROS.compare(bytes, start, end, 0, end - start) === 0;
}
