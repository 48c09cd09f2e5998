/** Tensors of the evaluator: every element is a double, whatever the file says it is. */

export interface Tensor {
  readonly dims: readonly number[];
  readonly data: Float64Array;
  /** TensorProto.DataType. */
  readonly type: number;
}

export const FLOAT = 1;
export const INT64 = 7;
export const BOOL = 9;

/** An operator applied: operands, attributes, and the version of its domain. */
export interface Call {
  readonly op: string;
  readonly inputs: readonly (Tensor | null)[];
  readonly outputCount: number;
  readonly opset: number;
  number(name: string): number | undefined;
  numbers(name: string): readonly number[] | undefined;
  text(name: string): string | undefined;
}

export type Operator = (call: Call) => readonly Tensor[];

export function sizeOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

export function tensor(dims: readonly number[], data: ArrayLike<number>, type = FLOAT): Tensor {
  if (sizeOf(dims) !== data.length) throw new RangeError(`${data.length} elements for [${dims}]`);
  return { dims, data: Float64Array.from(data), type };
}

/** Operand `index`; throws where it is absent. */
export function operand(call: Call, index: number): Tensor {
  const found = call.inputs[index];
  if (!found) throw new RangeError(`${call.op} has no operand ${index}`);
  return found;
}

export function axisOf(axis: number, rank: number): number {
  const found = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(found) || found < 0 || found >= rank)
    throw new RangeError(`axis ${axis} of ${rank} dimensions`);
  return found;
}

/** Elements between two neighbours along each axis. */
export function stridesOf(dims: readonly number[]): number[] {
  const strides = new Array<number>(dims.length).fill(1);
  for (let i = dims.length - 2; i >= 0; i--) strides[i] = (strides[i + 1] as number) * (dims[i + 1] as number);
  return strides;
}

/** The common shape of operands under ONNX broadcasting. */
export function broadcast(shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((shape) => shape[i - rank + shape.length] ?? 1).filter((size) => size !== 1);
    if (sizes.some((size) => size !== sizes[0])) throw new RangeError(`no broadcast of ${shapes.join(' and ')}`);
    return sizes[0] ?? 1;
  });
}

/** For each element of `dims`, which element of a tensor of shape `from` it reads. */
export function places(from: readonly number[], dims: readonly number[]): Int32Array {
  const count = sizeOf(dims);
  const found = new Int32Array(count);
  const own = stridesOf(from);
  const steps = dims.map((_, i) => {
    const at = i - dims.length + from.length;
    return at >= 0 && from[at] !== 1 ? (own[at] as number) : 0;
  });
  const index = new Array<number>(dims.length).fill(0);
  for (let i = 0, place = 0; i < count; i++) {
    found[i] = place;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      place += steps[axis] as number;
      if ((index[axis] as number) < (dims[axis] as number)) break;
      place -= (steps[axis] as number) * (dims[axis] as number);
      index[axis] = 0;
    }
  }
  return found;
}

/** `work` over all operands, broadcast. */
export function elementwise(operands: readonly Tensor[], type: number, work: (...values: number[]) => number): Tensor {
  const [a, b] = operands;
  if (a && b && operands.length === 2 && a.dims.join() === b.dims.join()) {
    return { dims: a.dims, data: a.data.map((value, i) => work(value, b.data[i] as number)), type };
  }
  const dims = broadcast(operands.map((each) => each.dims));
  const at = operands.map((each) => places(each.dims, dims));
  const data = new Float64Array(sizeOf(dims));
  if (a && b && operands.length === 2) {
    const [atA, atB] = at as [Int32Array, Int32Array];
    for (let i = 0; i < data.length; i++) {
      data[i] = work(a.data[atA[i] as number] as number, b.data[atB[i] as number] as number);
    }
    return { dims, data, type };
  }
  for (let i = 0; i < data.length; i++) {
    data[i] = work(...operands.map((each, k) => each.data[(at[k] as Int32Array)[i] as number] as number));
  }
  return { dims, data, type };
}

/** The integers of a shape, an axis list and the like. */
export function integers(from: Tensor): number[] {
  return [...from.data];
}
