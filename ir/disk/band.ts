/** Cuts the pieces of a file into bands: what is read, computed and written at a time. */
import { bitsOf, elementCount } from '../type.js';
import type { Weight } from '../weight.js';
import type { Work } from './fetch.js';
import type { Piece } from './layout.js';
import { naturalSplit, WeightReader } from './tile.js';

/** Memory of writing: so many bytes, so many times. */
export const BAND_BYTES = 4 * 1024 * 1024;
export const BANDS_UNDER_WAY = 4;

/** Part of a piece: `length` bytes from `start` on, which go to `at` in the band. */
interface Segment {
  readonly chunk: Uint8Array | Weight;
  readonly reader: WeightReader;
  readonly start: number;
  readonly length: number;
  readonly at: number;
}

/** Consecutive bytes of a file. */
export interface Band {
  readonly position: number;
  readonly length: number;
  readonly segments: readonly Segment[];
}

/** The pieces one after another, in bands of at most `size` bytes; expressions are cut between rows where rows fit. */
export function* bandsOf(pieces: Iterable<Piece>, size: number): Generator<Band> {
  let segments: Segment[] = [];
  let position = 0;
  let length = 0;
  for (const { chunk, name } of pieces) {
    const reader = new WeightReader(name);
    for (let start = 0; start < chunk.byteLength; ) {
      const count = partOf(chunk, chunk.byteLength - start, size - length, size);
      if (count > 0) {
        segments.push({ chunk, reader, start, length: count, at: length });
        length += count;
        start += count;
      }
      if (length === size || count === 0) {
        yield { position, length, segments };
        position += length;
        length = 0;
        segments = [];
      }
    }
  }
  if (length > 0) yield { position, length, segments };
}

/** How many of the `left` bytes of a piece go into `room` bytes. */
function partOf(chunk: Uint8Array | Weight, left: number, room: number, size: number): number {
  if (left <= room) return left;
  if (chunk instanceof Uint8Array) return room;
  const bits = bitsOf(chunk.dtype);
  const unit = Math.max(1, Math.floor(bits / 8));
  if (chunk.op === 'source') return room - (room % unit);
  const rowBytes = (elementCount(chunk.dims.slice(naturalSplit(chunk))) * bits) / 8;
  return room - (room % (Number.isInteger(rowBytes) && rowBytes <= size ? rowBytes : unit));
}

/** Copies the bytes of a band that are in memory to `target`, and returns the work that fills in the rest. */
export function prepareBand(band: Band, target: Uint8Array): Work {
  const work: Work = { reads: [], steps: [] };
  for (const { chunk, reader, start, length, at } of band.segments) {
    if (chunk instanceof Uint8Array) target.set(chunk.subarray(start, start + length), at);
    else reader.prepare(chunk, start, length, target, at, work);
  }
  return work;
}
