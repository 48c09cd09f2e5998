/**
 * What a device can do at most, as onnxruntime reaches it: products of one row, which wait for the weights to be read, and square
 * products, which wait for the arithmetic (Williams, Waterman and Patterson, 2009: the roofline of two lines).
 */
import { Graph, Model, Tensor, type Value } from '../../../ir/core.js';
import { referenceBytes } from '../../../ir/disk/model.js';
import { type DataType, tensorType } from '../../../ir/type.js';
import { inlineWeight } from '../../../ir/weight.js';
import { fillTensor, openSession, type Provider } from '../../../runtime/index.js';
import { uniform } from './ffn-graphs.js';

export interface Roofline {
  /** Bytes of weights that are read per ms. */
  readonly bytesPerMs: number;
  /** Multiplications and additions per ms. */
  readonly flopsPerMs: number;
}

/** Rows and columns of a weight, and how many weights a chain has, so that no cache holds them: 32 MB each at fp16, 67 at fp32. */
const SIDE = 4096;
const CHAIN = 8;
const RUNS = 12;

/** Measures both lines: the best of several runs, since other load only slows them. */
export async function measureRoofline(provider: Provider, dtype: DataType): Promise<Roofline> {
  const numbers = fillTensor(dtype, [SIDE, SIDE], (i) => uniform(11, i % 65_536) / Math.sqrt(SIDE / 3)).data;
  const weight = new Uint8Array(numbers.buffer);
  // A CPU would need seconds for the square products of a GPU.
  const rows = provider === 'cpu' ? 256 : SIDE;
  const reading = await bestMs(chain(dtype, 1, weight), provider);
  const computing = await bestMs(chain(dtype, rows, weight), provider);
  return {
    bytesPerMs: (CHAIN * weight.byteLength) / reading,
    flopsPerMs: (CHAIN * 2 * rows * SIDE * SIDE) / computing,
  };
}

/** y = sum((s ones) W1 ... Wn), with one number in and one out: nothing else is copied to the device and back. */
function chain(dtype: DataType, rows: number, weight: Uint8Array): Uint8Array {
  const graph = new Graph();
  graph.name = 'roofline';
  const op = (opType: string, inputs: Value[], attributes = {}): Value =>
    graph.addNode({ opType, name: opType, inputs, outputs: [opType], attributes }).output(0) as Value;
  const constant = (name: string, dims: readonly number[], bytes: Uint8Array): Value => {
    const unique = graph.names.fresh(name);
    return graph.addInitializer(unique, new Tensor(unique, dtype, dims, inlineWeight(bytes, dtype, dims)));
  };
  const start = fillTensor(dtype, [rows, SIDE], (i) => uniform(12, i % 65_536)).data;
  let value = op('Mul', [
    constant('x', [rows, SIDE], new Uint8Array(start.buffer)),
    graph.addInput('s', tensorType(dtype, [1])),
  ]);
  for (let i = 0; i < CHAIN; i++) value = op('MatMul', [value, constant('w', [SIDE, SIDE], weight)]);
  const sum = op('ReduceMax', [value], { keepdims: { kind: 'int', value: 0n } });
  sum.type = tensorType(dtype, []);
  graph.addOutput(sum);
  return referenceBytes(new Model(10, [{ domain: '', version: 21 }], graph), '.');
}

async function bestMs(bytes: Uint8Array, provider: Provider): Promise<number> {
  const session = await openSession({ bytes, folder: '.' }, { provider });
  const feeds = new Map([['s', fillTensor(session.inputs[0]?.dtype ?? 'float', [1], () => 1)]]);
  try {
    const times: number[] = [];
    for (let run = 0; run < RUNS; run++) {
      const start = performance.now();
      await session.run(feeds);
      times.push(performance.now() - start);
    }
    return Math.min(...times);
  } finally {
    await session.release();
  }
}
