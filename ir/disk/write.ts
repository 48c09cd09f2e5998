/** Writes pieces to a file in bands: while one band is on its way to the disk, the next is read and computed. */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { errors, reasonOf } from '../diagnostic.js';
import { bitsOf, elementCount } from '../type.js';
import type { Weight } from '../weight.js';
import type { Piece } from './plan.js';
import { naturalSplit, WeightReader } from './tile.js';

const BAND = 8 * 1024 * 1024;

export interface WrittenFile {
  readonly bytes: number;
  readonly sha256: string;
}

/** Writes `pieces` one after another to a new file, syncs it, and returns its size and hash. Throws OF_WRITE. */
export async function writePieces(
  path: string,
  pieces: readonly Piece[],
  onBytes: (count: number) => void,
): Promise<WrittenFile> {
  let file: FileHandle;
  try {
    file = await open(path, 'wx');
  } catch (error) {
    throw errors.writeFailed(path, reasonOf(error));
  }
  const bands = new BandWriter(file, path, onBytes);
  try {
    for (const { chunk, name } of pieces) {
      if (chunk instanceof Uint8Array) await bands.bytes(chunk);
      else await bands.weight(chunk, name);
    }
    await bands.finish();
    await guard(path, file.sync());
  } finally {
    await bands.settle();
    await file.close();
  }
  return { bytes: bands.position, sha256: bands.digest() };
}

async function guard<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw errors.writeFailed(path, reasonOf(error));
  }
}

class BandWriter {
  position = 0;
  readonly #hash = createHash('sha256');
  #band = Buffer.allocUnsafe(BAND);
  #spare = Buffer.allocUnsafe(BAND);
  #used = 0;
  #pending: Promise<void> | null = null;

  constructor(
    readonly file: FileHandle,
    readonly path: string,
    readonly onBytes: (count: number) => void,
  ) {}

  async bytes(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      if (this.#used === BAND) await this.#flush();
      const count = Math.min(bytes.length - done, BAND - this.#used);
      this.#band.set(bytes.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
    }
  }

  async weight(weight: Weight, name: string): Promise<void> {
    const reader = new WeightReader(name);
    const unit = Math.max(1, Math.floor(bitsOf(weight.dtype) / 8));
    const rowBytes = (elementCount(weight.dims.slice(naturalSplit(weight))) * bitsOf(weight.dtype)) / 8;
    for (let done = 0; done < weight.byteLength; ) {
      const left = weight.byteLength - done;
      let count = Math.min(left, BAND - this.#used);
      // Whole rows where they fit, because expressions are computed by rows.
      const step = count < left && Number.isInteger(rowBytes) && rowBytes <= BAND ? rowBytes : unit;
      count = count === left ? count : Math.floor(count / step) * step;
      if (count === 0) {
        await this.#flush();
        continue;
      }
      reader.readBytes(weight, done, count, this.#band, this.#used);
      this.#used += count;
      done += count;
      if (this.#used === BAND) await this.#flush();
    }
  }

  async finish(): Promise<void> {
    await this.#flush();
    await this.#wait();
  }

  /** Waits for the write in flight and forgets its failure: something else failed first. */
  async settle(): Promise<void> {
    await this.#pending?.catch(() => {});
  }

  digest(): string {
    return this.#hash.digest('hex');
  }

  async #wait(): Promise<void> {
    const pending = this.#pending;
    this.#pending = null;
    await pending;
  }

  async #flush(): Promise<void> {
    if (this.#used === 0) return;
    await this.#wait();
    const band = this.#band;
    const count = this.#used;
    this.#pending = guard(this.path, this.#write(band, count, this.position));
    // A failure is reported by the next wait; until then it is not an unhandled one.
    this.#pending.catch(() => {});
    this.#hash.update(band.subarray(0, count));
    this.position += count;
    this.#band = this.#spare;
    this.#spare = band;
    this.#used = 0;
  }

  async #write(band: Buffer, length: number, position: number): Promise<void> {
    for (let done = 0; done < length; ) {
      const { bytesWritten } = await this.file.write(band, done, length - done, position + done);
      done += bytesWritten;
    }
    this.onBytes(length);
  }
}
