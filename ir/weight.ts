/**
 * Weights are expressions over byte ranges: immutable, interned (equal expressions are `===`), evaluated only when the
 * output is written (disk/tile.ts). Smart constructors keep one normal form: concat of (scaled) (transposed) slices of
 * leaves. A tensor-parallel shard of a fused weight is then simply `slice(concat(...))`.
 *
 * Shapes are row-major. Axis arguments are non-negative.
 */
import { bitsOf, byteSize, type DataType, elementCount, isScalable } from './type.js';
import type {
  BlockPart,
  BlockTensors,
  ByteSource,
  InlineWeight,
  SourceWeight,
  Weight,
  WeightBase,
} from './weight-types.js';

export type * from './weight-types.js';

const interned = new Map<string, WeakRef<Weight>>();
const forgotten = new FinalizationRegistry<string>((key) => {
  if (interned.get(key)?.deref() === undefined) interned.delete(key);
});

function intern<W extends Weight>(weight: W): W {
  const known = interned.get(weight.key)?.deref();
  if (known) return known as W;
  interned.set(weight.key, new WeakRef(weight));
  forgotten.register(weight, weight.key);
  return weight;
}

// A one-to-one map of bytes to characters, so that equal bytes give equal keys.
const latin1 = new TextDecoder('latin1');

function base(dtype: DataType, dims: readonly number[], key: string): WeightBase {
  return { dtype, dims, byteLength: byteSize(dtype, dims), key: `${dtype}[${dims.join()}]${key}` };
}

/** A dense row-major tensor stored at `offset` of `source`. */
export function sourceWeight(
  source: ByteSource,
  offset: number,
  dtype: DataType,
  dims: readonly number[],
): SourceWeight {
  return intern({ op: 'source', source, offset, ...base(dtype, dims, `@${source.id}+${offset}`) });
}

/** A tensor whose bytes (little-endian, ONNX raw_data layout) are in memory. */
export function inlineWeight(bytes: Uint8Array, dtype: DataType, dims: readonly number[]): InlineWeight {
  return intern({ op: 'inline', bytes, ...base(dtype, dims, `=${latin1.decode(bytes)}`) });
}

function withDim(dims: readonly number[], axis: number, size: number): number[] {
  return dims.map((dim, i) => (i === axis ? size : dim));
}

function sizeAlong(weight: Weight, axis: number): number {
  const size = weight.dims[axis];
  if (size === undefined) throw new RangeError(`axis ${axis} of a weight of rank ${weight.dims.length}`);
  return size;
}

/** Rows or columns [start, end) along `axis`. */
export function slice(weight: Weight, axis: number, start: number, end: number): Weight {
  const size = sizeAlong(weight, axis);
  if (start < 0 || end > size || start > end)
    throw new RangeError(`slice [${start}, ${end}) of a dimension of ${size}`);
  if (start === 0 && end === size) return weight;
  switch (weight.op) {
    case 'slice':
      if (weight.axis === axis) return slice(weight.operand, axis, weight.start + start, weight.start + end);
      break;
    case 'concat': {
      if (weight.axis !== axis)
        return concat(
          weight.parts.map((part) => slice(part, axis, start, end)),
          weight.axis,
        );
      const kept: Weight[] = [];
      let at = 0;
      for (const part of weight.parts) {
        const length = sizeAlong(part, axis);
        const from = Math.max(start - at, 0);
        const to = Math.min(end - at, length);
        if (from < to) kept.push(slice(part, axis, from, to));
        at += length;
      }
      if (kept.length > 0) return concat(kept, axis);
      break;
    }
    case 'scale':
      return scale(
        slice(weight.operand, axis, start, end),
        weight.axis,
        weight.axis === axis ? slice(weight.by, 0, start, end) : weight.by,
      );
    case 'add':
      return add(weight.parts.map((part) => slice(part, axis, start, end)));
    case 'transpose':
      return transpose(slice(weight.operand, 1 - axis, start, end));
    case 'contract':
      return contract(slice(weight.operand, 1, start, end), weight.by);
    case 'cast':
      return cast(slice(weight.operand, axis, start, end), weight.dtype);
    case 'requantize': {
      // Rows are quantised one by one.
      if (axis !== 0) break;
      const { blocks, scales, zeroPoints, bits } = weight.matrix;
      const cut = (tensor: Weight): Weight => slice(tensor, 0, start, end);
      const matrix = { blocks: cut(blocks), scales: cut(scales), zeroPoints: zeroPoints && cut(zeroPoints), bits };
      return requantize(weight.part, matrix, weight.by);
    }
    case 'source':
    case 'inline': {
      // Leading-axis slices of a dense tensor are a shorter range of the same bytes.
      const stride = (elementCount(weight.dims.slice(axis + 1)) * bitsOf(weight.dtype)) / 8;
      const leading = weight.dims.slice(0, axis).every((dim) => dim === 1);
      if (!leading || !Number.isInteger(stride * start) || bitsOf(weight.dtype) < 8) break;
      const dims = withDim(weight.dims, axis, end - start);
      return weight.op === 'source'
        ? sourceWeight(weight.source, weight.offset + stride * start, weight.dtype, dims)
        : inlineWeight(weight.bytes.subarray(stride * start, stride * end), weight.dtype, dims);
    }
  }
  const dims = withDim(weight.dims, axis, end - start);
  return intern({
    op: 'slice',
    operand: weight,
    axis,
    start,
    end,
    ...base(weight.dtype, dims, `slice(${weight.key},${axis},${start},${end})`),
  });
}

/** `parts` one after another along `axis`. Types and the other dimensions must agree. */
export function concat(parts: readonly Weight[], axis: number): Weight {
  const flat = parts.flatMap((part) => (part.op === 'concat' && part.axis === axis ? part.parts : [part]));
  const first = flat[0];
  if (!first) throw new RangeError('concat of nothing');
  if (flat.length === 1) return first;
  let total = 0;
  for (const part of flat) {
    if (part.dtype !== first.dtype) throw new TypeError(`concat of ${first.dtype} and ${part.dtype}`);
    if (part.dims.length !== first.dims.length || part.dims.some((dim, i) => i !== axis && dim !== first.dims[i])) {
      throw new RangeError(`concat of [${first.dims}] and [${part.dims}] along axis ${axis}`);
    }
    total += sizeAlong(part, axis);
  }
  const dims = withDim(first.dims, axis, total);
  return intern({
    op: 'concat',
    parts: flat,
    axis,
    ...base(first.dtype, dims, `concat(${axis},${flat.map((part) => part.key).join()})`),
  });
}

/** `weight` times the 1-D `by` along `axis` (diag(by) W for axis 0). `by` may have another floating-point type. */
export function scale(weight: Weight, axis: number, by: Weight): Weight {
  if (by.dims.length !== 1 || by.dims[0] !== sizeAlong(weight, axis)) {
    throw new RangeError(`scale axis ${axis} of [${weight.dims}] by [${by.dims}]`);
  }
  if (!isScalable(weight.dtype) || !isScalable(by.dtype)) throw new TypeError(`scale ${weight.dtype} by ${by.dtype}`);
  if (weight.op === 'concat') {
    let at = 0;
    const parts = weight.parts.map((part) => {
      if (weight.axis !== axis) return scale(part, axis, by);
      const length = sizeAlong(part, axis);
      at += length;
      return scale(part, axis, slice(by, 0, at - length, at));
    });
    return concat(parts, weight.axis);
  }
  return intern({
    op: 'scale',
    operand: weight,
    axis,
    by,
    ...base(weight.dtype, weight.dims, `scale(${weight.key},${axis},${by.key})`),
  });
}

/** The transpose of a 2-D weight. */
export function transpose(weight: Weight): Weight {
  const [rows, columns] = weight.dims;
  if (rows === undefined || columns === undefined || weight.dims.length !== 2) {
    throw new RangeError(`transpose of a weight of rank ${weight.dims.length}`);
  }
  switch (weight.op) {
    case 'transpose':
      return weight.operand;
    case 'concat':
      return concat(weight.parts.map(transpose), 1 - weight.axis);
    case 'scale':
      return scale(transpose(weight.operand), 1 - weight.axis, weight.by);
    case 'add':
      return add(weight.parts.map(transpose));
  }
  return intern({
    op: 'transpose',
    operand: weight,
    ...base(weight.dtype, [columns, rows], `transpose(${weight.key})`),
  });
}

/** The element-wise sum of equally shaped weights of one type. */
export function add(parts: readonly Weight[]): Weight {
  const flat = parts.flatMap((part) => (part.op === 'add' ? part.parts : [part]));
  const first = flat[0];
  if (!first) throw new RangeError('sum of nothing');
  if (flat.length === 1) return first;
  for (const part of flat) {
    if (part.dtype !== first.dtype || part.dims.join() !== first.dims.join() || !isScalable(part.dtype)) {
      throw new TypeError(`sum of ${first.dtype}[${first.dims}] and ${part.dtype}[${part.dims}]`);
    }
  }
  return intern({
    op: 'add',
    parts: flat,
    ...base(first.dtype, first.dims, `add(${flat.map((part) => part.key).join()})`),
  });
}

/** The vector `by`^T `weight` of a 2-D `weight` [rows, columns] and `by` [rows]: [columns], of the weight's type. */
export function contract(weight: Weight, by: Weight): Weight {
  const [rows, columns] = weight.dims;
  if (rows === undefined || columns === undefined || weight.dims.length !== 2 || by.dims.join() !== String(rows)) {
    throw new RangeError(`contract [${weight.dims}] with [${by.dims}]`);
  }
  if (!isScalable(weight.dtype) || !isScalable(by.dtype))
    throw new TypeError(`contract ${weight.dtype} with ${by.dtype}`);
  if (weight.op === 'concat' && weight.axis === 1) {
    return concat(
      weight.parts.map((part) => contract(part, by)),
      0,
    );
  }
  const key = `contract(${weight.key},${by.key})`;
  return intern({ op: 'contract', operand: weight, by, ...base(weight.dtype, [columns], key) });
}

/** The same values in another floating-point type. */
export function cast(weight: Weight, dtype: DataType): Weight {
  if (weight.dtype === dtype) return weight;
  if (!isScalable(weight.dtype) || !isScalable(dtype)) throw new TypeError(`cast ${weight.dtype} to ${dtype}`);
  return intern({ op: 'cast', operand: weight, ...base(dtype, weight.dims, `cast(${weight.key})`) });
}

/**
 * A tensor of diag(`by`) times the stored matrix (transposed: `by` is [K]), rounded to the same bits in the same blocks;
 * with zero points where it had them. A block's scale is the magnitude of its extreme value over half the range, or its
 * range over the whole one beside zero points, as onnxruntime quantises.
 */
export function requantize(part: BlockPart, matrix: BlockTensors, by: Weight): Weight {
  const { blocks, scales, zeroPoints, bits } = matrix;
  const [rows = 0, count = 0, bytes = 0] = blocks.dims;
  const width = by.dims[0] ?? 0;
  const block = (bytes * 8) / bits;
  const isPacked = zeroPoints?.dtype === 'uint8';
  const zeroDims = [rows, isPacked ? Math.ceil((count * bits) / 8) : count];
  const tensor = part === 'blocks' ? blocks : part === 'scales' ? scales : zeroPoints;
  if (
    !tensor ||
    ![2, 4, 8].includes(bits) ||
    blocks.dims.length !== 3 ||
    by.dims.length !== 1 ||
    Math.ceil(width / block) !== count ||
    scales.dims.join() !== [rows, count].join() ||
    (zeroPoints && zeroPoints.dims.join() !== zeroDims.join())
  ) {
    throw new RangeError(
      `requantize ${part} of [${blocks.dims}], [${scales.dims}], [${zeroPoints?.dims}] by [${by.dims}]`,
    );
  }
  const isTyped = zeroPoints === null || isPacked || zeroPoints.dtype === scales.dtype;
  if (blocks.dtype !== 'uint8' || !isScalable(scales.dtype) || !isScalable(by.dtype) || !isTyped) {
    throw new TypeError(`requantize ${blocks.dtype} with scales of ${scales.dtype} by ${by.dtype}`);
  }
  const key = [blocks, scales, ...(zeroPoints ? [zeroPoints] : []), by].map((each) => each.key).join();
  const { dtype, dims } = tensor;
  return intern({ op: 'requantize', part, matrix, by, ...base(dtype, dims, `requantize(${part},${bits},${key})`) });
}

/** The same bytes under another shape of equal size; only leaves (source, inline) can be reshaped. Null for the rest. */
export function reshape(weight: Weight, dims: readonly number[]): Weight | null {
  if (elementCount(dims) !== elementCount(weight.dims)) return null;
  if (weight.dims.join() === dims.join()) return weight;
  if (weight.op === 'source') return sourceWeight(weight.source, weight.offset, weight.dtype, dims);
  if (weight.op === 'inline') return inlineWeight(weight.bytes, weight.dtype, dims);
  return null;
}

/** Every leaf (source or inline) below `weight`, left to right, repeated when it occurs twice. */
export function* leaves(weight: Weight): Generator<SourceWeight | InlineWeight> {
  switch (weight.op) {
    case 'source':
    case 'inline':
      yield weight;
      return;
    case 'concat':
    case 'add':
      for (const part of weight.parts) yield* leaves(part);
      return;
    case 'scale':
    case 'contract':
      yield* leaves(weight.operand);
      yield* leaves(weight.by);
      return;
    case 'requantize': {
      const { blocks, scales, zeroPoints } = weight.matrix;
      for (const part of [blocks, scales, zeroPoints, weight.by]) if (part) yield* leaves(part);
      return;
    }
    default:
      yield* leaves(weight.operand);
  }
}
