/**
 * Constant matrices [in, out] as operators store them: dense (MatMul, Gemm, FusedMatMul), blocks of 2, 4 or 8 bits
 * (com.microsoft MatMulNBits) and DequantizeLinear of an integer tensor. Each can be cut by columns and joined along
 * either axis; what a format cannot do exactly it refuses with the reason.
 */

import type { Node } from '../../../ir/core.js';
import { type DataType, isScalable } from '../../../ir/type.js';
import {
  type BlockPart,
  concat,
  requantize,
  reshape,
  scale,
  slice,
  transpose,
  type Weight,
} from '../../../ir/weight.js';
import { Refusal } from '../refusal.js';
import { constantOf } from '../values/constants.js';
import { matchDequantized } from './dequantized.js';
import { checkWidths, type Matrix, padded, setToOne, type WeightSink } from './matrix.js';
import { constantVector } from './vectors.js';

export type { Matrix, WeightSink } from './matrix.js';

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
  get storedAs(): string {
    return this.dtype;
  }
  get format(): string {
    return `dense ${this.dtype}`;
  }
  times(factor: number): Matrix {
    return this.scaleRows(constantVector(factor, 'float', this.inWidth));
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
  readonly rowAlignment = 1;
  rows(start: number, end: number): Matrix {
    return new DenseMatrix(slice(this.dense, 0, start, end));
  }
  join(others: readonly Matrix[], axis: 'in' | 'out'): Matrix {
    const all = [this, ...others];
    checkWidths(all, axis);
    const parts = all.map((matrix) => matrix.dense as Weight);
    return new DenseMatrix(concat(parts, axis === 'in' ? 0 : 1));
  }
  pad(axis: 'in' | 'out', width: number): Matrix {
    const at = axis === 'in' ? 0 : 1;
    return new DenseMatrix(padded(this.dense, at, width - (this.dense.dims[at] as number)));
  }
  install(node: Node, sink: WeightSink, name: string): void {
    const isTransposed = node.intAttribute('transB') === 1;
    setToOne(node, 'alpha');
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
    /** `weight_prepacked`: B is stored in the tiles of a CUDA kernel and not row by row; 0 where it is not. */
    readonly prepacked: number,
  ) {}
  get outWidth(): number {
    return this.b.dims[0] as number;
  }
  /** B in tiles has no rows and columns that could be cut out of its bytes, or put beside those of another. */
  #refuseTiles(): void {
    if (this.prepacked === 0) return;
    const what = `its weight is stored in the tiles of a CUDA kernel (weight_prepacked = ${this.prepacked})`;
    throw new Refusal(`${what}, which can be neither cut nor joined; export the model without prepacking`);
  }
  get dtype(): DataType {
    return this.scales.dtype;
  }
  get inAlignment(): number {
    return this.block;
  }
  get storedAs(): string {
    return `int${this.bits} (block ${this.block})`;
  }
  get format(): string {
    const zero = this.zeroPoints ? `, ${this.zeroPoints.dtype} zero points` : '';
    return `${this.bits} bits in blocks of ${this.block}, ${this.dtype} scales${zero}${this.attributes}`;
  }
  #with(inWidth: number, b: Weight, scales: Weight, zeroPoints: Weight | null): BlockMatrix {
    return new BlockMatrix(inWidth, this.bits, this.block, b, scales, zeroPoints, this.attributes, this.prepacked);
  }
  #changed(inWidth: number, change: (weight: Weight) => Weight): BlockMatrix {
    this.#refuseTiles();
    return this.#with(inWidth, change(this.b), change(this.scales), this.zeroPoints && change(this.zeroPoints));
  }
  times(factor: number): Matrix {
    const scales = scale(this.scales, 1, constantVector(factor, 'float', this.scales.dims[1] as number));
    return this.#with(this.inWidth, this.b, scales, this.zeroPoints);
  }
  scaleRows(): null {
    return null;
  }
  requantizeRows(gamma: Weight): Matrix {
    this.#refuseTiles();
    const { inWidth, bits, b: blocks, scales, zeroPoints } = this;
    const part = (name: BlockPart): Weight => requantize(name, { blocks, scales, zeroPoints, bits }, gamma);
    const zero = zeroPoints && part('zero_points');
    return this.#with(inWidth, part('blocks'), part('scales'), zero);
  }
  columns(start: number, end: number): Matrix {
    return this.#changed(this.inWidth, (weight) => slice(weight, 0, start, end));
  }
  get rowAlignment(): number {
    return this.zeroPoints?.dtype === 'uint8' ? (this.block * 8) / this.bits : this.block;
  }
  rows(start: number, end: number): Matrix {
    this.#refuseTiles();
    const { block, bits, zeroPoints, inWidth } = this;
    const at = start / block;
    const count = Math.ceil((end - start) / block);
    const isWhole = end === inWidth || end % this.rowAlignment === 0;
    if (start % this.rowAlignment !== 0 || !isWhole) throw new Refusal(`rows ${start} to ${end} cut a block in two`);
    const cut = (weight: Weight): Weight => slice(weight, 1, at, at + count);
    const bytes = (blocks: number): number => (blocks * bits) / 8;
    const isPacked = zeroPoints?.dtype === 'uint8';
    const zero =
      zeroPoints && (isPacked ? slice(zeroPoints, 1, bytes(at), Math.ceil(bytes(at + count))) : cut(zeroPoints));
    return this.#with(end - start, cut(this.b), cut(this.scales), zero);
  }
  join(others: readonly Matrix[], axis: 'in' | 'out'): Matrix {
    const all = [this, ...(others as readonly BlockMatrix[])];
    this.#refuseTiles();
    checkWidths(all, axis);
    if (axis === 'in') {
      for (const matrix of all.slice(0, -1)) {
        if (matrix.inWidth % matrix.block !== 0)
          throw new Refusal(`its width, ${matrix.inWidth}, is no multiple of the block of ${matrix.block}`);
        const blocks = matrix.inWidth / matrix.block;
        if (matrix.zeroPoints?.dtype === 'uint8' && (blocks * matrix.bits) % 8 !== 0) {
          throw new Refusal('its zero points do not end on a byte');
        }
      }
    }
    const along = axis === 'in' ? 1 : 0;
    const inWidth = axis === 'in' ? all.reduce((sum, matrix) => sum + matrix.inWidth, 0) : this.inWidth;
    const join = (of: (matrix: BlockMatrix) => Weight): Weight => concat(all.map(of), along);
    const zero = this.zeroPoints ? join((matrix) => matrix.zeroPoints as Weight) : null;
    const [b, scales] = [join((matrix) => matrix.b), join((matrix) => matrix.scales)];
    return this.#with(inWidth, b, scales, zero);
  }
  pad(axis: 'in' | 'out', width: number): Matrix {
    if (axis === 'out') return this.#changed(this.inWidth, (weight) => padded(weight, 0, width - this.outWidth));
    // The last block is stored whole: what lies beyond the width meets zeros. More blocks get scales of zero.
    const blocks = Math.ceil(width / this.block);
    return this.#changed(width, (weight) => {
      const isPacked = weight === this.zeroPoints && weight.dtype === 'uint8';
      const size = isPacked ? Math.ceil((blocks * this.bits) / 8) : blocks;
      return padded(weight, 1, size - (weight.dims[1] as number));
    });
  }
  install(node: Node, sink: WeightSink, name: string): void {
    sink.replaceOperand(node, 1, sink.addWeight(name, this.b));
    sink.replaceOperand(node, 2, sink.addWeight(`${name}_scales`, this.scales));
    if (this.zeroPoints) sink.replaceOperand(node, 3, sink.addWeight(`${name}_zero_points`, this.zeroPoints));
    node.setAttribute('K', { kind: 'int', value: BigInt(this.inWidth) });
    node.setAttribute('N', { kind: 'int', value: BigInt(this.outWidth) });
  }
}

/** A dense [in, out] matrix. */
export function denseMatrix(weight: Weight): Matrix {
  return new DenseMatrix(weight);
}

/** The constant matrix that `node` multiplies its first operand by, or null; a refusal where it cannot be handled. */
export function matchMatrix(node: Node): Matrix | Refusal | null {
  switch (node.op) {
    case 'MatMul':
    case 'Gemm':
    case 'com.microsoft.FusedMatMul':
    case 'com.microsoft.TransposeMatMul':
    case 'com.microsoft.FusedMatMulActivation':
    case 'com.microsoft.FusedGemm':
    case 'com.microsoft.GemmFastGelu': {
      const matrix = matchDense(node) ?? matchDequantized(node);
      const alpha = node.floatAttribute('alpha') ?? 1;
      return alpha === 1 ? matrix : (matrix?.times(alpha) ?? null);
    }
    case 'com.microsoft.MatMulNBits':
      return matchBlocks(node);
  }
  if (!QUANTISED.has(node.opType)) return null;
  return new Refusal(`${node.op} quantises its activations too`, node, 'quantised');
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

function matchBlocks(node: Node): Matrix | Refusal {
  const refuse = (reason: string): Refusal => new Refusal(reason, node, 'quantised');
  const [b, scales] = [constantOf(node.input(1)), constantOf(node.input(2))];
  const bits = node.intAttribute('bits') ?? 4;
  const [k, n, block] = ['K', 'N', 'block_size'].map((name) => node.intAttribute(name) ?? 0) as [
    number,
    number,
    number,
  ];
  if (!b || !scales || k <= 0 || n <= 0 || block <= 0) return refuse('its quantised weight is not constant');
  if (node.input(4)) return refuse('its quantised weight is reordered (g_idx)');
  const blocks = Math.ceil(k / block);
  const blob = (block * bits) / 8;
  const b3 = reshape(b, [n, blocks, blob]);
  const s2 = reshape(scales, [n, blocks]);
  if (!b3 || !s2) return refuse(`its blocks are not [${n}, ${blocks}, ${blob}]`);
  if (b.dtype !== 'uint8' || !isScalable(scales.dtype)) {
    return refuse(`its blocks are ${b.dtype} with scales of ${scales.dtype}`);
  }
  const zero = node.input(3) ? constantOf(node.input(3)) : null;
  if (node.input(3) && !zero) return refuse('its zero points are not constant');
  const isKnown = zero?.dtype === 'uint8' || zero?.dtype === scales.dtype;
  const z2 = zero && reshape(zero, [n, zero.dtype === 'uint8' ? Math.ceil((blocks * bits) / 8) : blocks]);
  if (zero && (!z2 || !isKnown))
    return refuse(`its zero points, ${zero.dtype}[${zero.dims}], do not belong to its blocks`);
  const accuracy = node.intAttribute('accuracy_level');
  const prepacked = node.intAttribute('weight_prepacked') ?? 0;
  const attributes = [
    accuracy === undefined ? '' : `, accuracy level ${accuracy}`,
    prepacked === 0 ? '' : `, prepacked ${prepacked}`,
  ];
  return new BlockMatrix(k, bits, block, b3, s2, z2, attributes.join(''), prepacked);
}
