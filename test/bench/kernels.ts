/**
 * How fast the loops over elements are, on one core, and where the time of a fusion goes.
 *
 *     npm run bench:kernels -- [--json FILE]
 *
 * Each kernel works on blocks of 4 MiB that are in the cache or just were, as they are after a band has been read, until half a
 * second is over; GB/s counts the bytes of its result. A plain copy of the same block (Uint8Array.set) is what none can beat.
 */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { transposeBlock, widthOf } from '../../ir/disk/kernels/kernel.js';
import {
  scalableMemory,
  scaleRows,
  scaleRowsExactly,
  type TileFactors,
  type TileRows,
} from '../../ir/disk/kernels/scale.js';
import { evaluate } from '../../ir/disk/tile.js';
import { cast, type DataType, inlineWeight } from '../../ir/index.js';
import { quartiles } from '../../runtime/bench/turns.js';
import { mix } from '../../runtime/run/random.js';

const BLOCK = 4 * 2 ** 20;
const COLUMNS = 2048;
const SPENT_MS = 500;

interface Row {
  readonly kernel: string;
  readonly dtype: DataType;
  /** Bytes of result per second / 10^9: the median of many runs, and the quartiles. */
  readonly median: number;
  readonly p25: number;
  readonly p75: number;
}

function measure(kernel: string, dtype: DataType, bytes: number, run: () => void): Row {
  const rates: number[] = [];
  for (let i = 0; i < 3; i++) run();
  for (const began = performance.now(); performance.now() - began < SPENT_MS; ) {
    const start = performance.now();
    run();
    rates.push(bytes / 1e6 / (performance.now() - start));
  }
  return { kernel, dtype, ...quartiles(rates) };
}

/** Small finite values of a type, as bytes. */
function block(dtype: DataType): Uint8Array {
  const floats = Float32Array.from({ length: BLOCK / 4 }, (_, i) => 0.5 + mix(7, i) / 2 ** 33);
  return evaluate(cast(inlineWeight(new Uint8Array(floats.buffer), 'float', [floats.length]), dtype)).subarray(
    0,
    BLOCK,
  );
}

function rowsOf(dtype: DataType, bytes: Uint8Array): TileRows {
  const stride = COLUMNS * widthOf(dtype);
  return { bytes, at: 0, stride, rows: bytes.length / stride, columns: COLUMNS };
}

function measureType(dtype: DataType): Row[] {
  const source = block(dtype);
  // As where bands are written.
  const target = scalableMemory(source.length);
  const rows = rowsOf(dtype, target);
  const bytes = source.length;
  // Near 1, so that repeated scaling does not run off.
  const near1 = (i: number): number => 1 + (mix(3, i) / 2 ** 32 - 0.5) / 1024;
  const factors = (perRow: boolean): TileFactors => ({
    perRow,
    values: Float64Array.from(new Float32Array(perRow ? rows.rows : COLUMNS).map((_, i) => near1(i))),
  });
  const [perRow, perColumn] = [factors(true), factors(false)];
  target.set(source);
  const width = widthOf(dtype);
  const square = Math.floor(Math.sqrt(bytes / width));
  const results = [
    measure('copy', dtype, bytes, () => target.set(source)),
    measure('scale rows', dtype, bytes, () => scaleRows(dtype, rows, perRow, 'w')),
    measure('scale columns', dtype, bytes, () => scaleRows(dtype, rows, perColumn, 'w')),
    measure('scale rows, in f64', dtype, bytes, () => scaleRowsExactly(dtype, rows, perRow, 'w')),
    measure('transpose', dtype, square * square * width, () =>
      transposeBlock(source.subarray(0, square * square * width), square, square, width, target, 0, square * width),
    ),
  ];
  for (const to of ['float', 'float16', 'bfloat16'] as const) {
    if (to === dtype) continue;
    const expression = cast(inlineWeight(source, dtype, [source.length / width / COLUMNS, COLUMNS]), to);
    results.push(measure(`cast to ${to}`, dtype, expression.byteLength, () => evaluate(expression)));
  }
  return results;
}

function main(): void {
  const { values } = parseArgs({ options: { json: { type: 'string' } } });
  const types = ['float', 'float16', 'bfloat16', 'double'] as const;
  const rows = types.flatMap(measureType);
  const table = new Table({ head: ['GB/s', ...types], style: { head: [], border: [], compact: true } });
  for (const kernel of new Set(rows.map((row) => row.kernel))) {
    const cells = types.map((dtype) => {
      const row = rows.find((each) => each.kernel === kernel && each.dtype === dtype);
      return row ? `${row.median.toFixed(2)} (${row.p25.toFixed(2)}..${row.p75.toFixed(2)})` : '-';
    });
    table.push([kernel, ...cells]);
  }
  const machine = `one core of ${cpus()[0]?.model}, Node ${process.versions.node}`;
  console.log(`${machine}; GB = 10^9 bytes of result, median (quartiles)`);
  console.log(table.toString());
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
}

main();
