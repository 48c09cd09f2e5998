/** Multiplies tiles by factors in place. What the SIMD module (scale.wat) cannot decide is done in f64. */
import { errors } from '../../diagnostic.js';
import type { DataType } from '../../type.js';
import { IS_LITTLE, loadFloats, overflowOf, storeFloats, widthOf } from './kernel.js';
import { SCALE_WASM } from './scale-wasm.js';

/** Elements whose factors the module holds at a time. */
const CHUNK = 8192;
const FACTORS_AT = 65536;
/** What lies in a memory before what others keep there: elements that come from elsewhere, and factors. */
const OWN_BYTES = 2 * 65536;
const PAGE = 65536;
/** Elements of a group that the module leaves to us. */
const GROUP: Readonly<Partial<Record<DataType, number>>> = { float: 4, float16: 8, bfloat16: 8 };
/** Factors of the largest group, all alike where a row has one. */
const ALIKE = 8;
/** What factors of float16 are multiplied with: see scale.wat. */
const SHIFT = 2 ** 112;

/** Does the elements from `start` on, of which the first of all lies at `at`; where it stopped. `mask`: as in scale.wat. */
type Kernel = (start: number, end: number, at: number, mask: number) => number;
interface Kernels {
  readonly bytes: Uint8Array;
  readonly factors: Float32Array;
  readonly of: Readonly<Partial<Record<DataType, Kernel>>>;
}

/** What of the WebAssembly interface is used here; the types of Node have none. */
interface Wasm {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: object };
  readonly Memory: new (size: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
}

let module: object | null = null;
/** The kernels that work in a memory, found by its buffer. */
const kernelsIn = new WeakMap<ArrayBufferLike, Kernels>();
/** Those for what lies in other memory; null where this JavaScript has no WebAssembly with SIMD. */
let common: Kernels | null | undefined;

/** Kernels with a memory that has `room` bytes for others. Throws where there is no WebAssembly with SIMD, or no memory. */
function makeKernels(room: number): Kernels {
  if (!IS_LITTLE) throw new Error('the kernels are for machines that begin with the lowest byte');
  const { Module, Instance, Memory } = (globalThis as unknown as { WebAssembly: Wasm }).WebAssembly;
  module ??= new Module(Buffer.from(SCALE_WASM, 'base64'));
  const pages = Math.ceil((OWN_BYTES + room) / PAGE);
  const memory = new Memory({ initial: pages, maximum: pages });
  const { exports } = new Instance(module, { scale: { memory } });
  const made: Kernels = {
    bytes: new Uint8Array(memory.buffer),
    factors: new Float32Array(memory.buffer, FACTORS_AT, CHUNK),
    of: exports as Record<string, Kernel>,
  };
  kernelsIn.set(memory.buffer, made);
  return made;
}

function commonKernels(): Kernels | null {
  if (common === undefined) {
    try {
      common = makeKernels(0);
    } catch {
      // The way in f64 gives the same bytes.
      common = null;
    }
  }
  return common;
}

/** Memory in which `scaleRows` works where it lies; what is anywhere else it copies to and fro. */
export function scalableMemory(byteLength: number): Uint8Array {
  try {
    return makeKernels(byteLength).bytes.subarray(OWN_BYTES, OWN_BYTES + byteLength);
  } catch {
    return new Uint8Array(byteLength);
  }
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
  const own = kernelsIn.get(tile.bytes.buffer);
  const kernels = own ?? commonKernels();
  const kernel = kernels?.of[dtype];
  const single = kernel ? singles(factors.values, dtype === 'float16' ? SHIFT : 1) : null;
  if (!kernels || !kernel || !single) {
    scaleRowsExactly(dtype, tile, factors, name);
    return;
  }
  const width = widthOf(dtype);
  const group = GROUP[dtype] as number;
  const mask = factors.perRow ? 0 : -1;
  for (let column = 0; column < tile.columns; column += CHUNK) {
    const count = Math.min(CHUNK, tile.columns - column);
    // Behind the last whole group lie elements that are not ours.
    const inPlace = own ? count - (count % group) : 0;
    if (!factors.perRow) kernels.factors.set(single.subarray(column, column + count));
    for (let row = 0; row < tile.rows; row++) {
      if (factors.perRow) {
        if (factors.values[row] === 1) continue;
        for (let i = 0; i < ALIKE; i++) kernels.factors[i] = single[row] as number;
      }
      const scale = (start: number, end: number, first: number) => {
        for (let done = kernel(start, end, first, mask); done < end; done = kernel(done + group, end, first, mask)) {
          const columns = Math.min(group, end - done);
          const index = factors.perRow ? row : column + done;
          const values = factors.values.subarray(index, index + (factors.perRow ? 1 : columns));
          const rest = { bytes: kernels.bytes, at: first + done * width, stride: 0, rows: 1, columns };
          scaleRowsExactly(dtype, rest, { perRow: factors.perRow, values }, name);
        }
      };
      const at = tile.at + row * tile.stride + column * width;
      if (inPlace > 0) scale(0, inPlace, tile.bytes.byteOffset + at);
      if (inPlace < count) {
        const others = tile.bytes.subarray(at + inPlace * width, at + count * width);
        kernels.bytes.set(others);
        scale(inPlace, count, -inPlace * width);
        others.set(kernels.bytes.subarray(0, others.length));
      }
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
