/** What a format of constant matrices can do, and says when it cannot. */

import type { Node, Value } from '../../../ir/core.js';
import { byteSize, type DataType } from '../../../ir/type.js';
import { concat, inlineWeight, type Weight } from '../../../ir/weight.js';
import { Refusal } from '../refusal.js';

/** Adds initializers; the rewriter is one. */
export interface WeightSink {
  addWeight(wish: string, weight: Weight): Value;
  replaceOperand(node: Node, index: number, value: Value): void;
}

/** A constant matrix [in, out] in some format: what fusing and cutting need to do with it. */
export interface Matrix {
  readonly kind: string;
  readonly inWidth: number;
  readonly outWidth: number;
  /** Element type of what it multiplies. */
  readonly dtype: DataType;
  /** How its numbers are stored, for people: `float16`, `int4 (block 32)`. */
  readonly storedAs: string;
  /** Matrices with equal formats can be joined. */
  readonly format: string;
  /** Members' input widths must be multiples of this to be joined along the input axis (padded where they are not). */
  readonly inAlignment: number;
  /** W times a number. */
  times(factor: number): Matrix;
  /** diag(gamma) W, or null when the format cannot hold it exactly. */
  scaleRows(gamma: Weight): Matrix | null;
  /** The same rounded to the format again, where the format holds it at all. */
  requantizeRows(gamma: Weight): Matrix | null;
  columns(start: number, end: number): Matrix;
  /** Where `rows` can cut: at multiples of this, and at the end. */
  readonly rowAlignment: number;
  rows(start: number, end: number): Matrix;
  /** This and `others`, one after the other. */
  join(others: readonly Matrix[], axis: 'in' | 'out'): Matrix;
  /** Zeros added at the end of an axis. */
  pad(axis: 'in' | 'out', width: number): Matrix;
  /** Makes `node`, an operator of this format, multiply by this matrix. */
  install(node: Node, sink: WeightSink, name: string): void;
  /** A dense [in, out] weight, for formats that are one. */
  readonly dense: Weight | null;
}

/** Matrices joined along their inputs give equally many channels, along their outputs they read so. Throws Refusal. */
export function checkWidths([first, ...others]: readonly Matrix[], axis: 'in' | 'out'): void {
  for (const other of others) {
    const [own, its] = [first, other].map((matrix) => (axis === 'in' ? matrix?.outWidth : matrix?.inWidth));
    if (own !== its) throw new Refusal(`one ${axis === 'in' ? 'gives' : 'reads'} ${own} channels and one ${its}`);
  }
}

/** An operator that multiplied its result by attribute `name` does not any more: the factor is in what it was given. */
export function setToOne(node: Node, name: 'alpha' | 'beta'): void {
  if ((node.floatAttribute(name) ?? 1) !== 1) node.setAttribute(name, { kind: 'float', value: 1 });
}

const ZERO_LIMIT = 2 ** 28;

/** Zeros, within limits: they are in memory. Throws Refusal. */
function zeros(dtype: DataType, dims: readonly number[]): Weight {
  const bytes = byteSize(dtype, dims);
  if (bytes > ZERO_LIMIT) throw new Refusal(`padding it would take ${bytes} bytes of zeros`);
  return inlineWeight(new Uint8Array(bytes), dtype, dims);
}

/** A weight with zeros added at the end of an axis. */
export function padded(weight: Weight, axis: number, by: number): Weight {
  if (by === 0) return weight;
  const dims = weight.dims.map((dim, i) => (i === axis ? by : dim));
  return concat([weight, zeros(weight.dtype, dims)], axis);
}
