/**
 * Measures a machine for the cost model: its bandwidth with one MatMul, and what an attention, an FFN and a linear map cost beyond
 * their weights with the model at hand: one decoded token of it, and of the same model without some of them, in turns.
 */

import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Tensor, type Value } from '../../ir/core.js';
import {
  Diagnostic,
  errors,
  Graph,
  Model,
  openModel,
  reasonOf,
  referenceOf,
  removeTemporary,
  saveModel,
  temporaryFor,
} from '../../ir/index.js';
import { elementCount, tensorType } from '../../ir/type.js';
import { counted } from '../../ir/visible.js';
import { inlineWeight } from '../../ir/weight.js';
import { fuseSteps, type Layer, layersOf, runPipeline } from '../../passes/index.js';
import { type Device, type PhaseCosts, PROMPT_TOKENS, type TokenWork, workOf } from '../choose/cost.js';
import { openSession, type Session, type SessionOptions } from '../session/session.js';
import { fillTensor, type TensorMap } from '../session/tensor.js';
import type { Candidate } from '../verify/verify.js';
import { measureFusion, middleOf } from './fusion-times.js';
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
  /** Also measure what a prompt costs; false by default. */
  readonly prompts?: boolean | undefined;
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
  readonly layers: readonly number[];
  readonly count: number;
  readonly bytes: number;
}

/**
 * A device for this machine, as the model at `path` finds it: bytes per second of a 1 x 4096 x 4096 float32 MatMul (or of the
 * branches that were left out, where those were read faster), and what the branches of each kind cost beyond that. Small files
 * beside the model are written for the time of it. The figures differ from call to call; `disturbed` says when they should not be believed.
 * @throws Diagnostic OF_NO_RUNTIME, OF_RUNTIME, OF_CANNOT_FEED.
 */
export async function calibrate(path: string, options: CalibrateOptions = {}): Promise<Device> {
  const { context = DEFAULT_CONTEXT, batch = 1, rounds = ROUNDS, prompts = false, provider, threads } = options;
  const session = { provider, threads };
  const timer = options.timer ?? (await nodeTimer(session));
  const model = openModel(path);
  const { layers } = layersOf(model);
  const work = workOf(model);
  const original = { location: path, model };
  const before = await measureBandwidth(session);
  const doubts: string[] = [];
  const comparisons = (KINDS.length + 1) * (prompts ? 2 : 1) + 1;
  let turns = 0;
  /** What the branches cost of a token, or of a prompt. */
  const measurePhase = async (phase: 'token' | 'prompt'): Promise<Measured> => {
    const timed = phase === 'token' ? { context, prompt: false } : { context: PROMPT_TOKENS, prompt: true };
    const ofPrompt = phase === 'prompt' ? ' of a prompt' : '';
    /** Seconds of the first model, and the share of them by which the second one is faster. */
    const compare = async (first: Candidate, second: Variant, what: string) => {
      const pair = [first, { location: referenceOf(second.model), model: second.model }];
      const onTurn = (done: number, total: number) => options.onTurn?.(turns * total + done, comparisons * total);
      const [whole, part] = await timer.time(pair, { ...timed, batch, rounds, onTurn });
      turns++;
      const samples = whole?.[phase] ?? [];
      const found = quartiles(samples);
      if (found.p75 - found.p25 > QUIET * found.median) doubts.push(`a ${phase} took ${span(found.p25, found.p75)}`);
      // Of neighbours in time, so that slow changes of the machine cancel.
      const saved = quartiles(samples.map((seconds, i) => 1 - (part?.[phase][i] as number) / seconds));
      if (what !== '' && saved.p25 <= 0) doubts.push(`what an ${what} costs${ofPrompt} is less than the noise`);
      return { median: found.median, samples, saved };
    };
    const measureMaps = async (variant: Variant) => {
      const folder = scratchFor(path);
      try {
        const mapped = await withMaps(path, layers, variant, folder);
        if (!mapped) return null;
        const without = { location: referenceOf(variant.model), model: variant.model };
        const { median, saved } = await compare(without, mapped, '');
        const { count, bytes } = mapped;
        return { count, seconds: Math.max(0, -saved.median * median) / count, bytes: bytes / count };
      } finally {
        await removeTemporary(folder);
      }
    };
    const all: number[] = [];
    const savings = new Map<Kind, Saving>();
    let linear: Measured['linear'] = null;
    for (const kind of KINDS) {
      const variant = withoutSome(path, layers, work, kind);
      if (!variant) continue;
      const { median, samples, saved } = await compare(original, variant, kind.name);
      all.push(...samples);
      const { count, bytes } = variant;
      savings.set(kind, { count, bytes, seconds: Math.max(0, saved.median) * median, isClear: saved.p25 > 0 });
      if (kind.count === 'attentions') linear = await measureMaps(variant);
    }
    if (all.length === 0) {
      const [alone] = await timer.time([original], { ...timed, batch, rounds, onTurn: options.onTurn });
      all.push(...(alone?.[phase] ?? []));
    }
    return { seconds: quartiles(all).median, savings, linear };
  };
  const token = await measurePhase('token');
  const prompt = prompts ? await measurePhase('prompt') : null;
  const fusion = await measureFusion(
    path,
    middleOf(layers, (layer) => KINDS.every((kind) => canGo(layer, kind))),
    timer,
    { batch, rounds, onTurn: (done, total) => options.onTurn?.(turns * total + done, (turns + 1) * total) },
  );
  const after = await measureBandwidth(session);
  if (Math.abs(before - after) > QUIET * Math.max(before, after)) {
    doubts.unshift(`the bandwidth was ${gigabytes(before)} GB/s before and ${gigabytes(after)} after`);
  }
  const { savings, linear } = token;
  const maps = linear === null ? '' : `, ${linear.count} of them replaced by linear maps`;
  const made = [...savings].map(
    ([{ name, count: kind }, { count }]) => `without ${counted(count, name)}${kind === 'attentions' ? maps : ''}`,
  );
  const source =
    `measured here with ${timer.runtime}: one token of ${batch === 1 ? 'one sequence' : `${batch} sequences`} behind ${context}, ` +
    `${['of the model', ...made].join(', ')}${prompt ? `; the same of a prompt of ${PROMPT_TOKENS}` : ''}${fusion ? '; FFNs one after another against fused' : ''}; the bandwidth is that of a MatMul`;
  return {
    name: 'this machine',
    source,
    ranks: 1,
    ...constantsOf(work, token.seconds, Math.max(before, after), savings, linear),
    ...(prompt ? { prompt: await promptCosts(work, prompt, session) } : {}),
    fusion,
    disturbed: doubts.length > 0 ? `the machine was not quiet while it was measured: ${doubts.join('; ')}` : null,
  };
}

/** Seconds of a token or a prompt of the model, and what was found by leaving branches out. */
interface Measured {
  readonly seconds: number;
  readonly savings: ReadonlyMap<Kind, Saving>;
  readonly linear: { readonly count: number; readonly seconds: number; readonly bytes: number } | null;
}

/** Weights are read once for all tokens of a prompt, and worked through at the speed of a MatMul with as many rows. */
async function promptCosts(
  work: TokenWork,
  { seconds, savings, linear }: Measured,
  session: SessionOptions,
): Promise<PhaseCosts> {
  return constantsOf(work, seconds, await measureBandwidth(session, PROMPT_TOKENS), savings, linear);
}

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
): PhaseCosts {
  // Weights that stay in the caches of a core, and kernels that overlap, are read faster than the MatMul says.
  const effective = [...savings.values()].filter(({ isClear }) => isClear);
  const bytesPerSecond = Math.max(measured, ...effective.map((saving) => saving.bytes / saving.seconds));
  const beyond = (saved: number, bytes: number): number => Math.max(0, saved - bytes / bytesPerSecond);
  const found = [...savings].map(
    ([kind, { count, bytes, seconds: saved }]) => [kind.count, beyond(saved, bytes) / count] as const,
  );
  // On a busy machine the parts may have taken longer than the whole, which no plan can save.
  const most = Math.max(0, seconds - work.weightBytes / bytesPerSecond);
  const all = found.reduce((sum, [count, each]) => sum + work[count] * each, 0);
  const fits = all > (1 + QUIET) * most ? most / all : 1;
  const perBranch = new Map(found.map(([count, each]) => [count, each * fits]));
  const mapped = linear ? beyond(linear.seconds, linear.bytes) : null;
  const known = (count: Kind['count']): number => perBranch.get(count) ?? 0;
  const rest =
    seconds -
    work.weightBytes / bytesPerSecond -
    work.attentions * known('attentions') -
    work.ffns * known('ffns') -
    work.linears * (mapped ?? known('ffns'));
  // What could not be left out shares what is not explained.
  const unknown = KINDS.filter(({ count }) => !perBranch.has(count) && work[count] > 0);
  const branches = unknown.reduce((sum, { count }) => sum + work[count], 0);
  const share = branches > 0 ? Math.max(0, rest) / branches : 0;
  const costOf = (count: Kind['count']): number => perBranch.get(count) ?? share;
  return {
    bytesPerSecond,
    secondsPerAttention: costOf('attentions'),
    secondsPerFfn: costOf('ffns'),
    // Where no map could be put in, one is taken for an FFN.
    secondsPerLinear: mapped ?? costOf('ffns'),
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
  return removed > 0 ? { model, layers: gone, count: removed, bytes: work.weightBytes - left.weightBytes } : null;
}

function canGo({ attention, ffn, fixed }: Layer, kind: Kind): boolean {
  if (fixed !== null) return false;
  return kind.count === 'attentions' ? attention !== null && !attention.attention.blocked : ffn !== null;
}

/**
 * Bytes of weights per second that a 1 x 4096 x 4096 float32 MatMul gets through: what a decoded token is limited by; or one with more rows.
 * @throws Diagnostic OF_NO_RUNTIME, OF_RUNTIME.
 */
export async function measureBandwidth(options: SessionOptions = {}, rows = 1): Promise<number> {
  return (4 * SIDE * SIDE) / (await secondsOf(await openSession(productBytes(rows), options), rowsOf(rows, SIDE)));
}

/** Most bytes of maps that are measured. */
const MAP_BYTES = 256 * 2 ** 20;

/** A folder for the maps: beside the model, where links from there can be made, else among the system's own temporary ones. */
function scratchFor(path: string): string {
  for (const beside of [dirname(path), tmpdir()]) {
    try {
      const folder = temporaryFor(join(beside, 'calibration'));
      mkdirSync(folder);
      return folder;
    } catch (error) {
      if (beside === tmpdir()) throw error instanceof Diagnostic ? error : errors.writeFailed(beside, reasonOf(error));
    }
  }
  throw new Error('there is no place for temporary files');
}

/** Maps of zeros in the places of attentions that the variant does without, as many as fit into a few hundred MB; null where none can be. */
async function withMaps(
  path: string,
  layers: readonly Layer[],
  { layers: gone, model: without }: Variant,
  folder: string,
): Promise<Variant | null> {
  const hidden = Math.max(0, ...layers.map(({ ffn }) => ffn?.ffn.hidden ?? 0));
  if (hidden === 0) return null;
  const attention = gone.slice(0, Math.max(1, Math.floor(MAP_BYTES / (4 * hidden * hidden))));
  const maps = join(folder, 'zeros.onnx-fuse-fit');
  const graph = new Graph();
  graph.name = 'fit';
  for (const layer of attention) {
    zeros(graph, `attention.${layer}.weight`, [hidden, hidden]);
    zeros(graph, `attention.${layer}.bias`, [hidden]);
  }
  await saveModel(new Model(10, [{ domain: '', version: 21 }], graph), maps);
  const model = openModel(path);
  const removeAttention = gone.filter((layer) => !attention.includes(layer));
  runPipeline(
    model,
    fuseSteps({ removeAttention, linearize: { attention, ffn: [], maps }, fuse: false, keepGoing: true }),
  );
  const [more, less] = [workOf(model), workOf(without)];
  const count = more.linears - less.linears;
  // Where one was refused, its attention is still there: nothing could be told from the two.
  if (count !== attention.length || more.attentions !== less.attentions) return null;
  return { model, layers: attention, count, bytes: more.weightBytes - less.weightBytes };
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

function productBytes(rows: number) {
  const graph = new Graph();
  graph.name = 'bandwidth';
  const x = graph.addInput('x', tensorType('float', [rows, SIDE]));
  const product = graph.addNode({
    opType: 'MatMul',
    inputs: [x, zeros(graph, 'w', [SIDE, SIDE])],
    outputs: [{ name: 'y', type: tensorType('float', [rows, SIDE]) }],
  });
  graph.addOutput(product.output(0) as Value);
  return referenceOf(new Model(8, [{ domain: '', version: 17 }], graph));
}

function zeros(graph: Graph, name: string, dims: readonly number[]): Value {
  const bytes = new Uint8Array(4 * elementCount(dims));
  return graph.addInitializer(name, new Tensor(name, 'float', dims, inlineWeight(bytes, 'float', dims)));
}

function rowsOf(rows: number, side: number): TensorMap {
  return new Map([['x', fillTensor('float', [rows, side], (i) => i % 7)]]);
}

const gigabytes = (bytes: number): string => (bytes / 1e9).toPrecision(3);
const span = (from: number, to: number): string =>
  `between ${(1000 * from).toPrecision(3)} and ${(1000 * to).toPrecision(3)} ms`;
