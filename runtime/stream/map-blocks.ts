/**
 * Maps in blocks of 4 or 8 bits, as com.microsoft MatMulNBits multiplies them: column c of W [in, out] is a row of
 * ceil(in / BLOCK) blocks with a scale each, w = (level - 2^(bits-1)) scale. Scales are rounded to float16, so that they are the
 * same beside activations of any type; levels are chosen for the rounded scale.
 */
import { fromFloat16Bits, toFloat16Bits } from '../../ir/half.js';
import { MAP_BLOCK as BLOCK } from '../../passes/index.js';

export type MapBits = 4 | 8;

/** W in blocks. */
export interface MapBlocks {
  readonly bits: MapBits;
  /** [out, blocks, BLOCK * bits / 8]: levels, the first in the lowest bits. */
  readonly levels: Uint8Array;
  /** [out, blocks]. */
  readonly scales: Float32Array;
  readonly dims: readonly [out: number, blocks: number, bytes: number];
}

/** Rounds `weight` [size, size], row-major, to blocks; returns them, and the matrix that they mean. */
export function quantise(
  weight: Float32Array,
  size: number,
  bits: MapBits,
): { blocks: MapBlocks; weight: Float32Array } {
  const count = Math.ceil(size / BLOCK);
  const bytes = (BLOCK * bits) / 8;
  const middle = 2 ** (bits - 1);
  const levels = new Uint8Array(size * count * bytes);
  const scales = new Float32Array(size * count);
  const rounded = new Float32Array(weight.length);
  for (let column = 0; column < size; column++) {
    for (let block = 0; block < count; block++) {
      const [first, end] = [block * BLOCK, Math.min(size, (block + 1) * BLOCK)];
      let extreme = 0;
      for (let row = first; row < end; row++) {
        const value = weight[row * size + column] as number;
        if (Math.abs(value) > Math.abs(extreme)) extreme = value;
      }
      // The extreme value sits at the end of the range that has one step more, hence the sign.
      const scale = fromFloat16Bits(toFloat16Bits(extreme / -middle));
      scales[column * count + block] = scale;
      for (let row = first; row < first + BLOCK; row++) {
        const value = row < end ? (weight[row * size + column] as number) : 0;
        const exact = scale === 0 ? middle : Math.round(value / scale) + middle;
        const level = Math.min(Math.max(exact, 0), 2 * middle - 1);
        const at = (column * count + block) * bytes + ((row - first) * bits) / 8;
        const byte = Math.floor(at);
        levels[byte] = (levels[byte] as number) | (level << (at === byte ? 0 : 4));
        if (row < end) rounded[row * size + column] = (level - middle) * scale;
      }
    }
  }
  return { blocks: { bits, levels, scales, dims: [size, count, bytes] }, weight: rounded };
}
