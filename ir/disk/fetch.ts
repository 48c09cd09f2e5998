/** Fetches the bytes of source and inline weights: at once, or as reads that may go on side by side. */

import { readable } from '../bytes.js';
import type { InlineWeight, SourceWeight } from '../weight.js';
import { FileSource, type Strips } from './source.js';

/** The work that fills a range of bytes: first the reads, in any order and side by side, then the steps, one after another. */
export interface Work {
  readonly reads: { readonly source: FileSource; readonly strips: Strips }[];
  readonly steps: (() => void)[];
}

const SCRATCH = new Uint8Array(1024 * 1024);
/** Strips shorter than this are not worth an entry of their own in a scattered read. */
const SCATTER_FROM = 4096;

/** Runs `step` now, or appends it to `work.steps` where work is being prepared. */
export function runOrDefer(work: Work | null, step: () => void): void {
  if (work) work.steps.push(step);
  else step();
}

/** Fetches strips of a leaf; their offset counts from its start. Throws OF_READ, OF_CHANGED. */
export function fetchLeaf(leaf: SourceWeight | InlineWeight, work: Work | null, strips: Strips): void {
  const { length, rows, pitch, bytes, at, stride } = strips;
  if (leaf.op === 'inline') {
    for (let row = 0; row < rows; row++) {
      const from = strips.offset + row * pitch;
      bytes.set(leaf.bytes.subarray(from, from + length), at + row * stride);
    }
    return;
  }
  const source = readable(leaf.source);
  const offset = leaf.offset + strips.offset;
  const isDeferred = work !== null && source instanceof FileSource;
  if (rows === 1 || (length === pitch && length === stride)) {
    const whole = { ...strips, offset, length: length * rows, rows: 1 };
    if (isDeferred) work.reads.push({ source, strips: whole });
    else source.readInto(bytes, at, whole.length, offset);
  } else if (length * 4 < pitch || pitch > SCRATCH.length) {
    // Narrow strips are read one by one; wide ones with what lies between them, many rows at a time.
    runOrDefer(work, () => {
      for (let row = 0; row < rows; row++) source.readInto(bytes, at + row * stride, length, offset + row * pitch);
    });
  } else if (isDeferred && length >= SCATTER_FROM) {
    work.reads.push({ source, strips: { ...strips, offset } });
  } else {
    runOrDefer(work, () => {
      const step = Math.floor(SCRATCH.length / pitch);
      for (let row = 0; row < rows; row += step) {
        const count = Math.min(step, rows - row);
        source.readInto(SCRATCH, 0, (count - 1) * pitch + length, offset + row * pitch);
        for (let i = 0; i < count; i++) {
          bytes.set(SCRATCH.subarray(i * pitch, i * pitch + length), at + (row + i) * stride);
        }
      }
    });
  }
}
