/** Maps in blocks of bits. */
import * as assert from 'uvu/assert';
import { hashOf, normal } from '../../../runtime/run/random.js';
import { type MapBits, quantise } from '../../../runtime/stream/map-blocks.js';
import { suite } from '../../helpers/suite.js';

const test = suite('map blocks');

const SIZE = 40;
const weight = Float32Array.from({ length: SIZE * SIZE }, (_, i) => normal(hashOf('map'), i));

/** The matrix that blocks mean, read as MatMulNBits reads them. */
function read({ blocks }: ReturnType<typeof quantise>, bits: MapBits): Float32Array {
  const [out, count, bytes] = blocks.dims;
  const found = new Float32Array(SIZE * SIZE);
  for (let column = 0; column < out; column++) {
    for (let row = 0; row < SIZE; row++) {
      const block = Math.floor(row / 32);
      const bit = (row % 32) * bits;
      const byte = blocks.levels[(column * count + block) * bytes + Math.floor(bit / 8)] as number;
      const level = (byte >> (bit % 8)) & (2 ** bits - 1);
      found[row * SIZE + column] = (level - 2 ** (bits - 1)) * (blocks.scales[column * count + block] as number);
    }
  }
  return found;
}

for (const [bits, most] of [
  [8, 0.006],
  [4, 0.1],
] as const) {
  test(`${bits} bits mean the matrix that is given back, which is near the one that was given`, () => {
    const made = quantise(weight, SIZE, bits);
    assert.equal(made.blocks.dims, [SIZE, 2, 4 * bits]);
    assert.equal(read(made, bits), made.weight);
    const sum = (values: Float32Array): number => values.reduce((total, value) => total + value * value, 0);
    const error = Math.sqrt(sum(made.weight.map((value, i) => value - (weight[i] as number))) / sum(weight));
    assert.ok(error > most / 10 && error < most, `${error}`);
    // What lies behind the last row is zero.
    const level = made.blocks.levels.at(-1) as number;
    assert.is(level, bits === 8 ? 128 : 0x88);
  });
}

test('a block of zeros stays zero', () => {
  const made = quantise(new Float32Array(SIZE * SIZE), SIZE, 4);
  assert.ok(made.weight.every((value) => value === 0) && made.blocks.scales.every((value) => value === 0));
});

test.run();
