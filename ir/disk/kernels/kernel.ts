/** The inner loops over elements: floating-point bytes to f64 and back, rounding to nearest even once; transposition. */
import { fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from '../../half.js';
import { bitsOf, type DataType } from '../../type.js';

/** All 65536 float16 values: a look-up is the fastest decoder there is in JavaScript. Made when it is first needed. */
let halves: Float32Array | null = null;

function float16Values(): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => fromFloat16Bits(bits));
  return halves;
}

/** Whether this machine has the order of bytes that ONNX files have. */
export const IS_LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
const f32 = new Float32Array(1);
const f32Word = new Int32Array(f32.buffer);

/**
 * Rounds `values` to a 16-bit format. Rounding to f32 first is harmless unless that gives a subnormal, an infinity or the
 * middle between two numbers of the format: those go the slow way.
 */
function storeHalves(values: Float64Array, elements: Uint16Array, isFloat16: boolean): void {
  const words = new Int32Array(new Float32Array(values).buffer);
  for (let i = 0; i < words.length; i++) {
    const bits = words[i] as number;
    const magnitude = bits & 0x7fffffff;
    if (isFloat16) {
      const isPlain = magnitude >= 0x38800000 && magnitude < 0x477ff000 && (magnitude & 0x1fff) !== 0x1000;
      elements[i] = isPlain
        ? ((bits >>> 16) & 0x8000) | ((magnitude - 0x37fff000) >>> 13)
        : toFloat16Bits(values[i] as number);
    } else {
      const isPlain = (bits & 0xffff) !== 0x8000 && magnitude < 0x7f800000;
      elements[i] = isPlain ? (bits + 0x8000) >>> 16 : toBfloat16Bits(values[i] as number);
    }
  }
}

type Elements = Uint16Array | Float32Array | Float64Array;
type Words = Uint8Array | Uint16Array | Int32Array;
interface ElementsType<E extends Elements | Words> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, offset: number, count: number): E;
}

/** Whether `bytes` from `at` on can be seen as elements of `width` bytes as they lie there. */
function isAligned(bytes: ArrayBufferView, at: number, width: number): boolean {
  return IS_LITTLE && (bytes.byteOffset + at) % width === 0;
}

/** Turns elements between the order of bytes of files and that of this machine, in place. */
function swapped(bytes: Uint8Array<ArrayBuffer>, width: number): Uint8Array<ArrayBuffer> {
  if (IS_LITTLE) return bytes;
  const buffer = Buffer.from(bytes.buffer);
  if (width === 2) buffer.swap16();
  else if (width === 4) buffer.swap32();
  else buffer.swap64();
  return bytes;
}

/** `count` little-endian elements at byte `at`: where they lie if they are aligned, else a copy. */
function elementsOf<E extends Elements>(type: ElementsType<E>, bytes: ArrayBufferView, at: number, count: number): E {
  const width = type.BYTES_PER_ELEMENT;
  if (isAligned(bytes, at, width)) return new type(bytes.buffer, bytes.byteOffset + at, count);
  const copy = new Uint8Array(count * width);
  copy.set(new Uint8Array(bytes.buffer, bytes.byteOffset + at, count * width));
  return new type(swapped(copy, width).buffer, 0, count);
}

/** Lets `fill` write `count` elements that end up at byte `at`. */
function fillElements<E extends Elements>(
  type: ElementsType<E>,
  bytes: ArrayBufferView,
  at: number,
  count: number,
  fill: (elements: E) => void,
): void {
  const width = type.BYTES_PER_ELEMENT;
  if (isAligned(bytes, at, width)) {
    fill(new type(bytes.buffer, bytes.byteOffset + at, count));
    return;
  }
  const elements = new type(new ArrayBuffer(count * width), 0, count);
  fill(elements);
  const raw = swapped(new Uint8Array(elements.buffer as ArrayBuffer), width);
  new Uint8Array(bytes.buffer, bytes.byteOffset + at, count * width).set(raw);
}

/** Decodes `count` elements at byte `at` into `out` from index `outAt`. */
export function loadFloats(
  dtype: DataType,
  bytes: ArrayBufferView,
  at: number,
  count: number,
  out: Float64Array,
  outAt: number,
): void {
  switch (dtype) {
    case 'float':
      out.set(elementsOf(Float32Array, bytes, at, count), outAt);
      return;
    case 'double':
      out.set(elementsOf(Float64Array, bytes, at, count), outAt);
      return;
    case 'float16': {
      const bits = elementsOf(Uint16Array, bytes, at, count);
      const values = float16Values();
      for (let i = 0; i < count; i++) out[outAt + i] = values[bits[i] as number] as number;
      return;
    }
    case 'bfloat16': {
      const bits = elementsOf(Uint16Array, bytes, at, count);
      for (let i = 0; i < count; i++) {
        f32Word[0] = (bits[i] as number) << 16;
        out[outAt + i] = f32[0] as number;
      }
      return;
    }
    default:
      throw new TypeError(`no arithmetic on ${dtype}`);
  }
}

/** Encodes `count` values from index `from`, each rounded once. */
export function storeFloats(
  dtype: DataType,
  values: Float64Array,
  from: number,
  count: number,
  bytes: ArrayBufferView,
  at: number,
): void {
  const own = values.subarray(from, from + count);
  switch (dtype) {
    case 'float':
      fillElements(Float32Array, bytes, at, count, (elements) => elements.set(own));
      return;
    case 'double':
      fillElements(Float64Array, bytes, at, count, (elements) => elements.set(own));
      return;
    case 'float16':
      fillElements(Uint16Array, bytes, at, count, (elements) => storeHalves(own, elements, true));
      return;
    case 'bfloat16':
      fillElements(Uint16Array, bytes, at, count, (elements) => storeHalves(own, elements, false));
      return;
    default:
      throw new TypeError(`no arithmetic on ${dtype}`);
  }
}

/** The smallest magnitude that rounds to infinity. */
const OVERFLOW: Readonly<Partial<Record<DataType, number>>> = {
  float: 2 ** 127 * (2 - 2 ** -24),
  double: Number.POSITIVE_INFINITY,
  float16: 65520,
  bfloat16: 2 ** 127 * (2 - 2 ** -8),
};

/** From this magnitude on, a value of this type is infinite. */
export function overflowOf(dtype: DataType): number {
  return OVERFLOW[dtype] ?? Number.POSITIVE_INFINITY;
}

/** Bytes of one element. */
export function widthOf(dtype: DataType): number {
  return bitsOf(dtype) / 8;
}

/** Writes the transpose of a [rows, columns] block of `width`-byte elements to `target`, in tiles that fit the cache. */
export function transposeBlock(
  source: Uint8Array,
  rows: number,
  columns: number,
  width: number,
  target: Uint8Array,
  at: number,
  rowStride: number,
): void {
  const word = Math.min(width, 4);
  if (rowStride % word !== 0 || (target.byteOffset + at) % word !== 0) {
    const block = new Uint8Array(columns * rows * width);
    transposeBlock(source, rows, columns, width, block, 0, rows * width);
    for (let c = 0; c < columns; c++) {
      target.set(block.subarray(c * rows * width, (c + 1) * rows * width), at + c * rowStride);
    }
    return;
  }
  const type: ElementsType<Words> = word === 1 ? Uint8Array : word === 2 ? Uint16Array : Int32Array;
  const from = new type(source.buffer, source.byteOffset, source.byteLength / word);
  const to = new type(target.buffer, target.byteOffset + at, (rowStride * (columns - 1) + rows * width) / word);
  transposeWords(from, rows, columns, width / word, to, rowStride / word);
}

const BLOCK = 32;

/** The same in words, `size` to an element. Bits are moved as integers: a NaN keeps its own. */
function transposeWords(
  source: Words,
  rows: number,
  columns: number,
  size: number,
  target: Words,
  stride: number,
): void {
  for (let r0 = 0; r0 < rows; r0 += BLOCK) {
    const r1 = Math.min(r0 + BLOCK, rows);
    for (let c0 = 0; c0 < columns; c0 += BLOCK) {
      const c1 = Math.min(c0 + BLOCK, columns);
      for (let c = c0; c < c1; c++) {
        let to = c * stride + r0 * size;
        let from = (r0 * columns + c) * size;
        if (size === 1) {
          for (let r = r0; r < r1; r++, from += columns) target[to++] = source[from] as number;
        } else {
          for (let r = r0; r < r1; r++, from += columns * size) {
            for (let i = 0; i < size; i++) target[to++] = source[from + i] as number;
          }
        }
      }
    }
  }
}
