/**
 * Which form of a run of SwiGLU FFNs does onnxruntime run fastest on this CPU?
 *
 *     npm run bench:ffn -- [--quick] [--json FILE]
 *
 * a: the run as it was, one FFN after another. b: one wide gate and one wide up MatMul (what concat-ffn emits).
 * c: one packed [gate|up] MatMul and a Split. d: FFNs on one input, unmerged (what parallelize-ffn emits).
 * b, c and d must agree before anything is timed; a computes another function of the same weights.
 *
 * One child process per variant, because sessions alive together distort each other. They take turns within a round, and
 * ratios are of the same round, so that other load hits all alike. Needs about 6 GB of temporary disk and of memory.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { saveModel } from '../../../ir/disk/model.js';
import { byteSize, type DataType } from '../../../ir/type.js';
import { ask, next } from '../../../runtime/bench/child.js';
import { type Quartiles, quartiles, turn } from '../../../runtime/bench/turns.js';
import { fillTensor, loadRuntime, openSession, toFloat32 } from '../../../runtime/index.js';
import { buildVariant, makeWeights, type Shape, uniform, VARIANTS, type Variant, widthOf } from './ffn-graphs.js';

const SELF = fileURLToPath(import.meta.url);
const NAMES = Object.keys(VARIANTS) as Variant[];
/** Largest difference allowed between b, c and d, relative to the largest output. */
const TOLERANCE: Partial<Record<DataType, number>> = { float: 1e-5, float16: 1e-2 };
/** fp16 is measured where it takes at most this many times as long as fp32. */
const FP16_LIMIT = 1.5;
interface Row extends Shape {
  readonly tokens: number;
  readonly weightBytes: number;
  readonly floorMs: number;
  readonly difference: number;
  readonly ms: Record<Variant, Quartiles>;
  /** Time over the time of `a` in the same round. */
  readonly ratio: Record<Variant, Quartiles>;
}
type Request = { do: 'output' | 'time'; tokens: number } | { do: 'bandwidth' };

/** The child: answers requests about one model, or measures the memory. */
async function serve(path: string, dtype: DataType, hidden: number): Promise<void> {
  const session = path === '' ? null : await openSession(path);
  const answer = async (request: Request): Promise<unknown> => {
    if (request.do === 'bandwidth') return bandwidth();
    const feeds = new Map([['input', fillTensor(dtype, [request.tokens, hidden], (i) => uniform(7, i))]]);
    const first = await session?.run(feeds);
    if (request.do === 'output') return [...(first?.values() ?? [])].map(toFloat32)[0];
    return turn(async () => session?.run(feeds));
  };
  process.on('message', async (request: Request) => process.send?.(await answer(request)));
  process.on('disconnect', () => process.exit());
  process.send?.('ready');
}

/** Bytes per ms at which one core reads: the best of several comparisons of 2 x 256 MiB, since load only slows them. */
function bandwidth(): number {
  const [one, other] = [1, 1].map((value) => Buffer.from(new Float32Array(2 ** 26).fill(value).buffer));
  const times = Array.from({ length: 16 }, () => {
    const start = performance.now();
    one?.equals(other as Buffer);
    return performance.now() - start;
  });
  return 2 ** 29 / Math.min(...times);
}

async function start(path: string, { dtype, hidden }: Pick<Shape, 'dtype' | 'hidden'>): Promise<ChildProcess> {
  const child = fork(SELF, ['--child', path, '--dtype', dtype, '--hidden', `${hidden}`], { serialization: 'advanced' });
  await next(child);
  return child;
}

/** Opens the variants of a shape, each in a process of its own, for the time of `work`. */
async function withVariants<T>(
  shape: Shape,
  variants: readonly Variant[],
  work: (children: Map<Variant, ChildProcess>) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-bench-'));
  const children = new Map<Variant, ChildProcess>();
  try {
    const ffns = makeWeights(shape, join(folder, 'weights.bin'));
    for (const variant of variants) {
      const path = join(folder, `${variant}.onnx`);
      await saveModel(buildVariant(variant, shape, ffns), path);
      children.set(variant, await start(path, shape));
    }
    return await work(children);
  } finally {
    for (const child of children.values()) child.disconnect();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Largest difference between the outputs of b, c and d, relative to their largest element. @throws when too large. */
async function check(children: Map<Variant, ChildProcess>, shape: Shape, tokens: number): Promise<number> {
  const outputs: Float32Array[] = [];
  for (const variant of ['b', 'c', 'd'] as const)
    outputs.push(await ask(children.get(variant) as ChildProcess, { do: 'output', tokens }));
  const [reference, ...others] = outputs as [Float32Array, ...Float32Array[]];
  const largest = reference.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  let difference = 0;
  for (const other of others) {
    for (const [i, value] of other.entries())
      difference = Math.max(difference, Math.abs(value - (reference[i] as number)) / largest);
  }
  if (!(largest > 0 && difference <= (TOLERANCE[shape.dtype] as number)))
    throw new Error(`${JSON.stringify(shape)}, ${tokens} tokens: b, c and d differ by ${difference} of ${largest}`);
  return difference;
}

/** One row per count of tokens; `speed` is bytes per ms. */
async function measure(shape: Shape, counts: readonly number[], rounds: number, speed: number): Promise<Row[]> {
  return withVariants(shape, NAMES, async (children) => {
    const rows: Row[] = [];
    for (const tokens of counts) {
      const difference = await check(children, shape, tokens);
      const samples: Record<Variant, number[]> = { a: [], b: [], c: [], d: [] };
      for (let round = 0; round < rounds; round++) {
        // Another one begins each time, so that none always follows the same one.
        for (const i of NAMES.keys()) {
          const variant = NAMES[(i + round) % NAMES.length] as Variant;
          samples[variant].push(await ask(children.get(variant) as ChildProcess, { do: 'time', tokens }));
        }
      }
      const ofAll = <T>(make: (v: Variant) => T) => ({ a: make('a'), b: make('b'), c: make('c'), d: make('d') });
      const weightBytes = shape.n * byteSize(shape.dtype, [3, shape.hidden, widthOf(shape.hidden)]);
      const row: Row = {
        ...shape,
        tokens,
        weightBytes,
        floorMs: weightBytes / speed,
        difference,
        ms: ofAll((variant) => quartiles(samples[variant])),
        ratio: ofAll((variant) => quartiles(samples[variant].map((ms, i) => ms / (samples.a[i] as number)))),
      };
      console.error(line(row).join('  '));
      rows.push(row);
    }
    return rows;
  });
}

const HEAD = ['type', 'hidden', 'n', 'tokens', 'floor', 'a: ms', ...NAMES.slice(1).map((name) => `${name}: of a, ms`)];

function line({ dtype, hidden, n, tokens, floorMs, ms, ratio }: Row): string[] {
  const digits = (value: number): string => value.toPrecision(3);
  const cell = (name: Variant): string =>
    `${digits(ms[name].median)} (${digits(ms[name].p25)}..${digits(ms[name].p75)})`;
  const others = NAMES.slice(1).map((name) => {
    const { p25, median, p75 } = ratio[name];
    return `${median.toFixed(2)} (${p25.toFixed(2)}..${p75.toFixed(2)}), ${cell(name)}`;
  });
  return [dtype, hidden, n, tokens, digits(floorMs), cell('a'), ...others].map(String);
}

/** How many times as long as fp32 the wide form takes in fp16, at one token: the median ratio of turns taken in pairs. */
function fp16Cost(rounds: number): Promise<number> {
  const wide = <T>(dtype: DataType, work: (time: () => Promise<number>) => Promise<T>): Promise<T> =>
    withVariants({ dtype, hidden: 1024, n: 4 }, ['b'], (children) =>
      work(() => ask(children.get('b') as ChildProcess, { do: 'time', tokens: 1 })),
    );
  return wide('float', (single) =>
    wide('float16', async (half) => {
      const ratios: number[] = [];
      for (let round = 0; round < rounds; round++) ratios.push((await half()) / (await single()));
      return quartiles(ratios).median;
    }),
  );
}

async function main(): Promise<void> {
  const options = { quick: { type: 'boolean' }, json: { type: 'string' }, child: { type: 'string' } } as const;
  const { values } = parseArgs({ options: { ...options, dtype: { type: 'string' }, hidden: { type: 'string' } } });
  if (values.child !== undefined) return serve(values.child, values.dtype as DataType, Number(values.hidden));
  const quick = values.quick ?? false;
  const rounds = quick ? 5 : 15;
  const { version } = await loadRuntime();
  const shape = { dtype: 'float', hidden: 1 } as const;
  const cores = await Promise.all(Array.from({ length: availableParallelism() }, () => start('', shape)));
  const speeds = await Promise.all(cores.map((core) => ask<number>(core, { do: 'bandwidth' })));
  const speed = speeds.reduce((sum, one) => sum + one, 0);
  for (const core of cores) core.disconnect();
  const fp16 = await fp16Cost(rounds);
  const machine = `${availableParallelism()} x ${cpus()[0]?.model}`;
  console.log(`onnxruntime-node ${version}, Node ${process.versions.node}, ${machine}`);
  console.log(`memory: ${(speed / 1e6).toFixed(1)} GB/s read by ${cores.length} cores at once`);
  const dtypes: DataType[] = fp16 <= FP16_LIMIT ? ['float', 'float16'] : ['float'];
  console.log(`fp16 takes ${fp16.toFixed(2)}x as long as fp32: ${dtypes.length > 1 ? 'measured too' : 'left out'}`);
  const rows: Row[] = [];
  for (const dtype of dtypes) {
    for (const hidden of quick ? [512, 1024] : [512, 1024, 2048]) {
      for (const n of quick ? [4] : [4, 8])
        rows.push(...(await measure({ dtype, hidden, n }, quick ? [1, 16] : [1, 16, 64], rounds, speed)));
    }
  }
  const table = new Table({ head: HEAD, style: { head: [], border: [], compact: true } });
  table.push(...rows.map(line));
  console.log(NAMES.map((name) => `${name}: ${VARIANTS[name]}`).join('; '));
  console.log(`Medians (p25..p75) of ${rounds} rounds; ratios to a are of one round; floor: weights over memory speed`);
  console.log(table.toString());
  const result = { onnxruntime: version, node: process.versions.node, machine, bytesPerMs: speed, fp16, rounds, rows };
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
}

await main();
