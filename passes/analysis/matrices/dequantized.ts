/**
 * Constant matrices that DequantizeLinear makes of integers or small floats. Their scales may be dequantised themselves, as
 * in NVFP4: 4-bit floats by 8-bit scales of blocks, which are multiplied by one number for the whole tensor.
 */

import type { Attribute, Node, Value } from '../../../ir/core.js';
import { type DataType, elementCount, isScalable } from '../../../ir/type.js';
import { concat, inlineWeight, reshape, scale, slice, type Weight } from '../../../ir/weight.js';
import { standardOpset } from '../opset.js';
import { Refusal } from '../refusal.js';
import { constantOf } from '../values/constants.js';
import { checkWidths, type Matrix, padded, setToOne, type WeightSink } from './matrix.js';
import { constantVector } from './vectors.js';

/** How scales lie over an integer tensor [in, out]. */
type Granularity = 'tensor' | 'in' | 'out' | 'in-blocks' | 'out-blocks';

/** Scales: numbers, or a matrix [blocks, out] that is dequantised once more. */
type Scales = Weight | DequantizedMatrix;

const ONE_SCALE =
  'each has one scale for all of its weights, and DequantizeLinear has more only from version 13 of the standard operators on';

/** DequantizeLinear(q, scale, zero point) as the weight of a MatMul. */
class DequantizedMatrix implements Matrix {
  readonly kind = 'qdq';
  readonly dense = null;
  constructor(
    readonly q: Weight,
    readonly scales: Scales,
    readonly zeroPoints: Weight | null,
    readonly granularity: Granularity,
    readonly block: number,
    readonly attributes: readonly (readonly [string, Attribute])[],
    /** Whether the model is of a version whose DequantizeLinear can have more than one scale. */
    readonly mayHaveAxis: boolean,
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
  get storedAs(): string {
    return this.block > 0 ? `${this.q.dtype} (block ${this.block})` : this.q.dtype;
  }
  get inAlignment(): number {
    return this.granularity === 'in-blocks' ? this.block : 1;
  }
  get format(): string {
    const zero = this.zeroPoints ? ' with zero points' : '';
    const scales = this.scales instanceof DequantizedMatrix ? `scales ${this.scales.format}` : this.dtype;
    return `dequantised ${this.q.dtype} by ${this.granularity} ${this.block}, ${scales}${zero}`;
  }
  #make(q: Weight, scales: Scales, zero: Weight | null, granularity = this.granularity): DequantizedMatrix {
    return new DequantizedMatrix(q, scales, zero, granularity, this.block, this.attributes, this.mayHaveAxis);
  }
  times(factor: number): DequantizedMatrix {
    const { scales } = this;
    if (scales instanceof DequantizedMatrix) return this.#make(this.q, scales.times(factor), this.zeroPoints);
    const vector = scales.dims.length === 0 ? reshape(scales, [1]) : scales;
    if (!vector) throw new Refusal('its scale is not in memory');
    const scaled = scale(vector, 0, constantVector(factor, 'float', vector.dims[0] as number));
    return this.#make(this.q, scaled, this.zeroPoints);
  }
  scaleRows(): null {
    return null;
  }
  requantizeRows(): null {
    return null;
  }
  columns(start: number, end: number): DequantizedMatrix {
    if (this.granularity === 'out-blocks') throw new Refusal('its scales are blocked along the output axis');
    const axis = this.granularity === 'out' ? 0 : this.granularity === 'in-blocks' ? 1 : null;
    const cut = (weight: Weight): Weight => (axis === null ? weight : slice(weight, axis, start, end));
    const scales = this.scales instanceof DequantizedMatrix ? this.scales.columns(start, end) : cut(this.scales);
    return this.#make(slice(this.q, 1, start, end), scales, this.zeroPoints && cut(this.zeroPoints));
  }
  get rowAlignment(): number {
    return this.inAlignment;
  }
  rows(start: number, end: number): DequantizedMatrix {
    const { granularity, block, zeroPoints } = this;
    const isWhole = end === this.inWidth || end % this.rowAlignment === 0;
    if (start % this.rowAlignment !== 0 || !isWhole) throw new Refusal(`rows ${start} to ${end} cut a block in two`);
    const [from, to] = granularity === 'in-blocks' ? [start / block, Math.ceil(end / block)] : [start, end];
    const isAlong = granularity === 'in' || granularity === 'in-blocks';
    const isAcross = granularity === 'out-blocks';
    const cut = (weight: Weight): Weight => (isAlong || isAcross ? slice(weight, 0, from, to) : weight);
    const scales = this.scales instanceof DequantizedMatrix ? this.scales.rows(from, to) : cut(this.scales);
    return this.#make(slice(this.q, 0, start, end), scales, zeroPoints && cut(zeroPoints));
  }
  join(others: readonly Matrix[], axis: 'in' | 'out'): DequantizedMatrix {
    if (others.length === 0) return this;
    const all = [this, ...(others as readonly DequantizedMatrix[])];
    checkWidths(all, axis);
    const q = concat(
      all.map((matrix) => matrix.q),
      axis === 'in' ? 0 : 1,
    );
    // One scale per tensor becomes one per row (or column): every member keeps its own.
    const spread = this.granularity === 'tensor' ? all.map((matrix) => matrix.#spread(axis)) : all;
    const granularity = this.granularity === 'tensor' ? axis : this.granularity;
    const along = granularity === axis ? 0 : granularity === 'in-blocks' ? (axis === 'in' ? 0 : 1) : null;
    if (along === null || granularity === 'out-blocks') {
      throw new Refusal(`scales by ${granularity} cannot be joined along the ${axis}put axis`);
    }
    const parts = spread.map((matrix) => matrix.scales);
    const [first, ...rest] = parts;
    const scales =
      first instanceof DequantizedMatrix
        ? first.join(rest as DequantizedMatrix[], axis)
        : concat(parts as Weight[], along);
    const zero = this.zeroPoints
      ? concat(
          spread.map((matrix) => matrix.zeroPoints as Weight),
          along,
        )
      : null;
    return this.#make(q, scales, zero, granularity);
  }
  #spread(axis: 'in' | 'out'): DequantizedMatrix {
    if (!this.mayHaveAxis) throw new Refusal(ONE_SCALE);
    const count = axis === 'in' ? this.inWidth : this.outWidth;
    const spread = (weight: Weight): Weight => {
      const one = reshape(weight, [1]);
      if (one?.op !== 'inline') throw new Refusal('its scale is not in memory');
      const bytes = new Uint8Array(one.bytes.length * count);
      for (let i = 0; i < count; i++) bytes.set(one.bytes, i * one.bytes.length);
      return inlineWeight(bytes, weight.dtype, [count]);
    };
    if (this.scales instanceof DequantizedMatrix)
      throw new Refusal('it has one scale, dequantised itself, for the whole tensor');
    return this.#make(this.q, spread(this.scales), this.zeroPoints && spread(this.zeroPoints), axis);
  }
  pad(axis: 'in' | 'out', width: number): DequantizedMatrix {
    const at = axis === 'in' ? 0 : 1;
    const q = padded(this.q, at, width - (this.q.dims[at] as number));
    if (axis === 'in') {
      const { scales } = this;
      const blocks = scales instanceof DequantizedMatrix ? scales.inWidth : scales.dims[0];
      if (this.granularity === 'in-blocks' && Math.ceil(width / this.block) !== blocks) {
        throw new Refusal(`padding it from ${this.inWidth} to ${width} rows takes more blocks`);
      }
      if (this.granularity === 'in') throw new Refusal('its rows have a scale each, and a row of zeros would need one');
      return this.#make(q, this.scales, this.zeroPoints);
    }
    const along = this.granularity === 'out' ? 0 : this.granularity === 'in-blocks' ? 1 : null;
    const by = width - this.outWidth;
    const grow = (weight: Weight): Weight => (along === null ? weight : padded(weight, along, by));
    if (along === null && this.zeroPoints) throw new Refusal('the padding would need a zero point of its own');
    const { scales } = this;
    const wider = scales instanceof DequantizedMatrix ? scales.pad('out', width) : grow(scales);
    return this.#make(q, wider, this.zeroPoints && grow(this.zeroPoints));
  }
  install(node: Node, sink: WeightSink, name: string): void {
    setToOne(node, 'alpha');
    sink.replaceOperand(node, 1, this.#place(node, sink, name));
  }
  /** The operators that dequantise it, in front of `node`. */
  #place(node: Node, sink: WeightSink, name: string): Value {
    const { graph } = node;
    const scaleName = `${name}_scale`;
    const quantized = sink.addWeight(`${name}_quantized`, this.q);
    const scales =
      this.scales instanceof DequantizedMatrix
        ? this.scales.#place(node, sink, scaleName)
        : sink.addWeight(scaleName, this.scales);
    const inputs = [quantized, scales];
    if (this.zeroPoints) inputs.push(sink.addWeight(`${name}_zero_point`, this.zeroPoints));
    const attributes: Record<string, Attribute> = Object.fromEntries(this.attributes);
    // One scale for all has none, and before opset 13 there is no such attribute.
    if (this.granularity !== 'tensor')
      attributes['axis'] = { kind: 'int', value: this.granularity === 'out' ? 1n : 0n };
    const made = graph.addNode(
      { opType: 'DequantizeLinear', name: `${name}_DequantizeLinear`, inputs, outputs: [name], attributes },
      { before: node },
    );
    return made.output(0) as Value;
  }
}

/** The matrix of a MatMul or Gemm whose second operand is dequantised; null where it is none. */
export function matchDequantized(node: Node): Matrix | null {
  return node.intAttribute('transB') === 1 ? null : dequantizedAt(node.input(1));
}

/** The matrix that a chain of DequantizeLinear makes at `value`. */
function dequantizedAt(value: Value | null): DequantizedMatrix | null {
  const dequantize = value?.producer;
  if (dequantize?.op !== 'DequantizeLinear') return null;
  const q = constantOf(dequantize.input(0));
  const scales = constantOf(dequantize.input(1)) ?? dequantizedAt(dequantize.input(1));
  const zero = dequantize.input(2) ? constantOf(dequantize.input(2)) : null;
  if (q?.dims.length !== 2 || !scales || (dequantize.input(2) && !zero)) return null;
  const block = dequantize.intAttribute('block_size') ?? 0;
  const axis = dequantize.intAttribute('axis') ?? 1;
  const isOut = axis === 1 || axis === -1;
  const isOne = !(scales instanceof DequantizedMatrix) && elementCount(scales.dims) === 1;
  const granularity: Granularity = isOne
    ? 'tensor'
    : block > 0
      ? isOut
        ? 'out-blocks'
        : 'in-blocks'
      : isOut
        ? 'out'
        : 'in';
  const sizes = sizesOf(granularity, q.dims, block);
  const own = scales instanceof DequantizedMatrix ? scales.q.dims : scales.dims;
  const fits = (dims: readonly number[]): boolean => (sizes ? dims.join() === sizes.join() : elementCount(dims) === 1);
  if (!fits(own) || !isScalable(scales.dtype) || axis < -2 || axis > 1) return null;
  if (zero && (!fits(zero.dims) || zero.dtype !== q.dtype)) return null;
  const { model } = dequantize.graph.root;
  const mayHaveAxis = !model || standardOpset(model) >= 13;
  return new DequantizedMatrix(q, scales, zero, granularity, block, [...dequantize.attributes], mayHaveAxis);
}

/** The shape of scales and zero points; null where there is one number, in whatever shape. */
function sizesOf(granularity: Granularity, dims: readonly number[], block: number): readonly number[] | null {
  const [rows, columns] = dims as [number, number];
  switch (granularity) {
    case 'tensor':
      return null;
    case 'in':
      return [rows];
    case 'out':
      return [columns];
    case 'in-blocks':
      return [Math.ceil(rows / block), columns];
    case 'out-blocks':
      return [rows, Math.ceil(columns / block)];
  }
}
