/**
 * Which form of a run of SwiGLU FFNs does onnxruntime run fastest on this device?
 *
 *     npm run bench:ffn -- [--quick] [--json FILE]
 *     npm run bench:ffn -- --provider cuda --dtype float16 --hidden 2048,4096,8192 --tokens 1,8,32,128,1024,4096
 *
 * a: the run as it was, one FFN after another. b: one wide gate and one wide up MatMul (what concat-ffn emits).
 * c: one packed [gate|up] MatMul and a Split. d: FFNs on one input, unmerged (what parallelize-ffn emits). e: two wide ones of half
 * the members, one after another (what a `max-width` of that size makes).
 * b, c and d must agree before anything is timed; a and e compute other functions of the same weights.
 *
 * One child process per variant, because sessions alive together distort each other. They take turns within a round, and
 * ratios are of the same round, so that other load hits all alike. Needs about 6 GB of temporary disk and of memory, on a GPU
 * with hidden 8192 and 8 FFNs 36 GB of its memory. `floor` is what the roofline of the device allows: weights over the speed at
 * which a product of one row reads them, or arithmetic over the speed of a square product, whichever takes longer.
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
import { fillTensor, loadRuntime, openSession, type Provider, toFloat32 } from '../../../runtime/index.js';
import { buildVariant, makeWeights, type Shape, uniform, VARIANTS, type Variant, widthOf } from './ffn-graphs.js';
import { measureRoofline, type Roofline } from './roofline.js';

const SELF = fileURLToPath(import.meta.url);
const NAMES = Object.keys(VARIANTS) as Variant[];
/** Largest difference allowed between b, c and d, relative to the largest output. */
const TOLERANCE: Partial<Record<DataType, number>> = { float: 1e-5, float16: 1e-2 };
/** fp16 is measured where it takes at most this many times as long as fp32. */
const FP16_LIMIT = 1.5;

const text = { type: 'string' } as const;
const { values } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    json: text,
    child: text,
    provider: text,
    dtype: text,
    hidden: text,
    runs: text,
    tokens: text,
  },
});
const provider = (values.provider ?? 'cpu') as Provider;

interface Row extends Shape {
  readonly tokens: number;
  readonly weightBytes: number;
  readonly floorMs: number;
  readonly difference: number;
  readonly ms: Record<Variant, Quartiles>;
  /** Time over the time of `a` in the same round. */
  readonly ratio: Record<Variant, Quartiles>;
}
type Request = { do: 'output' | 'time'; tokens: number };

/** The child: answers requests about one model. */
async function serve(path: string, dtype: DataType, hidden: number, provider: Provider): Promise<void> {
  const session = await openSession(path, { provider });
  const answer = async (request: Request): Promise<unknown> => {
    const feeds = new Map([['input', fillTensor(dtype, [request.tokens, hidden], (i) => uniform(7, i))]]);
    const first = await session.run(feeds);
    if (request.do === 'output') return [...first.values()].map(toFloat32)[0];
    return turn(async () => session.run(feeds));
  };
  process.on('message', async (request: Request) => process.send?.(await answer(request)));
  process.on('disconnect', () => process.exit());
  process.send?.('ready');
}

async function start(path: string, { dtype, hidden }: Pick<Shape, 'dtype' | 'hidden'>): Promise<ChildProcess> {
  const words = ['--child', path, '--dtype', dtype, '--hidden', `${hidden}`, '--provider', provider];
  const child = fork(SELF, words, { serialization: 'advanced' });
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

/** One row per count of tokens. */
async function measure(shape: Shape, counts: readonly number[], rounds: number, roofline: Roofline): Promise<Row[]> {
  return withVariants(shape, NAMES, async (children) => {
    const rows: Row[] = [];
    for (const tokens of counts) {
      const difference = await check(children, shape, tokens);
      const samples: Record<Variant, number[]> = { a: [], b: [], c: [], d: [], e: [] };
      for (let round = 0; round < rounds; round++) {
        // Another one begins each time, so that none always follows the same one.
        for (const i of NAMES.keys()) {
          const variant = NAMES[(i + round) % NAMES.length] as Variant;
          samples[variant].push(await ask(children.get(variant) as ChildProcess, { do: 'time', tokens }));
        }
      }
      const ofAll = <T>(make: (v: Variant) => T) =>
        Object.fromEntries(NAMES.map((name) => [name, make(name)])) as Record<Variant, T>;
      const parameters = shape.n * 3 * shape.hidden * widthOf(shape.hidden);
      const weightBytes = byteSize(shape.dtype, [parameters]);
      const row: Row = {
        ...shape,
        tokens,
        weightBytes,
        floorMs: Math.max(weightBytes / roofline.bytesPerMs, (2 * tokens * parameters) / roofline.flopsPerMs),
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

const LISTS = ['hidden', 'runs', 'tokens'] as const;

async function main(): Promise<void> {
  if (values.child !== undefined) return serve(values.child, values.dtype as DataType, Number(values.hidden), provider);
  const quick = values.quick ?? false;
  const rounds = quick ? 5 : 15;
  const { version } = await loadRuntime();
  const asked = values.dtype as DataType | undefined;
  const fp16 = asked ? null : await fp16Cost(rounds);
  const dtypes: DataType[] = asked ? [asked] : fp16 !== null && fp16 <= FP16_LIMIT ? ['float', 'float16'] : ['float'];
  const machine = `${availableParallelism()} x ${cpus()[0]?.model}`;
  console.log(`onnxruntime-node ${version}, Node ${process.versions.node}, ${machine}, ${provider}`);
  if (fp16 !== null) {
    console.log(`fp16 takes ${fp16.toFixed(2)}x as long as fp32: ${dtypes.length > 1 ? 'measured too' : 'left out'}`);
  }
  const normal = quick
    ? { hidden: '512,1024', runs: '4', tokens: '1,16' }
    : { hidden: '512,1024,2048', runs: '4,8', tokens: '1,16,64' };
  const [hiddens, runs, tokens] = LISTS.map((name) => (values[name] ?? normal[name]).split(',').map(Number)) as [
    number[],
    number[],
    number[],
  ];
  const rows: Row[] = [];
  const rooflines: Record<string, Roofline> = {};
  const save = (): void => {
    if (values.json === undefined) return;
    const result = {
      onnxruntime: version,
      node: process.versions.node,
      machine,
      provider,
      rooflines,
      fp16,
      rounds,
      rows,
    };
    writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
  };
  for (const dtype of dtypes) {
    const roofline = await measureRoofline(provider, dtype);
    rooflines[dtype] = roofline;
    const { bytesPerMs, flopsPerMs } = roofline;
    console.log(`${dtype}: ${(bytesPerMs / 1e6).toFixed(1)} GB/s, ${(flopsPerMs / 1e9).toFixed(2)} TFLOP/s`);
    for (const hidden of hiddens) {
      for (const n of runs) {
        rows.push(...(await measure({ dtype, hidden, n }, tokens, rounds, roofline)));
        // A run that is stopped leaves what it has.
        save();
      }
    }
  }
  const table = new Table({ head: HEAD, style: { head: [], border: [], compact: true } });
  table.push(...rows.map(line));
  console.log(NAMES.map((name) => `${name}: ${VARIANTS[name]}`).join('; '));
  console.log(`Medians (p25..p75) of ${rounds} rounds; ratios to a are of one round; floor: what the roofline allows`);
  console.log(table.toString());
}

await main();
