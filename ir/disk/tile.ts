/**
 * Evaluates weight expressions, a tile at a time: memory is bounded by the caller's band, never by the weight.
 *
 * A row-major tensor is a matrix in as many ways as it has axes: split at axis k, it has prod(dims[..k]) rows and
 * prod(dims[k..]) columns. Concatenation and slices along axis a are column operations of the view split at a; scaling
 * and sums are separable in every view. A tile of one view is turned into tiles of another through runs of
 * consecutive elements.
 */
import { errors } from '../diagnostic.js';
import { bitsOf, elementCount } from '../type.js';
import type {
  AddWeight,
  CastWeight,
  ConcatWeight,
  ContractWeight,
  RequantizeWeight,
  ScaleWeight,
  SliceWeight,
  TransposeWeight,
  Weight,
} from '../weight.js';
import { fetchLeaf, runOrDefer, type Work } from './fetch.js';
import { loadFloats, overflowOf, storeFloats, transposeBlock, widthOf } from './kernels/kernel.js';
import { asBytes, evaluatePacked } from './kernels/packed.js';
import { requantizeRow } from './kernels/requantize.js';
import { scaleRows } from './kernels/scale.js';

/** Rows [row, rowEnd) and columns [column, columnEnd) of the view split at axis `split`. */
export interface Tile {
  readonly split: number;
  readonly row: number;
  readonly rowEnd: number;
  readonly column: number;
  readonly columnEnd: number;
}
/** Where a tile goes: its first element at `at`, rows `stride` bytes apart. */
interface Target {
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly stride: number;
}

const SCRATCH = 1024 * 1024;

/** The axis at which a weight is split into rows and columns when nothing else asks: [dims[0], rest]. */
export function naturalSplit(weight: Weight): number {
  return weight.dims.length >= 2 ? 1 : 0;
}

/** Bytes of a whole weight, in memory. Throws OF_WEIGHT_OVERFLOW and the reading errors. */
export function evaluate(weight: Weight, name = ''): Uint8Array {
  const bytes = new Uint8Array(weight.byteLength);
  new WeightReader(name).readBytes(weight, 0, weight.byteLength, bytes, 0);
  return bytes;
}

/** Reads weights; `name` is the tensor that error messages blame. */
export class WeightReader {
  readonly #factors = new Map<Weight, Float64Array>();
  #packed: { weight: Weight; bytes: Uint8Array } | null = null;
  /** The work that reads and steps are added to while `prepare` runs; null when they are done at once. */
  #work: Work | null = null;
  constructor(readonly name: string) {}

  /** As `readBytes`, but reads from files and computations are added to `work` instead of being done now. */
  prepare(weight: Weight, start: number, length: number, target: Uint8Array, at: number, work: Work): void {
    this.#work = work;
    try {
      this.readBytes(weight, start, length, target, at);
    } finally {
      this.#work = null;
    }
  }

  #later(step: () => void): void {
    runOrDefer(this.#work, step);
  }

  /** Bytes [start, start + length) of the evaluated weight; both must lie between elements. */
  readBytes(weight: Weight, start: number, length: number, target: Uint8Array, at: number): void {
    if (length === 0) return;
    if (weight.op === 'source' || weight.op === 'inline') {
      fetchLeaf(weight, this.#work, {
        offset: start,
        length,
        rows: 1,
        pitch: length,
        bytes: target,
        at,
        stride: length,
      });
    } else if (bitsOf(weight.dtype) < 8) {
      const bytewise = asBytes(weight);
      if (bytewise) this.readBytes(bytewise, start, length, target, at);
      else this.#later(() => target.set(this.#evaluatePacked(weight).subarray(start, start + length), at));
    } else {
      const width = widthOf(weight.dtype);
      this.#run(weight, naturalSplit(weight), start / width, (start + length) / width, target, at);
    }
  }

  #evaluatePacked(weight: Weight): Uint8Array {
    if (this.#packed?.weight !== weight) {
      this.#packed = { weight, bytes: evaluatePacked(weight, (leaf) => evaluate(leaf, this.name)) };
    }
    return this.#packed.bytes;
  }

  /** Elements [start, end) in row-major order, packed. */
  #run(weight: Weight, split: number, start: number, end: number, bytes: Uint8Array, at: number): void {
    const columns = columnsOf(weight, split);
    const width = widthOf(weight.dtype);
    for (let position = start; position < end; ) {
      const row = Math.floor(position / columns);
      const column = position - row * columns;
      // Up to the end of the row, or as many whole rows as there are.
      const isWhole = column === 0 && position + columns <= end;
      const rowEnd = isWhole ? Math.floor(end / columns) : row + 1;
      const columnEnd = isWhole ? columns : Math.min(columns, column + end - position);
      const target = { bytes, at: at + (position - start) * width, stride: (columnEnd - column) * width };
      this.read(weight, { split, row, rowEnd, column, columnEnd }, target.bytes, target.at, target.stride);
      position += (rowEnd - row) * (columnEnd - column);
    }
  }

  /** Writes a tile of `weight`, whose elements are whole bytes, to `bytes`: rows `stride` bytes apart from `at` on. */
  read(weight: Weight, tile: Tile, bytes: Uint8Array, at: number, stride: number): void {
    if (tile.rowEnd <= tile.row || tile.columnEnd <= tile.column) return;
    const target = { bytes, at, stride };
    switch (weight.op) {
      case 'source':
      case 'inline':
        this.#readLeaf(weight, tile, target);
        break;
      case 'slice':
        this.#readSlice(weight, tile, target);
        break;
      case 'concat':
        this.#readConcat(weight, tile, target);
        break;
      case 'scale':
        this.read(weight.operand, tile, bytes, at, stride);
        this.#later(() => this.#scale(weight, tile, target));
        break;
      // The others read into memory of their own, piece by piece.
      case 'transpose':
        this.#later(() => this.#readTranspose(weight, tile, target));
        break;
      case 'contract':
        this.#later(() => this.#readContract(weight, tile, target));
        break;
      case 'cast':
        this.#later(() => this.#readCast(weight, tile, target));
        break;
      case 'requantize':
        this.#later(() => this.#readRequantized(weight, tile, target));
        break;
      case 'add':
        this.#later(() => this.#readAdd(weight, tile, target));
        break;
    }
  }

  /** The same tile through the view split elsewhere: row by row, or at once when its rows are consecutive. */
  #resplit(weight: Weight, split: number, tile: Tile, { bytes, at, stride }: Target): void {
    const columns = columnsOf(weight, tile.split);
    const width = widthOf(weight.dtype);
    const isWhole = tile.column === 0 && tile.columnEnd === columns && stride === columns * width;
    if (isWhole) {
      this.#run(weight, split, tile.row * columns, tile.rowEnd * columns, bytes, at);
      return;
    }
    for (let row = tile.row; row < tile.rowEnd; row++) {
      const start = row * columns;
      this.#run(weight, split, start + tile.column, start + tile.columnEnd, bytes, at + (row - tile.row) * stride);
    }
  }

  #readLeaf(weight: Weight & { op: 'source' | 'inline' }, tile: Tile, { bytes, at, stride }: Target): void {
    const width = widthOf(weight.dtype);
    const pitch = columnsOf(weight, tile.split) * width;
    const length = (tile.columnEnd - tile.column) * width;
    const offset = tile.row * pitch + tile.column * width;
    fetchLeaf(weight, this.#work, { offset, length, rows: tile.rowEnd - tile.row, pitch, bytes, at, stride });
  }

  #readSlice(weight: SliceWeight, tile: Tile, target: Target): void {
    const { bytes, at, stride } = target;
    if (tile.split === 1 && weight.axis === 0) {
      const moved = { ...tile, row: tile.row + weight.start, rowEnd: tile.rowEnd + weight.start };
      this.read(weight.operand, moved, bytes, at, stride);
    } else if (tile.split !== weight.axis) {
      this.#resplit(weight, weight.axis, tile, target);
    } else {
      const shift = weight.start * elementCount(weight.dims.slice(weight.axis + 1));
      const moved = { ...tile, column: tile.column + shift, columnEnd: tile.columnEnd + shift };
      this.read(weight.operand, moved, bytes, at, stride);
    }
  }

  #readConcat(weight: ConcatWeight, tile: Tile, { bytes, at, stride }: Target): void {
    const byRows = tile.split === 1 && weight.axis === 0;
    if (!byRows && tile.split !== weight.axis) {
      this.#resplit(weight, weight.axis, tile, { bytes, at, stride });
      return;
    }
    const width = widthOf(weight.dtype);
    let start = 0;
    for (const part of weight.parts) {
      const size = byRows ? (part.dims[0] as number) : columnsOf(part, tile.split);
      const first = Math.max(byRows ? tile.row : tile.column, start);
      const last = Math.min(byRows ? tile.rowEnd : tile.columnEnd, start + size);
      if (first < last) {
        if (byRows) {
          const rows = { ...tile, row: first - start, rowEnd: last - start };
          this.read(part, rows, bytes, at + (first - tile.row) * stride, stride);
        } else {
          const columns = { ...tile, column: first - start, columnEnd: last - start };
          this.read(part, columns, bytes, at + (first - tile.column) * width, stride);
        }
      }
      start += size;
    }
  }

  #readTranspose(weight: TransposeWeight, tile: Tile, target: Target): void {
    if (tile.split !== 1) {
      this.#resplit(weight, 1, tile, target);
      return;
    }
    const width = widthOf(weight.dtype);
    const rows = tile.columnEnd - tile.column;
    const columns = tile.rowEnd - tile.row;
    // As many rows of the operand as fit the scratch memory.
    const step = Math.max(1, Math.min(rows, Math.floor(SCRATCH / (columns * width))));
    const block = new Uint8Array(step * columns * width);
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row);
      const from = tile.column + row;
      const flipped = { split: 1, row: from, rowEnd: from + count, column: tile.row, columnEnd: tile.rowEnd };
      this.read(weight.operand, flipped, block, 0, columns * width);
      transposeBlock(block, count, columns, width, target.bytes, target.at + row * width, target.stride);
    }
  }

  /** The factors of a scaling, evaluated once. */
  #factorsOf(by: Weight): Float64Array {
    let factors = this.#factors.get(by);
    if (!factors) {
      const bytes = new Uint8Array(by.byteLength);
      this.readBytes(by, 0, by.byteLength, bytes, 0);
      factors = new Float64Array(elementCount(by.dims));
      loadFloats(by.dtype, bytes, 0, factors.length, factors, 0);
      this.#factors.set(by, factors);
    }
    return factors;
  }

  #scale(weight: ScaleWeight, tile: Tile, target: Target): void {
    const factors = this.#factorsOf(weight.by);
    const perRow = weight.axis < tile.split;
    const rows = tile.rowEnd - tile.row;
    const columns = tile.columnEnd - tile.column;
    const inner = elementCount(weight.dims.slice(weight.axis + 1, perRow ? tile.split : undefined));
    const values = perRow ? repeated(factors, tile.row, rows, inner) : repeated(factors, tile.column, columns, inner);
    scaleRows(weight.dtype, { ...target, rows, columns }, { perRow, values }, this.name);
  }

  #readContract(weight: ContractWeight, tile: Tile, target: Target): void {
    if (tile.split !== 0) {
      this.#resplit(weight, 0, tile, target);
      return;
    }
    const { operand, dtype } = weight;
    const factors = this.#factorsOf(weight.by);
    const columns = tile.columnEnd - tile.column;
    const rowBytes = columns * widthOf(dtype);
    const step = Math.max(1, Math.floor(SCRATCH / rowBytes));
    const band = new Uint8Array(Math.min(step, factors.length) * rowBytes);
    const values = new Float64Array(columns);
    const sums = new Float64Array(columns);
    for (let row = 0; row < factors.length; row += step) {
      const rowEnd = Math.min(row + step, factors.length);
      const { column, columnEnd } = tile;
      this.read(operand, { split: 1, row, rowEnd, column, columnEnd }, band, 0, rowBytes);
      for (let i = row; i < rowEnd; i++) {
        loadFloats(dtype, band, (i - row) * rowBytes, columns, values, 0);
        const factor = factors[i] as number;
        for (let j = 0; j < columns; j++) sums[j] = (sums[j] as number) + factor * (values[j] as number);
      }
    }
    const limit = overflowOf(dtype);
    const over = sums.findIndex((sum) => Math.abs(sum) >= limit && Number.isFinite(sum));
    if (over >= 0) {
      throw errors.weightOverflow(this.name, dtype, 'contract', `${sums[over]} in column ${tile.column + over}`);
    }
    storeFloats(dtype, sums, 0, columns, target.bytes, target.at);
  }

  #readCast(weight: CastWeight, tile: Tile, { bytes, at, stride }: Target): void {
    const from = weight.operand.dtype;
    const columns = tile.columnEnd - tile.column;
    const rowBytes = columns * widthOf(from);
    const step = Math.max(1, Math.floor(SCRATCH / rowBytes));
    const rows = new Uint8Array(Math.min(step, tile.rowEnd - tile.row) * rowBytes);
    const values = new Float64Array(columns);
    const limit = overflowOf(weight.dtype);
    const narrows = limit < overflowOf(from);
    for (let row = tile.row; row < tile.rowEnd; row += step) {
      const rowEnd = Math.min(row + step, tile.rowEnd);
      this.read(weight.operand, { ...tile, row, rowEnd }, rows, 0, rowBytes);
      for (let i = row; i < rowEnd; i++) {
        loadFloats(from, rows, (i - row) * rowBytes, columns, values, 0);
        const over = narrows ? values.find((value) => Math.abs(value) >= limit && Number.isFinite(value)) : undefined;
        if (over !== undefined)
          throw errors.weightOverflow(this.name, weight.dtype, 'cast', `${over}, which is ${from}`);
        storeFloats(weight.dtype, values, 0, columns, bytes, at + (i - tile.row) * stride);
      }
    }
  }

  /** Row by row: a block lies within a row. */
  #readRequantized(weight: RequantizeWeight, tile: Tile, target: Target): void {
    if (tile.split !== 1) {
      this.#resplit(weight, 1, tile, target);
      return;
    }
    const { blocks, scales, zeroPoints } = weight.matrix;
    const factors = this.#factorsOf(weight.by);
    const rowOf = (operand: Weight | null, row: number): Uint8Array => {
      const bytes = new Uint8Array(operand ? columnsOf(operand, 1) * widthOf(operand.dtype) : 0);
      const whole = { split: 1, row, rowEnd: row + 1, column: 0, columnEnd: operand ? columnsOf(operand, 1) : 0 };
      if (operand) this.read(operand, whole, bytes, 0, bytes.length);
      return bytes;
    };
    const width = widthOf(weight.dtype);
    const result = new Uint8Array(columnsOf(weight, 1) * width);
    for (let row = tile.row; row < tile.rowEnd; row++) {
      const overflow = (scale: number): never => {
        throw errors.weightOverflow(
          this.name,
          scales.dtype,
          'requantize',
          `the scale ${scale} of a block in row ${row}`,
        );
      };
      const old = { blocks: rowOf(blocks, row), scales: rowOf(scales, row), zeroPoints: rowOf(zeroPoints, row) };
      requantizeRow(weight, old, factors, result, overflow);
      const part = result.subarray(tile.column * width, tile.columnEnd * width);
      target.bytes.set(part, target.at + (row - tile.row) * target.stride);
    }
  }

  #readAdd(weight: AddWeight, tile: Tile, { bytes, at, stride }: Target): void {
    const width = widthOf(weight.dtype);
    const columns = tile.columnEnd - tile.column;
    const limit = overflowOf(weight.dtype);
    // A few rows at a time: the sums are f64.
    const step = Math.max(1, Math.floor(SCRATCH / (columns * 8)));
    for (let row = tile.row; row < tile.rowEnd; row += step) {
      const rows = Math.min(step, tile.rowEnd - row);
      const count = rows * columns;
      const part = new Uint8Array(count * width);
      const values = new Float64Array(count);
      const sums = new Float64Array(count);
      const allFinite = new Uint8Array(count).fill(1);
      for (const [index, operand] of weight.parts.entries()) {
        this.read(operand, { ...tile, row, rowEnd: row + rows }, part, 0, columns * width);
        loadFloats(weight.dtype, part, 0, count, values, 0);
        for (let i = 0; i < count; i++) {
          const value = values[i] as number;
          if (!Number.isFinite(value)) allFinite[i] = 0;
          // The first one is taken as it is: 0 + -0 would lose its sign.
          sums[i] = index === 0 ? value : (sums[i] as number) + value;
        }
      }
      for (let i = 0; i < count; i++) {
        if (!allFinite[i] || Math.abs(sums[i] as number) < limit) continue;
        throw errors.weightOverflow(this.name, weight.dtype, 'add', `${sums[i]}, of ${weight.parts.length} tensors`);
      }
      for (let i = 0; i < rows; i++) {
        storeFloats(weight.dtype, sums, i * columns, columns, bytes, at + (row - tile.row + i) * stride);
      }
    }
  }
}

/** The factors at places `first`, `first` + 1, ..., of which `inner` neighbours share one, over and over. */
function repeated(factors: Float64Array, first: number, count: number, inner: number): Float64Array {
  const size = factors.length;
  const start = first % size;
  if (inner === 1 && start + count <= size) return factors.subarray(start, start + count);
  const result = new Float64Array(count);
  for (let i = 0; i < count; i++) result[i] = factors[Math.floor((first + i) / inner) % size] as number;
  return result;
}

function columnsOf(weight: Weight, split: number): number {
  return elementCount(weight.dims.slice(split));
}
