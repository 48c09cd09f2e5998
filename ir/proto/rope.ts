/** Encoded bytes as a list of pieces, so that no tensor is read to learn how long a message is. */
import type { Weight } from '../weight.js';
import { joinBytes } from './wire.js';

export type RopeChunk = Uint8Array | Weight;

/** Ordered chunks; a weight stands for its bytes, which only the disk layer evaluates. */
export interface Rope {
  readonly chunks: readonly RopeChunk[];
  readonly byteLength: number;
}

const JOIN_LIMIT = 64 * 1024;

export function ropeOf(...chunks: RopeChunk[]): Rope {
  return joinRopes(chunks.map((chunk) => ({ chunks: [chunk], byteLength: chunk.byteLength })));
}

/** One rope after another; small neighbouring pieces become one. */
export function joinRopes(ropes: readonly Rope[]): Rope {
  const chunks: RopeChunk[] = [];
  let byteLength = 0;
  let small: Uint8Array[] = [];
  let smallLength = 0;
  const flush = (): void => {
    if (small.length > 0) chunks.push(joinBytes(small));
    small = [];
    smallLength = 0;
  };
  for (const rope of ropes) {
    byteLength += rope.byteLength;
    for (const chunk of rope.chunks) {
      if (chunk.byteLength === 0) continue;
      if (chunk instanceof Uint8Array && smallLength + chunk.length <= JOIN_LIMIT) {
        small.push(chunk);
        smallLength += chunk.length;
        continue;
      }
      flush();
      if (chunk instanceof Uint8Array && chunk.length <= JOIN_LIMIT) {
        small.push(chunk);
        smallLength = chunk.length;
      } else chunks.push(chunk);
    }
  }
  flush();
  return { chunks, byteLength };
}
