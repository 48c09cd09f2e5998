/**
 * Constants by meaning: an initializer, a Constant node, or either of them behind Identity, Transpose, Reshape,
 * Unsqueeze, Squeeze or a Cast that changes nothing. All without reading the file: only tensors that the reader already
 * holds in memory (up to 1 KiB) can be looked into.
 */
import type { Node, Value } from '../../../ir/core.js';
import { type DataType, dataTypeOf, elementCount } from '../../../ir/type.js';
import { inlineWeight, reshape, transpose, type Weight } from '../../../ir/weight.js';
import { castNumber, READERS } from './numbers.js';

/**
 * The weight a value has, or null when it is computed or fed. An initializer that is also a graph input (older exporters
 * list all of them) counts by its default; the manager says so aloud.
 */
export function constantOf(value: Value | null): Weight | null {
  if (!value) return null;
  if (value.initializer) return value.initializer.weight;
  const node = value.producer;
  if (node?.domain !== '') return null;
  switch (node.opType) {
    case 'Constant':
      return constantNode(node);
    case 'Identity':
      return constantOf(node.input(0));
    case 'Cast': {
      const inner = constantOf(node.input(0));
      return inner && dataTypeOf(node.intAttribute('to') ?? 0) === inner.dtype ? inner : null;
    }
    case 'CastLike': {
      const inner = constantOf(node.input(0));
      return inner && elementTypeOf(node.input(1)) === inner.dtype ? inner : null;
    }
    case 'Transpose': {
      const inner = constantOf(node.input(0));
      if (inner?.dims.length !== 2) return null;
      const perm = node.intsAttribute('perm') ?? [1, 0];
      return perm[0] === 1 ? transpose(inner) : inner;
    }
    case 'Reshape':
    case 'Unsqueeze':
    case 'Squeeze':
      return reshaped(node);
  }
  return null;
}

/** The element type of a value, guessed from what feeds it where the file does not say. */
function elementTypeOf(value: Value | null, depth = 0): DataType | null {
  if (!value || depth > 64) return null;
  if (value.dtype) return value.dtype;
  const node = value.producer;
  if (node?.domain !== '') return null;
  if (node.opType === 'Cast') return dataTypeOf(node.intAttribute('to') ?? 0);
  const constant = node.opType === 'Constant' ? constantNode(node) : null;
  if (constant) return constant.dtype;
  if (node.opType === 'CastLike') return elementTypeOf(node.input(1), depth + 1);
  return elementTypeOf(node.input(0), depth + 1) ?? elementTypeOf(node.input(1), depth + 1);
}

function constantNode(node: Node): Weight | null {
  const tensor = node.tensorAttribute('value');
  if (tensor) return tensor.weight;
  const float = node.floatAttribute('value_float');
  if (float !== undefined) return inlineWeight(new Uint8Array(new Float32Array([float]).buffer), 'float', []);
  const int = node.attributes.get('value_int');
  if (int?.kind === 'int') return inlineWeight(new Uint8Array(new BigInt64Array([int.value]).buffer), 'int64', []);
  const ints = node.attributes.get('value_ints');
  if (ints?.kind === 'ints') {
    return inlineWeight(new Uint8Array(new BigInt64Array([...ints.value]).buffer), 'int64', [ints.value.length]);
  }
  const floats = node.attributes.get('value_floats');
  if (floats?.kind === 'floats') {
    return inlineWeight(new Uint8Array(new Float32Array(floats.value).buffer), 'float', [floats.value.length]);
  }
  return null;
}

/** Reshape, Unsqueeze and Squeeze only add or drop dimensions of 1 in the constants exporters write. */
function reshaped(node: Node): Weight | null {
  const inner = constantOf(node.input(0));
  if (!inner) return null;
  if (node.opType === 'Reshape') {
    const wanted = numbersOf(constantOf(node.input(1)));
    if (!wanted) return null;
    const known = wanted.filter((dim) => dim > 0).reduce((a, b) => a * b, 1);
    const dims = wanted.map((dim, i) =>
      dim === -1 ? elementCount(inner.dims) / known : dim === 0 ? (inner.dims[i] ?? 1) : dim,
    );
    return reshape(inner, dims);
  }
  const axes = node.intsAttribute('axes') ?? numbersOf(constantOf(node.input(1)));
  if (node.opType === 'Squeeze') {
    const rank = inner.dims.length;
    const dropped = axes?.map((axis) => (axis < 0 ? axis + rank : axis));
    return reshape(
      inner,
      inner.dims.filter((dim, i) => !(dropped ? dropped.includes(i) : dim === 1)),
    );
  }
  if (!axes) return null;
  const rank = inner.dims.length + axes.length;
  const added = new Set(axes.map((axis) => (axis < 0 ? axis + rank : axis)));
  const rest = [...inner.dims];
  return reshape(
    inner,
    Array.from({ length: rank }, (_, i) => (added.has(i) ? 1 : (rest.shift() ?? 1))),
  );
}

/** A list of sizes or axes as a constant, int64. */
export function sizesWeight(sizes: readonly (number | bigint)[]): Weight {
  return inlineWeight(new Uint8Array(new BigInt64Array(sizes.map(BigInt)).buffer), 'int64', [sizes.length]);
}

/**
 * The sizes that a Split states, as an attribute or as an operand, which `read` reads; null where it states none (its
 * parts are equal then) or where they are computed.
 */
export function splitSizes(
  node: Node,
  read: (value: Value | null) => number[] | null = (value) => numbersOf(constantOf(value)),
): number[] | null {
  return node.intsAttribute('split') ?? read(node.input(1));
}

/** The elements of a small constant as numbers; null when it is computed, too large to be in memory, or not numeric. */
export function numbersOf(weight: Weight | null): number[] | null {
  if (weight?.op !== 'inline') return null;
  const { bytes } = weight;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read = READERS[weight.dtype];
  if (!read) return null;
  const [width, get] = read;
  return Array.from({ length: elementCount(weight.dims) }, (_, i) => get(view, i * width));
}

/** The one number of a constant with a single element, with what a Cast or CastLike in front makes of it. */
export function scalarOf(value: Value | null): number | null {
  const producer = value?.producer;
  if (producer && (producer.op === 'Cast' || producer.op === 'CastLike')) {
    const inner = scalarOf(producer.input(0));
    if (inner === null) return null;
    const dtype =
      producer.op === 'Cast' ? dataTypeOf(producer.intAttribute('to') ?? 0) : elementTypeOf(producer.input(1));
    if (dtype) return castNumber(inner, dtype);
    // Of no known type: a number that every type holds stays itself.
    return Number.isInteger(inner) && inner >= 0 && inner <= 1 ? inner : null;
  }
  const weight = constantOf(value);
  if (!weight || elementCount(weight.dims) !== 1) return null;
  return numbersOf(weight)?.[0] ?? null;
}

/** A constant operand: operand `index` of `node`, holding `weight`. */
export interface Slot {
  readonly node: Node;
  readonly index: number;
  readonly weight: Weight;
}

/** What a value copies: exporters write an Identity, or a Concat of one operand, in some layers only. */
export function copiedFrom(value: Value): Value {
  for (let at = value; ; ) {
    const node = at.producer;
    const isCopy = node?.op === 'Identity' || (node?.op === 'Concat' && node.inputs.length === 1);
    const from = isCopy ? node?.input(0) : null;
    if (!from || constantOf(from)) return at;
    at = from;
  }
}
