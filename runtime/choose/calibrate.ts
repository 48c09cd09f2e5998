/** Measures this machine for the cost model: its bandwidth with one MatMul, its cost per sub-block with the model at hand. */

import { Tensor } from '../../ir/core.js';
import { Graph, Model, openModel, referenceOf } from '../../ir/index.js';
import { tensorType } from '../../ir/type.js';
import { inlineWeight } from '../../ir/weight.js';
import { makeFeeds } from '../run/feeds.js';
import { loadRuntime } from '../session/ort.js';
import { openSession, type Session, type SessionOptions } from '../session/session.js';
import { fillTensor, type TensorMap } from '../session/tensor.js';
import { readSignature } from '../signature/signature.js';
import { type Device, workOf } from './cost.js';

/** 64 MiB of float32: more than a core's own caches hold. */
const SIDE = 4096;
const RUNS = 15;
/** Runs before this many milliseconds need not count, and none are made after twice as many. */
const WARM_MS = 2000;

/**
 * A device for this machine: bytes per second of a 1 x 4096 x 4096 float32 MatMul, and what remains of one token of the model at `path`
 * per sub-block. Medians of 15 runs, fewer where those take seconds; they differ from call to call.
 * @throws Diagnostic OF_NO_RUNTIME, OF_RUNTIME, OF_CANNOT_FEED.
 */
export async function calibrate(path: string): Promise<Device> {
  const bytesPerSecond = await measureBandwidth();
  const model = openModel(path);
  const signature = readSignature(model);
  const tokens = signature.sequence ?? 1;
  const feeds = makeFeeds(signature, { tokenIds: [new Array<number>(tokens).fill(0)] }).tensors;
  const seconds = await secondsOf(await openSession(path), feeds);
  const { weightBytes, attentions, ffns, linears } = workOf(model);
  const rest = Math.max(0, seconds - weightBytes / bytesPerSecond) / Math.max(1, attentions + ffns + linears);
  const { version } = await loadRuntime();
  return {
    name: 'this machine',
    source: `measured here with onnxruntime-node ${version} on the CPU: a MatMul for the bandwidth, one token of the model for the rest`,
    ranks: 1,
    bytesPerSecond,
    ...{ secondsPerAttention: rest, secondsPerFfn: rest, secondsPerLinear: rest, secondsPerToken: 0, disturbed: null },
  };
}

/**
 * Bytes of weights per second that a 1 x 4096 x 4096 float32 MatMul gets through: what a decoded token is limited by.
 * @throws Diagnostic OF_NO_RUNTIME, OF_RUNTIME.
 */
export async function measureBandwidth(options: SessionOptions = {}): Promise<number> {
  return (4 * SIDE * SIDE) / (await secondsOf(await openSession(productBytes(), options), productFeeds()));
}

async function secondsOf(session: Session, feeds: TensorMap): Promise<number> {
  try {
    const times: number[] = [];
    const start = performance.now();
    for (let i = 0; i < RUNS + 3; i++) {
      const began = performance.now();
      await session.run(feeds);
      const now = performance.now();
      if (i >= 3 || now - start > WARM_MS) times.push(now - began);
      if (times.length > 0 && now - start > 2 * WARM_MS) break;
    }
    times.sort((a, b) => a - b);
    return (times[Math.floor(times.length / 2)] as number) / 1000;
  } finally {
    await session.release();
  }
}

function productBytes() {
  const graph = new Graph();
  graph.name = 'bandwidth';
  const x = graph.addInput('x', tensorType('float', [1, SIDE]));
  const bytes = new Uint8Array(4 * SIDE * SIDE);
  const w = graph.addInitializer(
    'w',
    new Tensor('w', 'float', [SIDE, SIDE], inlineWeight(bytes, 'float', [SIDE, SIDE])),
  );
  const product = graph.addNode({
    opType: 'MatMul',
    inputs: [x, w],
    outputs: [{ name: 'y', type: tensorType('float', [1, SIDE]) }],
  });
  const y = product.output(0);
  if (y) graph.addOutput(y);
  return referenceOf(new Model(8, [{ domain: '', version: 17 }], graph));
}

function productFeeds(): TensorMap {
  return new Map([['x', fillTensor('float', [1, SIDE], (i) => i % 7)]]);
}
