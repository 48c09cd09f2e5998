/** Constant matrices that DequantizeLinear makes of integers. */

import type { Attribute, Node, Value } from '../../../ir/core.js';
import { type DataType, elementCount } from '../../../ir/type.js';
import { concat, inlineWeight, reshape, scale, slice, type Weight } from '../../../ir/weight.js';
import { Refusal } from '../refusal.js';
import { constantOf } from '../values/constants.js';
import { type Matrix, padded, setToOne, type WeightSink } from './matrix.js';
import { constantVector } from './vectors.js';

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
  times(factor: number): Matrix {
    const { scales } = this;
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
  columns(start: number, end: number): Matrix {
    if (this.granularity === 'out-blocks') throw new Refusal('its scales are blocked along the output axis');
    const axis = this.granularity === 'out' ? 0 : this.granularity === 'in-blocks' ? 1 : null;
    const cut = (weight: Weight): Weight => (axis === null ? weight : slice(weight, axis, start, end));
    return this.#make(slice(this.q, 1, start, end), cut(this.scales), this.zeroPoints && cut(this.zeroPoints));
  }
  get rowAlignment(): number {
    return this.inAlignment;
  }
  rows(start: number, end: number): Matrix {
    const { granularity, block, zeroPoints } = this;
    const isWhole = end === this.inWidth || end % this.rowAlignment === 0;
    if (start % this.rowAlignment !== 0 || !isWhole) throw new Refusal(`rows ${start} to ${end} cut a block in two`);
    const [from, to] = granularity === 'in-blocks' ? [start / block, Math.ceil(end / block)] : [start, end];
    const isAlong = granularity === 'in' || granularity === 'in-blocks';
    const isAcross = granularity === 'out-blocks';
    const cut = (weight: Weight): Weight => (isAlong || isAcross ? slice(weight, 0, from, to) : weight);
    return this.#make(slice(this.q, 0, start, end), cut(this.scales), zeroPoints && cut(zeroPoints));
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
      throw new Refusal(`scales by ${granularity} cannot be joined along the ${axis}put axis`);
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
      if (one?.op !== 'inline') throw new Refusal('its scale is not in memory');
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
        throw new Refusal(`padding ${this.inWidth} to ${width} takes more blocks`);
      }
      if (this.granularity === 'in') throw new Refusal('padding rows that have a scale each');
      return this.#make(q, this.scales, this.zeroPoints);
    }
    const along = this.granularity === 'out' ? 0 : this.granularity === 'in-blocks' ? 1 : null;
    const by = width - this.outWidth;
    const grow = (weight: Weight): Weight => (along === null ? weight : padded(weight, along, by));
    if (along === null && this.zeroPoints) throw new Refusal('padding under a zero point');
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
    setToOne(node, 'alpha');
    sink.replaceOperand(node, 1, made.output(0) as Value);
  }
}

/** The matrix of a MatMul or Gemm whose second operand is dequantised; null where it is none. */
export function matchDequantized(node: Node): Matrix | null {
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
