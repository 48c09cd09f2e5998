/** Multiplies tiles by factors in place. What the SIMD module (scale.wat) cannot decide is done in f64. */
import { errors } from '../../diagnostic.js';
import type { DataType } from '../../type.js';
import { IS_LITTLE, loadFloats, overflowOf, storeFloats, widthOf } from './kernel.js';
import { SCALE_WASM } from './scale-wasm.js';

/** Elements that go through the memory of the module at a time. */
const CHUNK = 8192;
const FACTORS_AT = 65536;
/** Elements of a group that the module leaves to us. */
const GROUP: Readonly<Partial<Record<DataType, number>>> = { float: 4, float16: 8, bfloat16: 8 };
/** What factors of float16 are multiplied with: see scale.wat. */
const SHIFT = 2 ** 112;

/** Does the elements from `start` on; where it stopped. */
type Kernel = (start: number, end: number) => number;
interface Module {
  readonly bytes: Uint8Array;
  readonly factors: Float32Array;
  readonly kernels: Readonly<Partial<Record<DataType, Kernel>>>;
}

/** What of the WebAssembly interface is used here; the types of Node have none. */
interface Wasm {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: object };
}

let loaded: Module | null | undefined;

/** The module; null where this JavaScript has no WebAssembly with SIMD. */
function load(): Module | null {
  if (loaded !== undefined) return loaded;
  loaded = null;
  if (!IS_LITTLE) return null;
  try {
    const { Module, Instance } = (globalThis as unknown as { WebAssembly: Wasm }).WebAssembly;
    const { exports } = new Instance(new Module(Buffer.from(SCALE_WASM, 'base64')));
    const { memory, ...kernels } = exports as { memory: { buffer: ArrayBuffer } } & Record<string, Kernel>;
    loaded = {
      bytes: new Uint8Array(memory.buffer, 0, FACTORS_AT),
      factors: new Float32Array(memory.buffer, FACTORS_AT, CHUNK),
      kernels,
    };
  } catch {
    // The way in f64 gives the same bytes.
  }
  return loaded;
}

/** Rows of elements in a buffer: the first at byte `at`, `stride` bytes apart. */
export interface TileRows {
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly stride: number;
  readonly rows: number;
  readonly columns: number;
}

/** Factors, one to a row or one to a column of a tile. */
export interface TileFactors {
  readonly perRow: boolean;
  readonly values: Float64Array;
}

/**
 * Multiplies every element by its factor, each product rounded to nearest even once. Rows whose factor is 1 are not
 * touched. Throws OF_WEIGHT_OVERFLOW, which names the tensor `name`, when a finite product becomes infinite.
 */
export function scaleRows(dtype: DataType, tile: TileRows, factors: TileFactors, name: string): void {
  const simd = load();
  const kernel = simd?.kernels[dtype];
  const single = kernel ? singles(factors.values, dtype === 'float16' ? SHIFT : 1) : null;
  if (!simd || !kernel || !single) {
    scaleRowsExactly(dtype, tile, factors, name);
    return;
  }
  const width = widthOf(dtype);
  const group = GROUP[dtype] as number;
  for (let column = 0; column < tile.columns; column += CHUNK) {
    const count = Math.min(CHUNK, tile.columns - column);
    if (!factors.perRow) simd.factors.set(single.subarray(column, column + count));
    for (let row = 0; row < tile.rows; row++) {
      if (factors.perRow) {
        if (factors.values[row] === 1) continue;
        simd.factors.fill(single[row] as number, 0, count);
      }
      const at = tile.at + row * tile.stride + column * width;
      simd.bytes.set(tile.bytes.subarray(at, at + count * width));
      for (let done = kernel(0, count); done < count; done = kernel(done + group, count)) {
        const columns = Math.min(group, count - done);
        const index = factors.perRow ? row : column + done;
        const values = factors.values.subarray(index, index + (factors.perRow ? 1 : columns));
        const rest = { bytes: simd.bytes, at: done * width, stride: 0, rows: 1, columns };
        scaleRowsExactly(dtype, rest, { perRow: factors.perRow, values }, name);
      }
      tile.bytes.set(simd.bytes.subarray(0, count * width), at);
    }
  }
}

/** The factors as f32 times `shift`; null when one is no f32. */
function singles(values: Float64Array, shift: number): Float32Array | null {
  const result = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (Math.fround(value) !== value && !Number.isNaN(value)) return null;
    result[i] = value * shift;
  }
  return result;
}

/** What `scaleRows` does, without the module: products in f64, rounded once. */
export function scaleRowsExactly(dtype: DataType, tile: TileRows, factors: TileFactors, name: string): void {
  const { bytes, columns } = tile;
  const limit = overflowOf(dtype);
  const products = new Float64Array(columns);
  for (let row = 0; row < tile.rows; row++) {
    const rowFactor = factors.perRow ? (factors.values[row] as number) : 1;
    if (factors.perRow && rowFactor === 1) continue;
    const at = tile.at + row * tile.stride;
    loadFloats(dtype, bytes, at, columns, products, 0);
    for (let i = 0; i < columns; i++) {
      const factor = factors.perRow ? rowFactor : (factors.values[i] as number);
      const value = products[i] as number;
      const product = value * factor;
      products[i] = product;
      if (Math.abs(product) >= limit && Number.isFinite(value) && Number.isFinite(factor)) {
        throw errors.weightOverflow(name, dtype, 'scale', `${value} times ${factor}`);
      }
    }
    storeFloats(dtype, products, 0, columns, bytes, at);
  }
}
