/** Operators that move elements or compute with shapes. */
import {
  axisOf,
  type Call,
  INT64,
  integers,
  type Operator,
  operand,
  places,
  sizeOf,
  stridesOf,
  type Tensor,
  tensor,
} from './tensor.js';

/** Elements [start, end) along `axis`. */
export function rangeOf({ dims, data, type }: Tensor, axis: number, start: number, end: number): Tensor {
  const inner = sizeOf(dims.slice(axis + 1));
  const rows = sizeOf(dims.slice(0, axis));
  const size = dims[axis] as number;
  const found = new Float64Array(rows * (end - start) * inner);
  for (let row = 0; row < rows; row++) {
    const from = (row * size + start) * inner;
    found.set(data.subarray(from, from + (end - start) * inner), row * (end - start) * inner);
  }
  return { dims: dims.map((dim, i) => (i === axis ? end - start : dim)), data: found, type };
}

/** Tensors one after another along `axis`. */
export function joined(tensors: readonly Tensor[], axis: number): Tensor {
  const [first] = tensors as [Tensor];
  const size = tensors.reduce((sum, { dims }) => sum + (dims[axis] as number), 0);
  const dims = first.dims.map((dim, i) => (i === axis ? size : dim));
  const inner = sizeOf(dims.slice(axis + 1));
  const rows = sizeOf(dims.slice(0, axis));
  const data = new Float64Array(sizeOf(dims));
  let at = 0;
  for (const each of tensors) {
    const own = (each.dims[axis] as number) * inner;
    if (each.dims.some((dim, i) => i !== axis && dim !== dims[i]))
      throw new RangeError(`Concat of [${dims}] and [${each.dims}]`);
    for (let row = 0; row < rows; row++) {
      data.set(each.data.subarray(row * own, (row + 1) * own), row * size * inner + at);
    }
    at += own;
  }
  return { dims, data, type: first.type };
}

export function transposed({ dims, data, type }: Tensor, order: readonly number[]): Tensor {
  const strides = stridesOf(dims);
  const to = order.map((axis) => dims[axis] as number);
  const steps = order.map((axis) => strides[axis] as number);
  const found = new Float64Array(data.length);
  const own = stridesOf(to);
  for (let i = 0; i < found.length; i++) {
    let [rest, place] = [i, 0];
    for (const [axis, stride] of own.entries()) {
      place += Math.floor(rest / stride) * (steps[axis] as number);
      rest %= stride;
    }
    found[i] = data[place] as number;
  }
  return { dims: to, data: found, type };
}

const reshape: Operator = (call) => {
  const x = operand(call, 0);
  const wanted = integers(operand(call, 1));
  const keepsZero = call.number('allowzero') === 1;
  const dims = wanted.map((dim, i) => (dim === 0 && !keepsZero ? (x.dims[i] as number) : dim));
  const known = dims.filter((dim) => dim !== -1).reduce((product, dim) => product * dim, 1);
  return [
    tensor(
      dims.map((dim) => (dim === -1 ? x.data.length / known : dim)),
      x.data,
      x.type,
    ),
  ];
};

const gather: Operator = (call) => {
  const [x, indices] = [operand(call, 0), operand(call, 1)];
  const axis = axisOf(call.number('axis') ?? 0, x.dims.length);
  const size = x.dims[axis] as number;
  const inner = sizeOf(x.dims.slice(axis + 1));
  const rows = sizeOf(x.dims.slice(0, axis));
  const dims = [...x.dims.slice(0, axis), ...indices.dims, ...x.dims.slice(axis + 1)];
  const data = new Float64Array(sizeOf(dims));
  for (let row = 0, to = 0; row < rows; row++) {
    for (const index of indices.data) {
      if (index >= size || index < -size) throw new RangeError(`Gather of ${index} among ${size}`);
      const from = (row * size + (index < 0 ? index + size : index)) * inner;
      data.set(x.data.subarray(from, from + inner), to);
      to += inner;
    }
  }
  return [{ dims, data, type: x.type }];
};

const slice: Operator = (call) => {
  let x = operand(call, 0);
  const starts = integers(operand(call, 1));
  const ends = integers(operand(call, 2));
  const axes = call.inputs[3] ? integers(call.inputs[3]) : starts.map((_, i) => i);
  if (call.inputs[4]?.data.some((step) => step !== 1)) throw new RangeError('a Slice with steps');
  for (const [i, named] of axes.entries()) {
    const axis = axisOf(named, x.dims.length);
    const size = x.dims[axis] as number;
    const clamp = (at: number): number => Math.min(Math.max(at < 0 ? at + size : at, 0), size);
    const [start, end] = [clamp(starts[i] as number), clamp(ends[i] as number)];
    x = rangeOf(x, axis, start, Math.max(start, end));
  }
  return [x];
};

const split: Operator = (call) => {
  const x = operand(call, 0);
  const axis = axisOf(call.number('axis') ?? 0, x.dims.length);
  const size = x.dims[axis] as number;
  const count = call.number('num_outputs') ?? call.outputCount;
  const chunk = Math.ceil(size / count);
  const even = Array.from({ length: count }, (_, i) => Math.min(chunk, size - i * chunk));
  const sizes = call.numbers('split') ?? (call.inputs[1] ? integers(call.inputs[1]) : even);
  let at = 0;
  return sizes.map((own) => {
    at += own;
    return rangeOf(x, axis, at - own, at);
  });
};

function axesOf(call: Call): readonly number[] | null {
  return call.numbers('axes') ?? (call.inputs[1] ? integers(call.inputs[1]) : null);
}

const reduce =
  (work: (sum: number, count: number) => number): Operator =>
  (call) => {
    const x = operand(call, 0);
    const named = axesOf(call) ?? x.dims.map((_, i) => i);
    const axes = new Set(named.map((axis) => axisOf(axis, x.dims.length)));
    const kept = x.dims.map((dim, i) => (axes.has(i) ? 1 : dim));
    const to = places(kept, x.dims);
    const sums = new Float64Array(sizeOf(kept));
    for (const [i, value] of x.data.entries()) sums[to[i] as number] = (sums[to[i] as number] as number) + value;
    const count = x.data.length / sums.length;
    const dims = call.number('keepdims') === 0 ? x.dims.filter((_, i) => !axes.has(i)) : kept;
    return [
      tensor(
        dims,
        sums.map((sum) => work(sum, count)),
        x.type,
      ),
    ];
  };

export const SHAPES: Readonly<Record<string, Operator>> = {
  Reshape: reshape,
  Gather: gather,
  Slice: slice,
  Split: split,
  ReduceMean: reduce((sum, count) => sum / count),
  ReduceSum: reduce((sum) => sum),
  Shape: (call) => {
    const { dims } = operand(call, 0);
    const found = dims.slice(call.number('start') ?? 0, call.number('end') ?? dims.length);
    return [tensor([found.length], found, INT64)];
  },
  Transpose: (call) => {
    const x = operand(call, 0);
    return [transposed(x, call.numbers('perm') ?? x.dims.map((_, i) => x.dims.length - 1 - i))];
  },
  Concat: (call) => {
    const all = call.inputs.filter((each): each is Tensor => each !== null);
    return [joined(all, axisOf(call.number('axis') as number, (all[0] as Tensor).dims.length))];
  },
  Unsqueeze: (call) => {
    const x = operand(call, 0);
    const axes = axesOf(call) ?? [];
    const rank = x.dims.length + axes.length;
    const at = new Set(axes.map((axis) => axisOf(axis, rank)));
    const rest = [...x.dims];
    return [{ ...x, dims: Array.from({ length: rank }, (_, i) => (at.has(i) ? 1 : (rest.shift() as number))) }];
  },
  Squeeze: (call) => {
    const x = operand(call, 0);
    const at = axesOf(call)?.map((axis) => axisOf(axis, x.dims.length));
    return [{ ...x, dims: x.dims.filter((dim, i) => (at ? !at.includes(i) : dim !== 1)) }];
  },
  Expand: (call) => {
    const x = operand(call, 0);
    const wanted = integers(operand(call, 1));
    const rank = Math.max(wanted.length, x.dims.length);
    const dims = Array.from({ length: rank }, (_, i) => {
      const [own, other] = [x.dims[i - rank + x.dims.length] ?? 1, wanted[i - rank + wanted.length] ?? 1];
      return own === 1 ? other : own;
    });
    const at = places(x.dims, dims);
    return [
      tensor(
        dims,
        Float64Array.from(at, (place) => x.data[place] as number),
        x.type,
      ),
    ];
  },
};
