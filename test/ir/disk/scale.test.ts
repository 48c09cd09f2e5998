/** Scaling with SIMD against scaling in f64, and the assembled module against its source. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import wabt from 'wabt';
import { storeFloats, transposeBlock, widthOf } from '../../../ir/disk/kernels/kernel.js';
import {
  scalableMemory,
  scaleRows,
  scaleRowsExactly,
  type TileFactors,
  type TileRows,
} from '../../../ir/disk/kernels/scale.js';
import { SCALE_WASM } from '../../../ir/disk/kernels/scale-wasm.js';
import { type DataType, Diagnostic } from '../../../ir/index.js';
import { ROOT } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';

const test = suite('ir/disk scaling');

const DISK = join(ROOT, 'ir', 'disk', 'kernels');

test('the module is its source, assembled', async () => {
  const { parseWat } = await wabt();
  const { buffer } = parseWat('scale.wat', readFileSync(join(DISK, 'scale.wat'), 'utf8'), { simd: true }).toBinary({});
  const text = Buffer.from(buffer).toString('base64');
  if (process.env['ONNX_FUSE_ACCEPT'] === '1' && text !== SCALE_WASM) {
    const head =
      '/** scale.wat, assembled, in base64. Made by test/ir/disk/scale.test.ts with ONNX_FUSE_ACCEPT=1; never edited. */';
    const lines = (text.match(/.{1,108}/g) ?? []).map((line) => `  '${line}'`).join(' +\n');
    writeFileSync(join(DISK, 'scale-wasm.ts'), `${head}\nexport const SCALE_WASM =\n${lines};\n`);
    return;
  }
  assert.is(SCALE_WASM, text, 'ONNX_FUSE_ACCEPT=1 node dist/test/run.js ir/disk/scale assembles it anew');
});

/** What scaling leaves in the bytes, or the code of what it throws. */
function outcome(scale: typeof scaleRows, dtype: DataType, tile: TileRows, factors: TileFactors): Uint8Array | string {
  const bytes = tile.bytes.slice();
  try {
    scale(dtype, { ...tile, bytes }, factors, 'w');
  } catch (error) {
    if (error instanceof Diagnostic) return error.code;
    throw error;
  }
  return bytes;
}

/** As `scaleRows`, in memory where it works in place, between bytes that must stay as they are. */
const scaleInPlace: typeof scaleRows = (dtype, tile, factors, name) => {
  const memory = scalable.subarray(0, tile.bytes.length + 2 * MARGIN).fill(0x5a);
  const bytes = memory.subarray(MARGIN, memory.length - MARGIN);
  bytes.set(tile.bytes);
  scaleRows(dtype, { ...tile, bytes }, factors, name);
  tile.bytes.set(bytes);
  bytes.fill(0x5a);
  assert.ok(memory.every((byte) => byte === 0x5a));
};
const MARGIN = 24;
const scalable = scalableMemory(2 ** 20);

function same(dtype: DataType, tile: TileRows, factors: TileFactors): void {
  const exact = outcome(scaleRowsExactly, dtype, tile, factors);
  sameOutcome(outcome(scaleRows, dtype, tile, factors), exact, dtype, factors);
  sameOutcome(outcome(scaleInPlace, dtype, tile, factors), exact, dtype, factors);
}

function sameOutcome(
  fast: Uint8Array | string,
  exact: Uint8Array | string,
  dtype: DataType,
  factors: TileFactors,
): void {
  if (typeof fast === 'string' || typeof exact === 'string') assert.is(fast, exact);
  else assert.is(Buffer.compare(fast, exact), 0, `${dtype} ${firstDifference(fast, exact, factors)}`);
}

function firstDifference(a: Uint8Array, b: Uint8Array, { values }: TileFactors): string {
  const at = a.findIndex((byte, i) => byte !== b[i]);
  return `byte ${at}: ${a[at]} and ${b[at]}; factors ${values.slice(0, 4).join()}`;
}

/** Every 16-bit pattern once. */
const all16 = (): Uint8Array => new Uint8Array(Uint16Array.from({ length: 65536 }, (_, bits) => bits).buffer);

/** Factors of every size that matter to 16-bit formats, with short and with long mantissas. */
const FACTORS: readonly number[] = [
  ...[1.5, 0.75, 1 + 2 ** -7, 1 + 2 ** -10, 3, -1.25, 0, -0, 2 ** -24, 2 ** -14, 2 ** -30, 65536, 1e30, 2 ** 127],
  ...[1.01, 0.999, 7.3e-5, 1 / 3, -1.0000001, 1e-20, 2 ** -149, 12345.678].map(Math.fround),
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
];

for (const dtype of ['float16', 'bfloat16'] as const) {
  test(`${dtype}: every number times factors of all kinds is rounded once`, () => {
    const bytes = all16();
    for (const factor of [...FACTORS, 1.1, 1 + 2 ** -40]) {
      // Those that overflow would hide the others: numbers that stay finite are done apart.
      for (const limit of [65536, 0x3c00, 0x3000]) {
        const some = Uint8Array.from(bytes);
        const view = new Uint16Array(some.buffer);
        for (let i = 0; i < view.length; i++) if (((view[i] as number) & 0x7fff) > limit) view[i] = 0;
        const tile = { bytes: some, at: 0, stride: 0, rows: 1, columns: 65536 };
        same(dtype, tile, { perRow: true, values: Float64Array.of(factor) });
      }
    }
  });
}

test('products on and beside the middle between two numbers are rounded to the right side', () => {
  // 1 + 1/128 times the factor of which the product is half-way, and the f32 neighbours of that factor.
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const bytes = all16();
    const steps = dtype === 'float16' ? 10 : 7;
    const values: number[] = [];
    for (let mantissa = 0; mantissa < 2 ** steps; mantissa += 7) {
      const middle = 1 + (mantissa + 0.5) / 2 ** steps;
      for (const operand of [1, 1.25, 1.875]) {
        const factor = Math.fround(middle / operand);
        values.push(factor, Math.fround(factor * (1 + 2 ** -23)), Math.fround(factor * (1 - 2 ** -23)));
      }
    }
    for (const factor of values.filter((_, i) => i % 5 === 0)) {
      const tile = { bytes: bytes.slice(0, 0x3c00 * 2), at: 0, stride: 0, rows: 1, columns: 0x3c00 };
      same(dtype, tile, { perRow: true, values: Float64Array.of(factor) });
    }
  }
});

test('a product that just becomes infinite is an error, one that just does not is the largest number', () => {
  const largest = { float: 2 ** 128 - 2 ** 104, float16: 65504, bfloat16: 2 ** 128 - 2 ** 120 };
  for (const [dtype, value] of Object.entries(largest) as [keyof typeof largest, number][]) {
    const step = { float: 2 ** -24, float16: 2 ** -11, bfloat16: 2 ** -8 }[dtype];
    const tile = (): TileRows => {
      const bytes = new Uint8Array(16 * widthOf(dtype));
      storeFloats(
        dtype,
        Float64Array.from({ length: 16 }, (_, i) => (i === 9 ? value : 1)),
        0,
        16,
        bytes,
        0,
      );
      return { bytes, at: 0, stride: 0, rows: 1, columns: 16 };
    };
    for (let i = -6; i <= 6; i++) {
      const factor = Math.fround(1 + (i * step) / 4);
      if (factor === 1) continue;
      same(dtype, tile(), { perRow: true, values: Float64Array.of(factor) });
      if (dtype !== 'float') {
        const isInfinite = value * factor >= value * (1 + step / (2 - 2 * step));
        const found = outcome(scaleRows, dtype, tile(), { perRow: true, values: Float64Array.of(factor) });
        assert.is(found === 'OF_WEIGHT_OVERFLOW', isInfinite, `${dtype} times ${factor}`);
      }
    }
  }
});

test('the product that lies half-way to infinity is infinite', () => {
  // 65520 = 45 * 1456, and 511 = 7 * 73: the operands are numbers of these types, the products are not.
  const cases = { float16: [45, 1456], bfloat16: [7 * 2 ** 60, 73 * 2 ** 59] } as const;
  for (const [dtype, [value, factor]] of Object.entries(cases) as [keyof typeof cases, [number, number]][]) {
    const bytes = new Uint8Array(16);
    storeFloats(dtype, new Float64Array(8).fill(value), 0, 8, bytes, 0);
    const tile = { bytes, at: 0, stride: 0, rows: 1, columns: 8 };
    assert.is(outcome(scaleRows, dtype, tile, { perRow: true, values: Float64Array.of(factor) }), 'OF_WEIGHT_OVERFLOW');
  }
});

test('random tiles with random factors, per row and per column, aligned or not', () => {
  const bits = fc.uint8Array({ minLength: 8, maxLength: 2000 });
  const factor = fc.oneof(
    fc.constantFrom(...FACTORS),
    fc.float({ noNaN: true, min: Math.fround(0.01), max: 100 }),
    fc.double({ noNaN: true, min: 0.01, max: 100 }),
  );
  const dtypes = fc.constantFrom<DataType>('float', 'float16', 'bfloat16', 'double');
  const shape = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 40 }));
  fc.assert(
    fc.property(
      dtypes,
      shape,
      bits,
      fc.array(factor, { minLength: 40, maxLength: 40 }),
      fc.boolean(),
      fc.nat({ max: 7 }),
      fc.boolean(),
      (dtype, [rows, columns], noise, factors, perRow, at, isTame) => {
        const width = widthOf(dtype);
        const stride = columns * width + (at % 3);
        const bytes = Uint8Array.from({ length: at + rows * stride }, (_, i) => noise[i % noise.length] as number);
        if (isTame) {
          const values = Float64Array.from(
            { length: columns },
            (_, i) => ((noise[i % noise.length] as number) - 128) / 64,
          );
          for (let row = 0; row < rows; row++) storeFloats(dtype, values, 0, columns, bytes, at + row * stride);
        }
        const values = Float64Array.from(factors.slice(0, perRow ? rows : columns));
        same(dtype, { bytes, at, stride, rows, columns }, { perRow, values });
      },
    ),
    { seed: 11, numRuns: 5000 },
  );
});

test('rows longer than the memory of the module are scaled whole', () => {
  for (const dtype of ['float', 'float16', 'bfloat16'] as const) {
    const columns = 3 * 8192 + 5;
    const bytes = new Uint8Array(2 * columns * widthOf(dtype));
    const values = Float64Array.from({ length: 2 * columns }, (_, i) => ((i * 7919) % 1000) / 500 - 1);
    storeFloats(dtype, values, 0, values.length, bytes, 0);
    const tile = { bytes, at: 0, stride: columns * widthOf(dtype), rows: 2, columns };
    same(dtype, tile, {
      perRow: false,
      values: Float64Array.from({ length: columns }, (_, i) => Math.fround(1 + i / 1e5)),
    });
    same(dtype, tile, { perRow: true, values: Float64Array.of(Math.fround(1.1), 0.5) });
  }
});

test('blocks of elements of every width are transposed, wherever they lie', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1, 2, 4, 8, 16),
      fc.integer({ min: 1, max: 70 }),
      fc.integer({ min: 1, max: 70 }),
      fc.nat({ max: 9 }),
      fc.nat({ max: 9 }),
      (width, rows, columns, at, more) => {
        const source = Uint8Array.from({ length: rows * columns * width }, (_, i) => (i * 131) % 251);
        const stride = rows * width + more;
        const target = new Uint8Array(at + columns * stride).fill(0xee);
        transposeBlock(source, rows, columns, width, target, at, stride);
        const expected = new Uint8Array(target.length).fill(0xee);
        for (let r = 0; r < rows; r++) {
          for (let c = 0; c < columns; c++) {
            const element = source.subarray((r * columns + c) * width, (r * columns + c + 1) * width);
            expected.set(element, at + c * stride + r * width);
          }
        }
        assert.is(Buffer.compare(target, expected), 0);
      },
    ),
    { seed: 12, numRuns: 400 },
  );
});

test.run();
