/** Hashes of what weights evaluate to. */
import { createHash } from 'node:crypto';
import { bitsOf, elementCount } from '../type.js';
import type { Weight } from '../weight.js';
import type { Digest } from '../weight-types.js';
import { evaluate, naturalSplit, WeightReader } from './tile.js';

const BAND = 8 * 1024 * 1024;

/** SHA-256 of the bytes of weights, as they would be written. Each is read once, a band at a time. */
export function weightDigest(): Digest {
  const known = new Map<Weight, string>();
  let band: Uint8Array | null = null;
  return {
    read: (weight) => evaluate(weight),
    hash(weight) {
      let hash = known.get(weight);
      if (hash === undefined) {
        band ??= new Uint8Array(BAND);
        hash = sha256(weight, band);
        known.set(weight, hash);
      }
      return hash;
    },
  };
}

function sha256(weight: Weight, band: Uint8Array): string {
  const hash = createHash('sha256');
  const reader = new WeightReader('');
  const rowBytes = (elementCount(weight.dims.slice(naturalSplit(weight))) * bitsOf(weight.dtype)) / 8;
  // Whole rows where they fit, because expressions are computed by rows.
  const isByRow = Number.isInteger(rowBytes) && rowBytes > 0 && rowBytes <= BAND;
  const step = isByRow ? Math.floor(BAND / rowBytes) * rowBytes : BAND;
  for (let done = 0; done < weight.byteLength; done += step) {
    const count = Math.min(step, weight.byteLength - done);
    reader.readBytes(weight, done, count, band, 0);
    hash.update(band.subarray(0, count));
  }
  return hash.digest('hex');
}
