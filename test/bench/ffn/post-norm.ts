/**
 * FFNs whose output is normalised before the residual sum (Gemma 2 and 3) are no single FFN, even on one input: which form
 * of a run of them does onnxruntime run fastest on this CPU?
 *
 *     npm run bench:post-norm -- [--quick]
 *
 * a: parallel and unmerged. b: weights stacked to [n, ...], one batched MatMul per projection, the norm over the last axis,
 * gamma per member, a ReduceSum over the members. c: sequential, as exported. d: one wide gate and one wide up, then down
 * and norm per member. a, b and d must agree before anything is timed; c computes another function of the same weights.
 *
 * As in ffn-form.ts the variants take turns, a process each; ratios are of one round. Needs 4 GB of disk and of memory.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Attribute, Graph, Model, Tensor, type Value } from '../../../ir/core.js';
import { saveModel } from '../../../ir/disk/model.js';
import { tensorType } from '../../../ir/type.js';
import { concat, inlineWeight, reshape, scale, type Weight } from '../../../ir/weight.js';
import { ask, next } from '../../../runtime/bench/child.js';
import { quartiles, turn } from '../../../runtime/bench/turns.js';
import { fillTensor, loadRuntime, openSession, toFloat32 } from '../../../runtime/index.js';
import { type Ffn, makeWeights, uniform, widthOf } from './ffn-graphs.js';

const SELF = fileURLToPath(import.meta.url);
const VARIANTS = { a: 'unmerged', b: 'batched', c: 'sequential', d: 'wide gate and up' } as const;
type Variant = keyof typeof VARIANTS;
const NAMES = Object.keys(VARIANTS) as Variant[];
const MEMBERS = 4;
const TOLERANCE = 1e-5;

/** `(tokens, hidden) -> (tokens, hidden)`: x + sum of norm(ffn(norm(x))). The gamma of a member serves both its norms. */
function build(variant: Variant, hidden: number, ffns: readonly Ffn[]): Model {
  const graph = new Graph();
  graph.name = `post_norm_${variant}`;
  const op = (
    opType: string,
    inputs: Value[],
    attributes: Record<string, Attribute> = {},
    outputs = [opType],
  ): Value[] => graph.addNode({ opType, name: opType, inputs, outputs, attributes }).outputs as Value[];
  const one = (opType: string, ...inputs: Value[]): Value => op(opType, inputs)[0] as Value;
  const constant = (name: string, weight: Weight): Value => {
    const unique = graph.names.fresh(name);
    return graph.addInitializer(unique, new Tensor(unique, weight.dtype, weight.dims, weight));
  };
  const int = (value: number): Attribute => ({ kind: 'int', value: BigInt(value) });
  const norm = (input: Value, gamma: Weight): Value =>
    op('SimplifiedLayerNormalization', [input, constant('gamma', gamma)], {
      axis: int(-1),
      epsilon: { kind: 'float', value: 1e-6 },
    })[0] as Value;
  const data = new Uint8Array(fillTensor('float', [hidden], () => 1).data.buffer);
  const ones = inlineWeight(data, 'float', [hidden]);
  /** Gemma's gate: the tanh form of GELU. */
  const gated = (gate: Value, up: Value): Value =>
    one(
      'Mul',
      op('Gelu', [gate], { approximate: { kind: 'string', value: new TextEncoder().encode('tanh') } })[0] as Value,
      up,
    );

  const input = graph.addInput('input', tensorType('float', ['tokens', hidden]));
  let stream = input;
  if (variant === 'a' || variant === 'c') {
    for (const { gamma, gate, up, down } of ffns) {
      const normed = norm(variant === 'c' ? stream : input, gamma);
      const mid = gated(one('MatMul', normed, constant('gate', gate)), one('MatMul', normed, constant('up', up)));
      stream = one('Add', stream, norm(one('MatMul', mid, constant('down', down)), gamma));
    }
  } else if (variant === 'd') {
    const normed = norm(input, ones);
    const project = (name: 'gate' | 'up'): Value => {
      const parts = ffns.map((ffn) => scale(ffn[name], 0, ffn.gamma));
      return one('MatMul', normed, constant(name, concat(parts, 1)));
    };
    const mids = op(
      'Split',
      [gated(project('gate'), project('up'))],
      { axis: int(-1), num_outputs: int(MEMBERS) },
      ffns.map((_, i) => `mid_${i}`),
    );
    for (const [i, { gamma, down }] of ffns.entries()) {
      stream = one('Add', stream, norm(one('MatMul', mids[i] as Value, constant('down', down)), gamma));
    }
  } else {
    const stacked = (weights: readonly Weight[]): Weight[] =>
      weights.map((weight) => reshape(weight, [1, ...weight.dims]) as Weight);
    const normed = norm(input, ones);
    const project = (name: 'gate' | 'up'): Value => {
      const parts = stacked(ffns.map((ffn) => ffn[name])).map((part, i) => scale(part, 1, (ffns[i] as Ffn).gamma));
      return one('MatMul', normed, constant(name, concat(parts, 0)));
    };
    const mid = gated(project('gate'), project('up'));
    const downs = stacked(ffns.map(({ down }) => down));
    const out = norm(one('MatMul', mid, constant('down', concat(downs, 0))), ones);
    const gammas = ffns.map(({ gamma }) => reshape(gamma, [1, 1, hidden]) as Weight);
    const axes = constant('axes', inlineWeight(new Uint8Array(8), 'int64', [1]));
    const scaled = one('Mul', out, constant('gamma', concat(gammas, 0)));
    stream = one('Add', input, op('ReduceSum', [scaled, axes], { keepdims: int(0) })[0] as Value);
  }
  stream.type = tensorType('float', ['tokens', hidden]);
  graph.addOutput(stream);
  return new Model(10, [{ domain: '', version: 21 }], graph);
}

type Request = { do: 'output' | 'time'; tokens: number };

/** The child: answers requests about one model. */
async function serve(path: string, hidden: number): Promise<void> {
  // As in a user's session, weights are prepacked whatever their size.
  const session = await openSession(path, { weightBytes: 0 });
  process.on('message', async (request: Request) => {
    const feeds = new Map([['input', fillTensor('float', [request.tokens, hidden], (i) => uniform(7, i))]]);
    const [first] = (await session.run(feeds)).values();
    process.send?.(request.do === 'output' ? first && toFloat32(first) : await turn(() => session.run(feeds)));
  });
  process.on('disconnect', () => process.exit());
  process.send?.('ready');
}

/** Largest difference between the outputs of a, b and d, relative to the largest element. @throws when too large. */
async function check(children: ReadonlyMap<Variant, ChildProcess>, tokens: number): Promise<void> {
  const [reference, ...others] = await Promise.all(
    (['a', 'b', 'd'] as const).map((name) =>
      ask<Float32Array>(children.get(name) as ChildProcess, { do: 'output', tokens }),
    ),
  );
  const wanted = [...(reference as Float32Array)];
  const largest = wanted.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  for (const other of others) {
    const difference = other.reduce((max, value, i) => Math.max(max, Math.abs(value - (wanted[i] as number))), 0);
    if (!(difference <= TOLERANCE * largest)) throw new Error(`a, b and d differ by ${difference} of ${largest}`);
  }
}

async function measure(hidden: number, counts: readonly number[], rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-bench-'));
  const children = new Map<Variant, ChildProcess>();
  try {
    const ffns = makeWeights({ dtype: 'float', hidden, n: MEMBERS }, join(folder, 'weights.bin'));
    for (const name of NAMES) {
      const path = join(folder, `${name}.onnx`);
      await saveModel(build(name, hidden, ffns), path);
      const child = fork(SELF, ['--child', path, '--hidden', `${hidden}`], { serialization: 'advanced' });
      children.set(name, child);
      await next(child);
    }
    for (const tokens of counts) {
      await check(children, tokens);
      const samples: Record<Variant, number[]> = { a: [], b: [], c: [], d: [] };
      for (let round = 0; round < rounds; round++) {
        for (const i of NAMES.keys()) {
          const name = NAMES[(i + round) % NAMES.length] as Variant;
          samples[name].push(await ask(children.get(name) as ChildProcess, { do: 'time', tokens }));
        }
      }
      const cells = NAMES.map((name) => {
        const ms = quartiles(samples[name]).median.toPrecision(3);
        if (name === 'a') return ms;
        const { p25, median, p75 } = quartiles(samples[name].map((time, i) => time / (samples.a[i] as number)));
        return `${ms}, ${median.toFixed(2)} (${p25.toFixed(2)}..${p75.toFixed(2)})`;
      });
      console.log(`| ${[hidden, tokens, ...cells].join(' | ')} |`);
    }
  } finally {
    for (const child of children.values()) child.disconnect();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const options = { quick: { type: 'boolean' }, child: { type: 'string' }, hidden: { type: 'string' } } as const;
  const { values } = parseArgs({ options });
  if (values.child !== undefined) return serve(values.child, Number(values.hidden));
  const { version } = await loadRuntime();
  const machine = `${availableParallelism()} x ${cpus()[0]?.model}`;
  const rounds = values.quick ? 5 : 15;
  console.log(`onnxruntime-node ${version}, Node ${process.versions.node}, ${machine}`);
  console.log(`fp32, ${MEMBERS} FFNs of width ${widthOf(1)} x hidden; medians in ms of ${rounds} rounds,`);
  console.log('then the time over that of a in the same round (p25..p75)\n');
  console.log(`| hidden | tokens | ${NAMES.map((name) => `${name}: ${VARIANTS[name]}`).join(' | ')} |`);
  console.log(`|${' --: |'.repeat(NAMES.length + 2)}`);
  for (const hidden of values.quick ? [512] : [512, 1024, 2048]) await measure(hidden, [1, 16, 64], rounds);
}

await main();
