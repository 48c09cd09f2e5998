/** The graphs that ffn-form.ts compares: a run of SwiGLU FFNs in five forms over the same seeded weights. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { Graph, Model, Tensor, type Value } from '../../../ir/core.js';
import { FileSource } from '../../../ir/disk/source.js';
import { type DataType, elementCount, tensorType } from '../../../ir/type.js';
import { concat, inlineWeight, scale, sourceWeight, type Weight } from '../../../ir/weight.js';
import { fillTensor } from '../../../runtime/index.js';
import { mix } from '../../../runtime/run/random.js';

/** The forms; see ffn-form.ts. */
export const VARIANTS = {
  a: 'sequential',
  b: 'wide gate + up',
  c: 'packed + Split',
  d: 'parallel, unmerged',
  e: 'two of half the width',
} as const;
export type Variant = keyof typeof VARIANTS;

export interface Shape {
  readonly dtype: DataType;
  readonly hidden: number;
  /** FFNs in the run. */
  readonly n: number;
}
export interface Ffn {
  readonly gamma: Weight;
  readonly gate: Weight;
  readonly up: Weight;
  readonly down: Weight;
}
/** Hidden units of one FFN: the proportion of TinyLlama (2048 to 5632). */
export const widthOf = (hidden: number): number => hidden * 2.75;
/** Number `i` of the stream `seed`, in [-1, 1). */
export const uniform = (seed: number, i: number): number => mix(seed, i) / 2 ** 31 - 1;

/** Seeded weights in one file. The weights of the variants are expressions over it, as in a compiled model. */
export function makeWeights({ dtype, hidden, n }: Shape, path: string): Ffn[] {
  const width = widthOf(hidden);
  const file = openSync(path, 'w');
  const placed: [offset: number, dims: readonly number[]][] = [];
  let offset = 0;
  // Drawn from 4096 levels, which are rounded to the type once: rounding every weight to float16 takes minutes.
  const put = (dims: readonly number[], seed: number, centre: number, reach: number): void => {
    const levels = fillTensor(dtype, [4096], (k) => centre + reach * (k / 2048 - 1)).data as Float32Array | Uint16Array;
    const data = new (levels.constructor as Float32ArrayConstructor)(elementCount(dims));
    for (let i = 0; i < data.length; i++) data[i] = levels[mix(seed, i) >>> 20] as number;
    writeSync(file, new Uint8Array(data.buffer));
    placed.push([offset, dims]);
    offset += data.byteLength;
  };
  for (let i = 0; i < n; i++) {
    put([hidden], i, 1, 1 / 4);
    for (const seed of [100, 200]) put([hidden, width], seed + i, 0, 2 / Math.sqrt(hidden));
    put([width, hidden], 300 + i, 0, 1 / Math.sqrt(width));
  }
  closeSync(file);
  const source = new FileSource(path);
  const all = placed.map(([at, dims]) => sourceWeight(source, at, dtype, dims));
  return Array.from({ length: n }, (_, i) => {
    const [gamma, gate, up, down] = all.slice(4 * i) as [Weight, Weight, Weight, Weight];
    return { gamma, gate, up, down };
  });
}

/** `(tokens, hidden) -> (tokens, hidden)`: norm, FFNs and residual sum. Where the FFNs share one norm, their gammas are
 * folded into gate and up, as concat-ffn does. */
export function buildVariant(variant: Variant, { dtype, hidden }: Shape, ffns: readonly Ffn[]): Model {
  const graph = new Graph();
  graph.name = `ffn_${variant}`;
  const op = (opType: string, inputs: Value[], attributes = {}, outputs = [opType]): Value[] =>
    graph.addNode({ opType, name: opType, inputs, outputs, attributes }).outputs as Value[];
  const one = (opType: string, ...inputs: Value[]): Value => op(opType, inputs)[0] as Value;
  const constant = (name: string, weight: Weight): Value => {
    const unique = graph.names.fresh(name);
    return graph.addInitializer(unique, new Tensor(unique, dtype, weight.dims, weight));
  };
  const norm = (input: Value, gamma: Weight): Value => {
    const attributes = { axis: { kind: 'int', value: -1n }, epsilon: { kind: 'float', value: 1e-5 } };
    return op('SimplifiedLayerNormalization', [input, constant('gamma', gamma)], attributes)[0] as Value;
  };
  const finish = (gate: Value, up: Value, down: Weight): Value =>
    one('MatMul', one('Mul', one('Mul', gate, one('Sigmoid', gate)), up), constant('down', down));

  const ones = inlineWeight(new Uint8Array(fillTensor(dtype, [hidden], () => 1).data.buffer), dtype, [hidden]);
  /** The members as one wide FFN. */
  const wide = (stream: Value, members: readonly Ffn[]): Value => {
    const normed = norm(stream, ones);
    const gates = members.map(({ gamma, gate }) => scale(gate, 0, gamma));
    const ups = members.map(({ gamma, up }) => scale(up, 0, gamma));
    const project = (name: string, parts: Weight[]): Value => one('MatMul', normed, constant(name, concat(parts, 1)));
    const [gate, up] =
      variant !== 'c'
        ? [project('gate', gates), project('up', ups)]
        : op(
            'Split',
            [project('gate_up', [...gates, ...ups])],
            { axis: { kind: 'int', value: -1n }, num_outputs: { kind: 'int', value: 2n } },
            ['gate', 'up'],
          );
    const downs = members.map(({ down }) => down);
    return one('Add', stream, finish(gate as Value, up as Value, concat(downs, 0)));
  };

  const input = graph.addInput('input', tensorType(dtype, ['tokens', hidden]));
  let stream = input;
  if (variant === 'a' || variant === 'd') {
    for (const { gamma, gate, up, down } of ffns) {
      const normed = norm(variant === 'a' ? stream : input, gamma);
      const ups = one('MatMul', normed, constant('up', up));
      stream = one('Add', stream, finish(one('MatMul', normed, constant('gate', gate)), ups, down));
    }
  } else {
    const width = variant === 'e' ? Math.ceil(ffns.length / 2) : ffns.length;
    for (let i = 0; i < ffns.length; i += width) stream = wide(stream, ffns.slice(i, i + width));
  }
  stream.type = tensorType(dtype, ['tokens', hidden]);
  graph.addOutput(stream);
  return new Model(10, [{ domain: '', version: 21 }], graph);
}
