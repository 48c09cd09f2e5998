/**
 * Collective operations between ranks, in the words of who runs them:
 *
 *     ort    com.microsoft AllReduce and AllGather (onnxruntime built with NCCL; no bfloat16, so it is summed as float)
 *     trt    DistCollective (TensorRT 10.16 and later), which gathers along the first dimension only
 *     none   a graph output for what a rank has, and a graph input for what the ranks have together
 *     external   the nodes of `ort`, at which the model is then cut into segments: whoever runs those does the rest
 */
import type { Attribute, Graph, Model, Node, Value } from '../../../ir/core.js';
import { type DataType, dataTypeCode, tensorType, type ValueType } from '../../../ir/type.js';
import { Dimensions } from '../../analysis/values/dimensions.js';

export const COLLECTIVES = ['ort', 'trt', 'none', 'external'] as const;

export type CollectiveStyle = (typeof COLLECTIVES)[number];

/** A collective of a rank's graph, in the order in which they run. */
export interface Collective {
  readonly kind: 'all-reduce' | 'all-gather';
  /** What a rank gives, and what it gets: names of values, of `none` graph outputs and inputs. */
  readonly gives: string;
  /** Null where what the ranks have together is the graph output itself. */
  readonly gets: string | null;
  /** Of a gather: the dimension along which the ranks' shares follow one another. */
  readonly axis: number | null;
  /** Element type of what is sent. */
  readonly dtype: DataType;
  /** Elements of the last dimension that a rank gives for each token. */
  readonly width: number;
  /** Where it stands: `layer 3 attention`, `lm_head`. */
  readonly place: string;
}

const FLOATS = new Set<DataType>(['float', 'float16', 'double']);

export class CollectiveWriter {
  readonly made: Collective[] = [];

  constructor(
    readonly model: Model,
    readonly graph: Graph,
    readonly style: CollectiveStyle,
    readonly ranks: number,
  ) {}

  /** Makes all readers of `value` read the sum over the ranks. Returns it. */
  allReduce(value: Value, dtype: DataType, width: number, place: string, name: string): Value {
    const type = typeWith(value, dtype, width);
    value.type ??= type;
    const summed = this.#replaced(value, (given) => this.#reduce(given, dtype, name), type, name);
    this.#note('all-reduce', value, summed, null, dtype, width, place);
    return summed;
  }

  /** Makes all readers of `value`, of rank `rank`, read the ranks' shares one after another along its last dimension. */
  allGather(value: Value, rank: number, dtype: DataType, width: number, place: string, name: string): Value {
    value.type ??= typeWith(value, dtype, width);
    const type = typeWith(value, dtype, width * this.ranks);
    const gathered = this.#replaced(value, (given) => this.#gather(given, rank, dtype, name), type, name);
    this.#note('all-gather', value, gathered, rank - 1, dtype, width, place);
    return gathered;
  }

  #note(
    kind: Collective['kind'],
    value: Value,
    result: Value,
    axis: number | null,
    dtype: DataType,
    width: number,
    place: string,
  ): void {
    const gets = result === value ? null : result.name;
    const isNode = this.style === 'ort' || this.style === 'external';
    const sent = isNode && !FLOATS.has(dtype) ? 'float' : dtype;
    this.made.push({ kind, gives: value.name, gets, axis, dtype: sent, width, place });
  }

  /** Readers of `value` read what `make` makes of it, which takes the name of a graph output. */
  #replaced(value: Value, make: (value: Value) => Value, type: ValueType, name: string): Value {
    const { graph } = this;
    if (this.style === 'none') return this.#border(value, type, name);
    const readers = value.uses;
    const result = make(value);
    const [entry] = value.uses.filter((use) => !readers.includes(use));
    if (value.isGraphOutput) graph.takeOver(value, result);
    else for (const { node, index } of readers) node.setInput(index, result);
    // The collective itself goes on reading what it was made for.
    if (entry) entry.node.setInput(entry.index, value);
    return result;
  }

  #border(value: Value, type: ValueType, name: string): Value {
    const { graph } = this;
    const readers = value.uses;
    if (!value.isGraphOutput) graph.addOutput(value);
    if (readers.length === 0) return value;
    const result = graph.addInput(graph.names.fresh(name), type);
    for (const { node, index } of readers) node.setInput(index, result);
    return result;
  }

  #reduce(value: Value, dtype: DataType, name: string): Value {
    if (this.style === 'trt') return this.#dist(value, { collective_operation: 'all_reduce', reduce_op: 'sum' }, name);
    this.model.requireDomain('com.microsoft', 1);
    const isFloat = FLOATS.has(dtype);
    const given = isFloat ? value : this.#cast(value, 'float', `${name}.float`);
    const sum = this.#node('AllReduce', 'com.microsoft', [given], {}, name, value);
    return isFloat ? sum : this.#cast(sum, dtype, `${name}.cast`);
  }

  #gather(value: Value, rank: number, dtype: DataType, name: string): Value {
    const last = rank - 1;
    if (this.style === 'trt') {
      const front = [last, ...range(last)];
      const back = [...range(last).map((i) => i + 1), 0];
      const turned = this.#node('Transpose', '', [value], { perm: ints(front) }, `${name}.front`, null);
      const whole = this.#dist(turned, { collective_operation: 'all_gather', reduce_op: 'none' }, `${name}.whole`);
      return this.#node('Transpose', '', [whole], { perm: ints(back) }, name, null);
    }
    this.model.requireDomain('com.microsoft', 1);
    const isFloat = FLOATS.has(dtype);
    const given = isFloat ? value : this.#cast(value, 'float', `${name}.float`);
    // The schema and the kernel disagree about the default axis.
    const attributes = { axis: int(last), group_size: int(this.ranks) };
    const whole = this.#node('AllGather', 'com.microsoft', [given], attributes, name, null);
    return isFloat ? whole : this.#cast(whole, dtype, `${name}.cast`);
  }

  #dist(value: Value, words: Readonly<Record<string, string>>, name: string): Value {
    const texts = Object.entries(words).map(([key, text]) => [key, string(text)] as const);
    // TensorRT makes the layer one of several devices only where nb_rank is more than 1; group_size is the length of
    // groups, and none of them means all ranks. These are the values that NVIDIA's own Polygraphy writes.
    const group = { nb_rank: int(this.ranks), group_size: int(0), root: int(-1), groups: ints([]) };
    const attributes = { ...Object.fromEntries(texts), ...group };
    return this.#node('DistCollective', '', [value], attributes, name, null);
  }

  #cast(value: Value, to: DataType, name: string): Value {
    return this.#node('Cast', '', [value], { to: int(dataTypeCode(to)) }, name, null);
  }

  #node(
    opType: string,
    domain: string,
    inputs: readonly Value[],
    attributes: Readonly<Record<string, Attribute>>,
    name: string,
    like: Value | null,
  ): Value {
    const [value] = inputs as [Value];
    const outputs = [{ name, type: like?.type ?? null }];
    const spec = { opType, domain, name, inputs, outputs, attributes };
    return this.graph.addNode(spec, { after: value.producer as Node }).output(0) as Value;
  }
}

/** The type of a value, as far as its shape is known, with `width` elements in its last dimension. */
function typeWith(value: Value, dtype: DataType, width: number): ValueType {
  const sizes = new Dimensions().shape(value);
  const isSize = ({ now }: { readonly now: number | null }): boolean =>
    now === null || (Number.isSafeInteger(now) && now >= 0);
  if (!sizes || sizes.length === 0 || !sizes.every(isSize)) return tensorType(dtype, null);
  const outer = sizes.slice(0, -1).map(({ now }, i) => value.shape?.[i] ?? now);
  return tensorType(dtype, [...outer, width]);
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function int(value: number): Attribute {
  return { kind: 'int', value: BigInt(value) };
}

function ints(values: readonly number[]): Attribute {
  return { kind: 'ints', value: values.map(BigInt) };
}

function string(text: string): Attribute {
  return { kind: 'string', value: new TextEncoder().encode(text) };
}
