/** Bytes that can be read: of memory or of a file, in bounded pieces. Knows no file system. */

import type { ByteSource } from './weight-types.js';

/** A source that can be read. */
export interface ReadableSource extends ByteSource {
  /** Fills `length` bytes of `target` from `at` with the bytes at `offset`. Throws OF_CHANGED, OF_READ. */
  readInto(target: Uint8Array, at: number, length: number, offset: number): void;
}

/** Bytes in memory, for tests, golden files and parsed text. */
export class MemorySource implements ReadableSource {
  readonly id = `memory:${memoryCount++}`;
  readonly size: number;
  constructor(readonly bytes: Uint8Array) {
    this.size = bytes.length;
  }
  readInto(target: Uint8Array, at: number, length: number, offset: number): void {
    if (offset < 0 || offset + length > this.size) throw new RangeError(`bytes ${offset}+${length} of ${this.size}`);
    target.set(this.bytes.subarray(offset, offset + length), at);
  }
}

let memoryCount = 0;

/** A new buffer with `length` bytes of `source` from `offset`. */
export function readRange(source: ByteSource, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  readable(source).readInto(bytes, 0, length, offset);
  return bytes;
}

/** The reading side of a weight's source. */
export function readable(source: ByteSource): ReadableSource {
  if (typeof (source as ReadableSource).readInto === 'function') return source as ReadableSource;
  throw new TypeError(`source '${source.id}' cannot be read`);
}
