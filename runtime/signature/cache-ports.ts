/** Pairs past inputs with the present outputs that continue them, and finds the shape of an empty cache. */
import type { Node, Value } from '../../ir/core.js';
import type { Dim } from '../../ir/type.js';
import { attentionOperator } from '../../passes/analysis/attention-operators.js';
import {
  type CachePart,
  isNamedPast,
  layerNamed,
  partNamed,
  portKey,
} from '../../passes/analysis/layers/cache-names.js';
import { type Flow, integersOf, isCarrier, isStandard, numberAt, type Reach, shapeOf, widthOf } from './flow.js';

export type { CachePart } from '../../passes/analysis/layers/cache-names.js';

/** One cache: the past goes in under `input`, comes out longer as `output`. */
export interface CachePort {
  readonly input: string;
  /** null when the model reads the cache without continuing it. */
  readonly output: string | null;
  /** Which layer, as far as the names tell: the number in them, else the input's name. */
  readonly layer: string;
  readonly part: CachePart;
  readonly batchAxis: number | null;
  /** Axis along which positions follow one another; null for a recurrent state. */
  readonly sequenceAxis: number | null;
  /** Positions of a cache of fixed size, which is filled in place; null for one that grows. */
  readonly capacity: number | null;
  /** Positions that the past must bring where shapes are static but the cache grows: no run continues the one before. */
  readonly fixedPast: number | null;
  /** True for a window: a fixed size that holds the last positions of a sequence of any length. */
  readonly rolling: boolean;
  /** The shape; null where the size is the batch or the past length, or unknown. */
  readonly dims: readonly (number | null)[];
  /** Symbols of the shape, for messages. */
  readonly shape: readonly Dim[];
}

/** Operators that put new entries into a state: operand index of the state -> output index of what continues it. */
const SCATTERS: ReadonlyMap<string, Readonly<Record<number, readonly [output: number, part: CachePart]>>> = new Map(
  ['TensorScatter', 'ScatterND', 'ScatterElements'].map((op) => [op, { 0: [0, 'state'] }]),
);

interface Found {
  readonly past: Value;
  present: Value | null;
  /** The operator that appends to the past. */
  readonly appender: Reach | null;
  readonly part: CachePart | null;
}

/** Pairs the cache inputs of a model with the outputs that continue them. */
export function findCaches(flow: Flow, inputs: readonly Value[]): CachePort[] {
  const found: Found[] = [];
  for (const past of inputs) {
    const rank = shapeOf(past)?.length ?? 0;
    if (!isCacheType(past) || rank < 3) continue;
    const traced = trace(flow, past);
    if (traced.appender || isNamedPast(past.name)) found.push(traced);
  }
  const taken = new Set(found.map((cache) => cache.present));
  const free = flow.model.graph.outputs.filter((value) => !taken.has(value) && isCacheType(value));
  for (const cache of found) {
    if (cache.present) continue;
    const name = portKey(cache.past.name);
    const index = free.findIndex((output) => portKey(output.name) === name && output.dtype === cache.past.dtype);
    if (index >= 0) cache.present = free.splice(index, 1)[0] ?? null;
  }
  return shareSizes(found.map(portOf));
}

/** Caches of one model are alike: a size known for one that is laid out the same way serves the others. */
function shareSizes(ports: CachePort[]): CachePort[] {
  return ports.map((port) => {
    const dims = port.dims.map((dim, axis) => {
      if (dim !== null || axis === port.batchAxis || axis === port.sequenceAxis) return dim;
      const alike = ports.filter(
        (other) => other.dims.length === port.dims.length && other.shape[axis] === port.shape[axis],
      );
      return alike.find((other) => other.dims[axis] !== null)?.dims[axis] ?? null;
    });
    return { ...port, dims };
  });
}

/** Follows a past input to the operator that appends to it and on to a graph output. */
function trace(flow: Flow, past: Value): Found {
  let appender: Reach | null = null;
  let part: CachePart | null = null;
  let present: Value | null = null;
  // Caches of several layers may be joined for one attention, and what it writes split again in the same order.
  let place: number | null = null;
  const through = (reach: Reach): readonly (Value | null)[] => {
    const { node, index } = reach;
    if (isJoint(node)) {
      place = index;
      return node.outputs;
    }
    if (isStandard(node) && node.opType === 'Split' && place !== null) return [node.output(place)];
    if (isCarrier(node, index)) return node.outputs;
    // Stacked caches: one layer, or keys or values, taken out of them and put together again.
    if (isStandard(node) && node.opType === 'Gather' && index === 0) return node.outputs;
    if (isStandard(node) && node.opType === 'Concat') {
      appender ??= reach;
      return node.outputs;
    }
    const slot = (attentionOperator(node)?.presents ?? SCATTERS.get(node.op))?.[index];
    if (!slot) return [];
    appender = reach;
    if (slot[1] !== 'state') part = slot[1];
    return [node.output(slot[0])];
  };
  for (const reach of flow.reach(past, through)) {
    if ('node' in reach || reach === past) continue;
    if (reach.dtype === past.dtype && (shapeOf(reach)?.length ?? 0) === shapeOf(past)?.length) present ??= reach;
  }
  return { past, present, appender, part };
}

/** A Concat of nothing but graph inputs: it appends nothing. */
function isJoint(node: Node): boolean {
  return isStandard(node) && node.opType === 'Concat' && node.inputs.every((value) => value?.isInput === true);
}

function portOf({ past, present, appender, part }: Found): CachePort {
  const shape = shapeOf(past) ?? [];
  const rank = shape.length;
  const batchAxis = rank >= 5 ? 1 : 0;
  const sequenceAxis = sequenceAxisOf(past, present, appender, shape, batchAxis);
  const rolling = (appender?.node.intAttribute('sliding_window_cache') ?? 0) !== 0;
  const window = rolling ? (appender?.node.intAttribute('local_window_size') ?? null) : null;
  const size = sequenceAxis === null ? null : numberAt(shape, sequenceAxis);
  const fixedPast = size !== null && grows(appender, present, sequenceAxis as number, size) ? size : null;
  const capacity = fixedPast !== null || sequenceAxis === null ? null : (size ?? window);
  const dims = shape.map((dim) => (typeof dim === 'number' ? dim : null));
  const sizes = appender ? headsOf(appender, part) : null;
  if (sizes && sequenceAxis === rank - 2) {
    dims[rank - 1] ??= sizes.size;
    if (rank >= 4) dims[rank - 3] ??= sizes.heads;
  }
  const kind = part ?? partNamed(past.name) ?? (sequenceAxis === null ? 'state' : rank >= 5 ? 'both' : 'key');
  return {
    input: past.name,
    output: present?.name ?? null,
    layer: layerNamed(past.name),
    part: kind,
    batchAxis: typeof shape[batchAxis] === 'number' && sequenceAxis === null ? null : batchAxis,
    sequenceAxis,
    capacity,
    fixedPast,
    rolling,
    dims,
    shape,
  };
}

/** Whether more positions come out than `size`, that went in: by the shape of the present, else because they are appended. */
function grows(appender: Reach | null, present: Value | null, axis: number, size: number): boolean {
  const after = present && shapeOf(present)?.[axis];
  if (typeof after === 'number') return after > size;
  return present !== null && appender?.node.opType === 'Concat';
}

function sequenceAxisOf(
  past: Value,
  present: Value | null,
  appender: Reach | null,
  shape: readonly Dim[],
  batchAxis: number,
): number | null {
  const rank = shape.length;
  // Operators keep positions in the last axis but one, except for a cache of rank 3 that they scatter into.
  if (appender && appender.node.opType !== 'Concat') {
    const axis = appender.node.opType === 'TensorScatter' ? (appender.node.intAttribute('axis') ?? -2) : -2;
    return axis < 0 ? rank + axis : axis;
  }
  const direct = appender?.node.inputs.includes(past);
  if (appender && direct) {
    const axis = appender.node.intAttribute('axis') ?? 0;
    return axis < 0 ? rank + axis : axis;
  }
  const after = present ? shapeOf(present) : null;
  const changes = shape.findIndex(
    (dim, axis) => axis !== batchAxis && typeof dim === 'string' && after?.[axis] !== dim,
  );
  if (changes >= 0) return changes;
  const named = shape.findIndex((dim) => typeof dim === 'string' && /past|seq|len|total/i.test(dim));
  if (named >= 0) return named;
  if (appender) return rank - 2;
  return null;
}

/** Number of KV heads and head size, from the operator that appends to the cache. */
function headsOf({ node, index }: Reach, part: CachePart | null): { heads: number | null; size: number | null } | null {
  const heads = node.intAttribute('num_heads') ?? node.intAttribute('q_num_heads') ?? null;
  const kvHeads = node.intAttribute('kv_num_heads') ?? heads;
  const per = (value: Value | null, count: number | null) => {
    const width = count ? widthOf(value) : null;
    return width && count ? width / count : null;
  };
  switch (node.op) {
    case 'com.microsoft.GroupQueryAttention': {
      const packed = !node.input(1);
      const all = heads && kvHeads ? heads + 2 * kvHeads : null;
      const fromTable = widthOf(node.input(7));
      const rotary = node.intAttribute('rotary_embedding_dim');
      const size = packed
        ? per(node.input(0), all)
        : (per(node.input(index - 2), kvHeads) ?? per(node.input(0), heads));
      return { heads: kvHeads, size: size ?? (fromTable && !rotary ? 2 * fromTable : null) };
    }
    case 'com.microsoft.MultiHeadAttention':
      return { heads, size: per(node.input(part === 'value' ? 2 : 1), heads) ?? per(node.input(0), heads) };
    case 'com.microsoft.DecoderMaskedMultiHeadAttention':
      return { heads, size: per(node.input(part === 'value' ? 2 : 1), heads) ?? per(node.input(0), heads) };
    case 'com.microsoft.Attention': {
      const sizes = node.intsAttribute('qkv_hidden_sizes');
      const width = sizes?.[2] ?? (widthOf(node.input(1)) ?? 0) / 3;
      return { heads, size: heads && width ? width / heads : null };
    }
    case 'Attention': {
      const fresh = node.input(part === 'value' ? 2 : 1);
      if (shapeOf(fresh)?.length === 4)
        return { heads: numberAt(shapeOf(fresh), 1), size: numberAt(shapeOf(fresh), 3) };
      return { heads: kvHeads, size: per(fresh, kvHeads) };
    }
    case 'Concat': {
      const fresh = node.inputs.find((_, i) => i !== index) ?? null;
      const shape = shapeOf(fresh);
      const split = splitInto(fresh);
      return { heads: numberAt(shape, -3) ?? split?.heads ?? null, size: numberAt(shape, -1) ?? split?.size ?? null };
    }
    default:
      return null;
  }
}

/** Heads and head size of Transpose(Reshape(x, [batch, tokens, heads, size])), from the constant shape. */
function splitInto(value: Value | null): { heads: number | null; size: number | null } | null {
  let node: Node | null = value?.producer ?? null;
  while (node && ['Transpose', 'Cast', 'Identity'].includes(node.opType)) node = node.input(0)?.producer ?? null;
  const sizes = node?.opType === 'Reshape' ? integersOf(node.input(1)) : null;
  if (sizes?.length !== 4) return null;
  const [heads = 0, size = 0] = sizes.slice(2);
  return { heads: heads > 0 ? heads : null, size: size > 0 ? size : null };
}

function isCacheType(value: Value): boolean {
  return ['float', 'float16', 'bfloat16', 'int8', 'uint8'].includes(value.dtype ?? '');
}
