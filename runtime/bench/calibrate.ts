/**
 * Measures a machine for the cost model: its bandwidth with one MatMul, and what an attention, an FFN and a linear map cost beyond
 * their weights with the model at hand: one decoded token of it, and of the same model without some of them, in turns.
 */
import { Tensor, type Value } from '../../ir/core.js';
import { Graph, Model, openModel, referenceOf } from '../../ir/index.js';
import { tensorType } from '../../ir/type.js';
import { inlineWeight } from '../../ir/weight.js';
import { fuseSteps, type Layer, layersOf, runPipeline } from '../../passes/index.js';
import { type Device, type TokenWork, workOf } from '../choose/cost.js';
import { openSession, type Session, type SessionOptions } from '../session/session.js';
import { fillTensor, type TensorMap } from '../session/tensor.js';
import { nodeTimer, type StepTimer } from './step-times.js';
import { quartiles } from './turns.js';

/** How a machine is measured. */
export interface CalibrateOptions extends Pick<SessionOptions, 'provider' | 'threads'> {
  /** Positions in the KV caches when a token is decoded; 2048 by default, fewer where the model has no room for so many. */
  readonly context?: number | undefined;
  /** Sequences decoded together; 1 by default. */
  readonly batch?: number | undefined;
  /** Turns of each model; 7 by default. */
  readonly rounds?: number | undefined;
  /** The runtime that measures; onnxruntime-node by default. */
  readonly timer?: StepTimer | undefined;
  readonly onTurn?: ((done: number, total: number) => void) | undefined;
}

/** Tokens before the one that is timed, unless told otherwise. */
export const DEFAULT_CONTEXT = 2048;
const ROUNDS = 7;
/** 64 MiB of float32: more than a core's own caches hold. */
const SIDE = 4096;
const RUNS = 15;
/** Runs before this many milliseconds need not count, and none are made after twice as many. */
const WARM_MS = 2000;
/** Bandwidths before and after, or quartiles of one time, that are further apart were not measured in quiet. */
const QUIET = 0.15;

/** What is measured by leaving branches out. */
const KINDS = [
  { name: 'attention', count: 'attentions', option: 'removeAttention' },
  { name: 'FFN', count: 'ffns', option: 'removeFfn' },
] as const;
type Kind = (typeof KINDS)[number];

/** The model without some of its branches, and what that saves of a token's work. */
interface Variant {
  readonly model: Model;
  readonly count: number;
  readonly bytes: number;
}

/**
 * A device for this machine, as the model at `path` finds it: bytes per second of a 1 x 4096 x 4096 float32 MatMul (or of the
 * branches that were left out, where those were read faster), and what the branches of each kind cost beyond that. Nothing is
 * written. The figures differ from call to call; `disturbed` says when they should not be believed.
 * @throws Diagnostic OF_NO_RUNTIME, OF_RUNTIME, OF_CANNOT_FEED.
 */
export async function calibrate(path: string, options: CalibrateOptions = {}): Promise<Device> {
  const { context = DEFAULT_CONTEXT, batch = 1, rounds = ROUNDS, provider, threads } = options;
  const session = { ...(provider ? { provider } : {}), ...(threads === undefined ? {} : { threads }) };
  const timer = options.timer ?? (await nodeTimer(session));
  const model = openModel(path);
  const { layers } = layersOf(model);
  const work = workOf(model);
  const original = { location: path, model };
  const before = await measureBandwidth(session);
  const doubts: string[] = [];
  const tokens: number[] = [];
  const savings = new Map<Kind, Saving>();
  for (const [index, kind] of KINDS.entries()) {
    const variant = withoutSome(path, layers, work, kind);
    if (!variant) continue;
    const other = { location: referenceOf(variant.model), model: variant.model };
    const onTurn = (done: number, total: number) => options.onTurn?.(index * total + done, KINDS.length * total);
    const [whole, part] = await timer.time([original, other], { context, batch, rounds, prompt: false, onTurn });
    if (!whole || !part) continue;
    tokens.push(...whole.token);
    const token = quartiles(whole.token);
    if (token.p75 - token.p25 > QUIET * token.median) doubts.push(`a token took ${span(token.p25, token.p75)}`);
    // Of neighbours in time, so that slow changes of the machine cancel.
    const saved = quartiles(whole.token.map((seconds, i) => 1 - (part.token[i] as number) / seconds));
    if (saved.p25 <= 0) doubts.push(`what an ${kind.name} costs is less than the noise`);
    const { count, bytes } = variant;
    savings.set(kind, { count, bytes, seconds: Math.max(0, saved.median) * token.median, isClear: saved.p25 > 0 });
  }
  if (tokens.length === 0) {
    const [alone] = await timer.time([original], { context, batch, rounds, prompt: false, onTurn: options.onTurn });
    tokens.push(...(alone?.token ?? []));
  }
  const linear = await measureLinear(layers, session);
  const after = await measureBandwidth(session);
  if (Math.abs(before - after) > QUIET * Math.max(before, after)) {
    doubts.unshift(`the bandwidth was ${gigabytes(before)} GB/s before and ${gigabytes(after)} after`);
  }
  const made = [...savings].map(([{ name }, { count }]) => `without ${count} ${name}s`);
  const source =
    `measured here with ${timer.runtime}: one token of ${batch === 1 ? 'one sequence' : `${batch} sequences`} behind ${context}, ` +
    `${['of the model', ...made].join(', ')}; the bandwidth is that of a MatMul`;
  return {
    name: 'this machine',
    source,
    ranks: 1,
    ...constantsOf(work, quartiles(tokens).median, Math.max(before, after), savings, linear),
    disturbed: doubts.length > 0 ? `the machine was not quiet while it was measured: ${doubts.join('; ')}` : null,
  };
}

type Constants = Omit<Device, 'name' | 'source' | 'ranks' | 'disturbed'>;

/** What leaving out `count` branches with `bytes` of weights saved of a token. */
interface Saving {
  readonly count: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Whether it is more than the noise. */
  readonly isClear: boolean;
}

/** The constants that explain the time of a token of the model, and what leaving out branches saved of it. */
export function constantsOf(
  work: TokenWork,
  seconds: number,
  measured: number,
  savings: ReadonlyMap<Kind, Saving>,
  linear: { readonly seconds: number; readonly bytes: number } | null,
): Constants {
  // Weights that stay in the caches of a core, and kernels that overlap, are read faster than the MatMul says.
  const effective = [...savings.values()].filter(({ isClear }) => isClear);
  const bytesPerSecond = Math.max(measured, ...effective.map((saving) => saving.bytes / saving.seconds));
  const beyond = (saved: number, bytes: number): number => Math.max(0, saved - bytes / bytesPerSecond);
  const perBranch = new Map(
    [...savings].map(([kind, { count, bytes, seconds: saved }]) => [kind.count, beyond(saved, bytes) / count]),
  );
  const secondsPerLinear = linear ? beyond(linear.seconds, linear.bytes) : 0;
  const known = (count: Kind['count']): number => perBranch.get(count) ?? 0;
  const rest =
    seconds -
    work.weightBytes / bytesPerSecond -
    work.attentions * known('attentions') -
    work.ffns * known('ffns') -
    work.linears * secondsPerLinear;
  // What could not be left out shares what is not explained.
  const unknown = KINDS.filter(({ count }) => !perBranch.has(count) && work[count] > 0);
  const branches = unknown.reduce((sum, { count }) => sum + work[count], 0);
  const share = branches > 0 ? Math.max(0, rest) / branches : 0;
  const costOf = (count: Kind['count']): number => perBranch.get(count) ?? share;
  return {
    bytesPerSecond,
    secondsPerAttention: costOf('attentions'),
    secondsPerFfn: costOf('ffns'),
    secondsPerLinear,
    secondsPerToken: rest - share * branches,
  };
}

/** The model without a third of its branches of a kind, those spread evenly; null where none can go. */
function withoutSome(path: string, layers: readonly Layer[], work: TokenWork, kind: Kind): Variant | null {
  const all = layers.filter((layer) => canGo(layer, kind)).map(({ index }) => index);
  const count = Math.max(1, Math.floor(all.length / 3));
  const chosen = Array.from({ length: count }, (_, i) => all[Math.floor(((i + 0.5) * all.length) / count)]);
  const gone = chosen.filter((layer) => layer !== undefined);
  if (gone.length === 0) return null;
  const model = openModel(path);
  runPipeline(model, fuseSteps({ [kind.option]: gone, fuse: false, keepGoing: true }));
  const left = workOf(model);
  const removed = work[kind.count] - left[kind.count];
  return removed > 0 ? { model, count: removed, bytes: work.weightBytes - left.weightBytes } : null;
}

function canGo({ attention, ffn, fixed }: Layer, kind: Kind): boolean {
  if (fixed !== null) return false;
  return kind.count === 'attentions' ? attention !== null && !attention.attention.blocked : ffn !== null;
}

/**
 * Bytes of weights per second that a 1 x 4096 x 4096 float32 MatMul gets through: what a decoded token is limited by.
 * @throws Diagnostic OF_NO_RUNTIME, OF_RUNTIME.
 */
export async function measureBandwidth(options: SessionOptions = {}): Promise<number> {
  return (4 * SIDE * SIDE) / (await secondsOf(await openSession(chainBytes(SIDE, 1, false), options), rowOf(SIDE)));
}

/** Linear maps in the graph that one of them is measured with. */
const MAPS = 8;

/** Seconds and bytes of a linear map with its norm, of a stream as wide as the model's; null where its width is not known. */
async function measureLinear(
  layers: readonly Layer[],
  options: SessionOptions,
): Promise<{ readonly seconds: number; readonly bytes: number } | null> {
  const hidden = Math.max(0, ...layers.map(({ ffn }) => ffn?.ffn.hidden ?? 0));
  if (hidden === 0) return null;
  const timeOf = async (maps: number): Promise<number> =>
    secondsOf(await openSession(chainBytes(hidden, maps, true), options), rowOf(hidden));
  const [one, all] = [await timeOf(1), await timeOf(MAPS)];
  return { seconds: Math.max(0, all - one) / (MAPS - 1), bytes: 4 * hidden * hidden };
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

/** `length` products with square matrices, one after another; with their norm, bias and residual sum where they are linear maps. */
function chainBytes(side: number, length: number, isMap: boolean) {
  const graph = new Graph();
  graph.name = 'chain';
  let x = graph.addInput('x', tensorType('float', [1, side]));
  const constant = (name: string, dims: readonly number[]) =>
    graph.addInitializer(
      name,
      new Tensor(name, 'float', dims, inlineWeight(new Uint8Array(4 * dims.reduce((a, b) => a * b, 1)), 'float', dims)),
    );
  const op = (opType: string, name: string, ...inputs: Value[]): Value =>
    graph
      .addNode({ opType, name, inputs, outputs: [{ name, type: tensorType('float', [1, side]) }] })
      .output(0) as Value;
  for (let i = 0; i < length; i++) {
    const normed = isMap ? op('LayerNormalization', `n${i}`, x, constant(`g${i}`, [side])) : x;
    const product = op('MatMul', `y${i}`, normed, constant(`w${i}`, [side, side]));
    x = isMap ? op('Add', `x${i}`, x, op('Add', `z${i}`, product, constant(`b${i}`, [side]))) : product;
  }
  graph.addOutput(x);
  return referenceOf(new Model(8, [{ domain: '', version: 17 }], graph));
}

function rowOf(side: number): TensorMap {
  return new Map([['x', fillTensor('float', [1, side], (i) => i % 7)]]);
}

const gigabytes = (bytes: number): string => (bytes / 1e9).toPrecision(3);
const span = (from: number, to: number): string =>
  `between ${(1000 * from).toPrecision(3)} and ${(1000 * to).toPrecision(3)} ms`;
