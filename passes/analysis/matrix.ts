/**
 * Constant matrices [in, out] as operators store them: dense (MatMul, Gemm, FusedMatMul), blocks of 2, 4 or 8 bits
 * (com.microsoft MatMulNBits) and DequantizeLinear of an integer tensor. Each can be cut by columns and joined along
 * either axis; what a format cannot do exactly it refuses with the reason.
 */
import type { Attribute, Node, Value } from '../../ir/core.js';
import { byteSize, type DataType, elementCount } from '../../ir/type.js';
import {
  type BlockPart,
  concat,
  inlineWeight,
  requantize,
  reshape,
  scale,
  slice,
  transpose,
  type Weight,
} from '../../ir/weight.js';
import { constantOf } from './constants.js';

/** Thrown when a format cannot do what was asked; the message is the reason. */
export class NotExact extends Error {}

/** Adds initializers; the rewriter is one. */
export interface WeightSink {
  addWeight(wish: string, weight: Weight): Value;
  replaceOperand(node: Node, index: number, value: Value): void;
}

export interface Matrix {
  readonly kind: string;
  readonly inWidth: number;
  readonly outWidth: number;
  /** Element type of what it multiplies. */
  readonly dtype: DataType;
  /** Matrices with equal formats can be joined. */
  readonly format: string;
  /** Members' input widths must be multiples of this to be joined along the input axis (padded where they are not). */
  readonly inAlignment: number;
  /** diag(gamma) W, or null when the format cannot hold it exactly. */
  scaleRows(gamma: Weight): Matrix | null;
  /** The same rounded to the format again, where the format holds it at all. */
  requantizeRows(gamma: Weight): Matrix | null;
  columns(start: number, end: number): Matrix;
  /** This and `others`, one after the other. */
  join(others: readonly Matrix[], axis: 'in' | 'out'): Matrix;
  /** Zeros added at the end of an axis. */
  pad(axis: 'in' | 'out', width: number): Matrix;
  /** Makes `node`, an operator of this format, multiply by this matrix. */
  install(node: Node, sink: WeightSink, name: string): void;
  /** A dense [in, out] weight, for formats that are one. */
  readonly dense: Weight | null;
}

const ZERO_LIMIT = 2 ** 28;

function zeros(dtype: DataType, dims: readonly number[]): Weight {
  const bytes = byteSize(dtype, dims);
  if (bytes > ZERO_LIMIT) throw new NotExact(`padding it would take ${bytes} bytes of zeros`);
  return inlineWeight(new Uint8Array(bytes), dtype, dims);
}

function padded(weight: Weight, axis: number, by: number): Weight {
  if (by === 0) return weight;
  const dims = weight.dims.map((dim, i) => (i === axis ? by : dim));
  return concat([weight, zeros(weight.dtype, dims)], axis);
}

class DenseMatrix implements Matrix {
  readonly kind = 'dense';
  readonly inAlignment = 1;
  /** [in, out], whatever way round the operator wants it. */
  constructor(readonly dense: Weight) {}
  get inWidth(): number {
    return this.dense.dims[0] as number;
  }
  get outWidth(): number {
    return this.dense.dims[1] as number;
  }
  get dtype(): DataType {
    return this.dense.dtype;
  }
  get format(): string {
    return `dense ${this.dtype}`;
  }
  scaleRows(gamma: Weight): Matrix {
    return new DenseMatrix(scale(this.dense, 0, gamma));
  }
  requantizeRows(): null {
    return null;
  }
  columns(start: number, end: number): Matrix {
    return new DenseMatrix(slice(this.dense, 1, start, end));
  }
  join(others: readonly Matrix[], axis: 'in' | 'out'): Matrix {
    const parts = [this, ...others].map((matrix) => matrix.dense as Weight);
    return new DenseMatrix(concat(parts, axis === 'in' ? 0 : 1));
  }
  pad(axis: 'in' | 'out', width: number): Matrix {
    const at = axis === 'in' ? 0 : 1;
    return new DenseMatrix(padded(this.dense, at, width - (this.dense.dims[at] as number)));
  }
  install(node: Node, sink: WeightSink, name: string): void {
    const isTransposed = node.intAttribute('transB') === 1;
    sink.replaceOperand(node, 1, sink.addWeight(name, isTransposed ? transpose(this.dense) : this.dense));
  }
}

/** com.microsoft MatMulNBits: B [out, blocks, bytes per block], scales [out, blocks], zero points packed per row. */
class BlockMatrix implements Matrix {
  readonly kind = 'nbits';
  readonly dense = null;
  constructor(
    readonly inWidth: number,
    readonly bits: number,
    readonly block: number,
    readonly b: Weight,
    readonly scales: Weight,
    /** [out, bytes] of packed integers, or [out, blocks] of the scales' type. */
    readonly zeroPoints: Weight | null,
    readonly attributes: string,
  ) {}
  get outWidth(): number {
    return this.b.dims[0] as number;
  }
  get dtype(): DataType {
    return this.scales.dtype;
  }
  get inAlignment(): number {
    return this.block;
  }
  get format(): string {
    const zero = this.zeroPoints ? `, ${this.zeroPoints.dtype} zero points` : '';
    return `${this.bits} bits in blocks of ${this.block}, ${this.dtype} scales${zero}${this.attributes}`;
  }
  #with(inWidth: number, change: (weight: Weight) => Weight): BlockMatrix {
    const zero = this.zeroPoints && change(this.zeroPoints);
    return new BlockMatrix(inWidth, this.bits, this.block, change(this.b), change(this.scales), zero, this.attributes);
  }
  scaleRows(): null {
    return null;
  }
  requantizeRows(gamma: Weight): Matrix {
    const { inWidth, bits, block, b: blocks, scales, zeroPoints, attributes } = this;
    const part = (name: BlockPart): Weight => requantize(name, { blocks, scales, zeroPoints, bits }, gamma);
    const zero = zeroPoints && part('zero_points');
    return new BlockMatrix(inWidth, bits, block, part('blocks'), part('scales'), zero, attributes);
  }
  columns(start: number, end: number): Matrix {
    return this.#with(this.inWidth, (weight) => slice(weight, 0, start, end));
  }
  join(others: readonly Matrix[], axis: 'in' | 'out'): Matrix {
    const all = [this, ...(others as readonly BlockMatrix[])];
    if (axis === 'in') {
      for (const matrix of all.slice(0, -1)) {
        if (matrix.inWidth % matrix.block !== 0)
          throw new NotExact(`${matrix.inWidth} is no multiple of ${matrix.block}`);
        const blocks = matrix.inWidth / matrix.block;
        if (matrix.zeroPoints?.dtype === 'uint8' && (blocks * matrix.bits) % 8 !== 0) {
          throw new NotExact('its zero points do not end on a byte');
        }
      }
    }
    const along = axis === 'in' ? 1 : 0;
    const inWidth = axis === 'in' ? all.reduce((sum, matrix) => sum + matrix.inWidth, 0) : this.inWidth;
    const join = (of: (matrix: BlockMatrix) => Weight): Weight => concat(all.map(of), along);
    const zero = this.zeroPoints ? join((matrix) => matrix.zeroPoints as Weight) : null;
    const [b, scales] = [join((matrix) => matrix.b), join((matrix) => matrix.scales)];
    return new BlockMatrix(inWidth, this.bits, this.block, b, scales, zero, this.attributes);
  }
  pad(axis: 'in' | 'out', width: number): Matrix {
    if (axis === 'out') return this.#with(this.inWidth, (weight) => padded(weight, 0, width - this.outWidth));
    const blocks = Math.ceil(width / this.block);
    if (blocks !== this.b.dims[1]) throw new NotExact(`padding ${this.inWidth} to ${width} takes more blocks`);
    // The last block is stored whole: what lies beyond the width meets zeros.
    return this.#with(width, (weight) => weight);
  }
  install(node: Node, sink: WeightSink, name: string): void {
    sink.replaceOperand(node, 1, sink.addWeight(name, this.b));
    sink.replaceOperand(node, 2, sink.addWeight(`${name}_scales`, this.scales));
    if (this.zeroPoints) sink.replaceOperand(node, 3, sink.addWeight(`${name}_zero_points`, this.zeroPoints));
    node.setAttribute('K', { kind: 'int', value: BigInt(this.inWidth) });
    node.setAttribute('N', { kind: 'int', value: BigInt(this.outWidth) });
  }
}

/** How scales lie over an integer tensor [in, out]. */
type Granularity = 'tensor' | 'in' | 'out' | 'in-blocks' | 'out-blocks';

/** DequantizeLinear(q, scale, zero point) as the weight of a MatMul. */
class DequantizedMatrix implements Matrix {
  readonly kind = 'qdq';
  readonly dense = null;
  constructor(
    readonly q: Weight,
    readonly scales: Weight,
    readonly zeroPoints: Weight | null,
    readonly granularity: Granularity,
    readonly block: number,
    readonly attributes: readonly (readonly [string, Attribute])[],
  ) {}
  get inWidth(): number {
    return this.q.dims[0] as number;
  }
  get outWidth(): number {
    return this.q.dims[1] as number;
  }
  get dtype(): DataType {
    return this.scales.dtype;
  }
  get inAlignment(): number {
    return this.granularity === 'in-blocks' ? this.block : 1;
  }
  get format(): string {
    const zero = this.zeroPoints ? ' with zero points' : '';
    return `dequantised ${this.q.dtype} by ${this.granularity} ${this.block}, ${this.dtype}${zero}`;
  }
  #make(q: Weight, scales: Weight, zero: Weight | null, granularity = this.granularity): DequantizedMatrix {
    return new DequantizedMatrix(q, scales, zero, granularity, this.block, this.attributes);
  }
  scaleRows(): null {
    return null;
  }
  requantizeRows(): null {
    return null;
  }
  columns(start: number, end: number): Matrix {
    if (this.granularity === 'out-blocks') throw new NotExact('its scales are blocked along the output axis');
    const axis = this.granularity === 'out' ? 0 : this.granularity === 'in-blocks' ? 1 : null;
    const cut = (weight: Weight): Weight => (axis === null ? weight : slice(weight, axis, start, end));
    return this.#make(slice(this.q, 1, start, end), cut(this.scales), this.zeroPoints && cut(this.zeroPoints));
  }
  join(others: readonly Matrix[], axis: 'in' | 'out'): Matrix {
    const all = [this, ...(others as readonly DequantizedMatrix[])];
    const q = concat(
      all.map((matrix) => matrix.q),
      axis === 'in' ? 0 : 1,
    );
    // One scale per tensor becomes one per row (or column): every member keeps its own.
    const spread = this.granularity === 'tensor' ? all.map((matrix) => matrix.#spread(axis)) : all;
    const granularity = this.granularity === 'tensor' ? axis : this.granularity;
    const along = granularity === axis ? 0 : granularity === 'in-blocks' ? (axis === 'in' ? 0 : 1) : null;
    if (along === null || granularity === 'out-blocks') {
      throw new NotExact(`scales by ${granularity} cannot be joined along the ${axis}put axis`);
    }
    const scales = concat(
      spread.map((matrix) => matrix.scales),
      along,
    );
    const zero = this.zeroPoints
      ? concat(
          spread.map((matrix) => matrix.zeroPoints as Weight),
          along,
        )
      : null;
    return this.#make(q, scales, zero, granularity);
  }
  #spread(axis: 'in' | 'out'): DequantizedMatrix {
    const count = axis === 'in' ? this.inWidth : this.outWidth;
    const spread = (weight: Weight): Weight => {
      const one = reshape(weight, [1]);
      if (one?.op !== 'inline') throw new NotExact('its scale is not in memory');
      const bytes = new Uint8Array(one.bytes.length * count);
      for (let i = 0; i < count; i++) bytes.set(one.bytes, i * one.bytes.length);
      return inlineWeight(bytes, weight.dtype, [count]);
    };
    return this.#make(this.q, spread(this.scales), this.zeroPoints && spread(this.zeroPoints), axis);
  }
  pad(axis: 'in' | 'out', width: number): Matrix {
    const at = axis === 'in' ? 0 : 1;
    const q = padded(this.q, at, width - (this.q.dims[at] as number));
    if (axis === 'in') {
      if (this.granularity === 'in-blocks' && Math.ceil(width / this.block) !== this.scales.dims[0]) {
        throw new NotExact(`padding ${this.inWidth} to ${width} takes more blocks`);
      }
      if (this.granularity === 'in') throw new NotExact('padding rows that have a scale each');
      return this.#make(q, this.scales, this.zeroPoints);
    }
    const along = this.granularity === 'out' ? 0 : this.granularity === 'in-blocks' ? 1 : null;
    const by = width - this.outWidth;
    const grow = (weight: Weight): Weight => (along === null ? weight : padded(weight, along, by));
    if (along === null && this.zeroPoints) throw new NotExact('padding under a zero point');
    return this.#make(q, grow(this.scales), this.zeroPoints && grow(this.zeroPoints));
  }
  install(node: Node, sink: WeightSink, name: string): void {
    const { graph } = node;
    const inputs = [sink.addWeight(`${name}_quantized`, this.q), sink.addWeight(`${name}_scale`, this.scales)];
    if (this.zeroPoints) inputs.push(sink.addWeight(`${name}_zero_point`, this.zeroPoints));
    const attributes: Record<string, Attribute> = Object.fromEntries(this.attributes);
    attributes['axis'] = { kind: 'int', value: this.granularity === 'out' ? 1n : 0n };
    const made = graph.addNode(
      { opType: 'DequantizeLinear', name: `${name}_DequantizeLinear`, inputs, outputs: [name], attributes },
      { before: node },
    );
    sink.replaceOperand(node, 1, made.output(0) as Value);
  }
}

/** A dense [in, out] matrix. */
export function denseMatrix(weight: Weight): Matrix {
  return new DenseMatrix(weight);
}

/** The constant matrix that `node` multiplies its first operand by, or null; a string is why it cannot be handled. */
export function matchMatrix(node: Node): Matrix | string | null {
  switch (node.op) {
    case 'MatMul':
    case 'Gemm':
    case 'com.microsoft.FusedMatMul':
      return matchDense(node) ?? matchDequantized(node);
    case 'com.microsoft.MatMulNBits':
      return matchBlocks(node);
  }
  return QUANTISED.has(node.opType) ? `${node.op} quantises its activations too` : null;
}

const QUANTISED = new Set([
  'MatMulInteger',
  'MatMulIntegerToFloat',
  'QLinearMatMul',
  'DynamicQuantizeMatMul',
  'MatMulBnb4',
]);

function matchDense(node: Node): Matrix | null {
  const weight = constantOf(node.input(1));
  if (weight?.dims.length !== 2) return null;
  return new DenseMatrix(node.intAttribute('transB') === 1 ? transpose(weight) : weight);
}

function matchBlocks(node: Node): Matrix | string {
  const [b, scales] = [constantOf(node.input(1)), constantOf(node.input(2))];
  const bits = node.intAttribute('bits') ?? 4;
  const [k, n, block] = ['K', 'N', 'block_size'].map((name) => node.intAttribute(name) ?? 0) as [
    number,
    number,
    number,
  ];
  if (!b || !scales || k <= 0 || n <= 0 || block <= 0) return 'its quantised weight is not constant';
  if (node.input(4)) return 'its quantised weight is reordered (g_idx)';
  const blocks = Math.ceil(k / block);
  const blob = (block * bits) / 8;
  const b3 = reshape(b, [n, blocks, blob]);
  const s2 = reshape(scales, [n, blocks]);
  if (!b3 || !s2) return `its blocks are not [${n}, ${blocks}, ${blob}]`;
  const zero = node.input(3) ? constantOf(node.input(3)) : null;
  const z2 = zero && reshape(zero, [n, elementCount(zero.dims) / n]);
  if (node.input(3) && !z2) return 'its zero points are not constant';
  const accuracy = node.intAttribute('accuracy_level');
  return new BlockMatrix(k, bits, block, b3, s2, z2, accuracy === undefined ? '' : `, accuracy level ${accuracy}`);
}

function matchDequantized(node: Node): Matrix | string | null {
  const dequantize = node.input(1)?.producer;
  if (dequantize?.op !== 'DequantizeLinear' || node.intAttribute('transB') === 1) return null;
  const q = constantOf(dequantize.input(0));
  const scales = constantOf(dequantize.input(1));
  const zero = dequantize.input(2) ? constantOf(dequantize.input(2)) : null;
  if (q?.dims.length !== 2 || !scales || (dequantize.input(2) && !zero)) return null;
  const block = dequantize.intAttribute('block_size') ?? 0;
  const axis = dequantize.intAttribute('axis') ?? 1;
  const isOut = axis === 1 || axis === -1;
  const granularity: Granularity =
    elementCount(scales.dims) === 1
      ? 'tensor'
      : block > 0
        ? isOut
          ? 'out-blocks'
          : 'in-blocks'
        : isOut
          ? 'out'
          : 'in';
  return new DequantizedMatrix(q, scales, zero, granularity, block, [...dequantize.attributes]);
}
