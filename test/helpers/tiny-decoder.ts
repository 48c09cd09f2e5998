import { type Attribute, Graph, Model, Tensor, type Value } from '../../ir/core.js';
import { referenceBytes } from '../../ir/disk/model.js';
import { type Dim, tensorType } from '../../ir/type.js';
import { inlineWeight } from '../../ir/weight.js';
import { normal } from '../../runtime/run/random.js';

export const VOCABULARY = 23;
const WIDTH = 32;
const HEADS = 4;
const KV_HEADS = 2;
export const HEAD_SIZE = WIDTH / HEADS;

export interface TinyOptions {
  /** Names and sizes of the inputs' dimensions. */
  readonly batch?: Dim;
  readonly sequence?: Dim;
  /** Factor of the output projection, to make models that differ a little. */
  readonly gain?: number;
  /** Leaves out the attention and with it the caches. */
  readonly attention?: boolean;
  /** Makes one score of every row infinite. */
  readonly overflow?: boolean;
}

const int = (value: number): Attribute => ({ kind: 'int', value: BigInt(value) });

/**
 * A decoder of one layer as the onnxruntime-genai builder writes them: grouped-query attention with caches whose head
 * size is a mere symbol, lengths as inputs. Weights are seeded. Nothing in it is called by a telling name.
 */
export function tinyDecoder(options: TinyOptions = {}): Model {
  const { batch = 'b', sequence = 's', gain = 1, attention = true } = options;
  const graph = new Graph();
  graph.name = 'tiny';
  const weight = (name: string, rows: number, columns: number, scale = 1): Value => {
    const seed = name.length * 31 + name.charCodeAt(0);
    const data = Float32Array.from({ length: rows * columns }, (_, i) => (scale * normal(seed, i)) / Math.sqrt(rows));
    if (options.overflow && name === 'head') data[3] = Number.POSITIVE_INFINITY;
    const dims = [rows, columns];
    return graph.addInitializer(
      name,
      new Tensor(name, 'float', dims, inlineWeight(new Uint8Array(data.buffer), 'float', dims)),
    );
  };
  const op = (opType: string, inputs: readonly (Value | null)[], name: string): Value =>
    graph.addNode({ opType, name, inputs, outputs: [name] }).output(0) as Value;

  const ids = graph.addInput('x0', tensorType('int64', [batch, sequence]));
  const embedded = op('Gather', [weight('table', VOCABULARY, WIDTH, 4), ids], 'embedded');
  let stream = embedded;
  const caches: [Value, Value][] = [];
  if (attention) {
    const cache: readonly Dim[] = [batch, KV_HEADS, 'p', 'd'];
    const pastKey = graph.addInput('x1', tensorType('float', cache));
    const pastValue = graph.addInput('x2', tensorType('float', cache));
    const last = graph.addInput('x3', tensorType('int32', [batch]));
    const total = graph.addInput('x4', tensorType('int32', []));
    const kv = HEAD_SIZE * KV_HEADS;
    const node = graph.addNode({
      opType: 'GroupQueryAttention',
      domain: 'com.microsoft',
      name: 'attention',
      inputs: [
        op('MatMul', [embedded, weight('query', WIDTH, WIDTH)], 'q'),
        op('MatMul', [embedded, weight('keys', WIDTH, kv)], 'k'),
        op('MatMul', [embedded, weight('values', WIDTH, kv)], 'v'),
        pastKey,
        pastValue,
        last,
        total,
      ],
      outputs: [
        'mixed',
        { name: 'y1', type: tensorType('float', [batch, KV_HEADS, 't', 'd']) },
        { name: 'y2', type: tensorType('float', [batch, KV_HEADS, 't', 'd']) },
      ],
      attributes: { num_heads: int(HEADS), kv_num_heads: int(KV_HEADS) },
    });
    stream = op('Add', [embedded, node.output(0)], 'stream');
    caches.push([pastKey, node.output(1) as Value], [pastValue, node.output(2) as Value]);
  }
  const head = graph.addNode({
    opType: 'MatMul',
    name: 'scores',
    inputs: [stream, weight('head', WIDTH, VOCABULARY, gain)],
    outputs: [{ name: 'y0', type: tensorType('float', [batch, sequence, VOCABULARY]) }],
  });
  graph.addOutput(head.output(0) as Value);
  for (const [, present] of caches) graph.addOutput(present);
  return new Model(
    10,
    [
      { domain: '', version: 21 },
      { domain: 'com.microsoft', version: 1 },
    ],
    graph,
  );
}

/** A model in memory, ready to run. */
export function located(model: Model): { location: { bytes: Uint8Array; folder: string }; model: Model } {
  return { location: { bytes: referenceBytes(model, '.'), folder: '.' }, model };
}
