/**
 * Times models against each other: a process for each (sessions side by side distort each other's times), taking turns, so that
 * what else happens on the machine hits them alike; ratios are taken within a round.
 */
import type { Model } from '../../ir/core.js';
import { workOf } from '../choose/cost.js';
import { checkPlacement, measurePlacement, type Placement } from '../run/placement.js';
import type { SessionOptions } from '../session/session.js';
import { readSignature, type Signature } from '../signature/signature.js';
import type { TurnRequest, TurnTimes } from './bench-worker.js';
import { type Quartiles, quartiles } from './turns.js';
import { turnsOf, Workers } from './workers.js';

/** What is timed, and how often. */
export interface BenchRequest {
  readonly models: readonly { readonly path: string; readonly model: Model }[];
  readonly options: SessionOptions;
  /** Go on where the CPU does the work of another provider; false by default: OF_PROVIDER_FALLBACK. */
  readonly allowFallback?: boolean;
  readonly batches: readonly number[];
  /** Tokens of the prompt, and tokens decoded after it, one by one. */
  readonly prompt: number;
  readonly decode: number;
  readonly rounds: number;
  readonly onTurn?: (done: number, total: number) => void;
}

/** Prefill, or one decoded token, of one model at one batch size. */
export interface BenchRow {
  readonly batch: number;
  readonly phase: 'prefill' | 'decode';
  /** Milliseconds: of the prompt, or of one token (the median of the tokens of a turn), over rounds. Per model. */
  readonly ms: readonly Quartiles[];
  /** Tokens of all sequences per second, at the median. Per model. */
  readonly tokensPerSecond: readonly number[];
  /** Time of the second model over that of the first in the same round; null with one model. */
  readonly ratio: Quartiles | null;
}

/** What is known of one timed model. */
export interface BenchModel {
  readonly path: string;
  readonly weightBytes: number;
  readonly loadMs: number;
  readonly peakRssBytes: number;
  /** Where its nodes run; null on the CPU. */
  readonly placement: Placement | null;
}

/** All figures of a bench. */
export interface BenchResult {
  readonly models: readonly BenchModel[];
  readonly rows: readonly BenchRow[];
  /** Where a KV cache is between two steps. */
  readonly cache: 'copied every step' | 'on the GPU';
  readonly rounds: number;
  readonly prompt: number;
  readonly decode: number;
}

/**
 * Times `models` (one or two). Each round lets every model have a turn at every batch size, the first one first in even rounds; the
 * first round warms up and is not counted.
 * @throws Diagnostic OF_NO_PROVIDER, OF_PROVIDER_FALLBACK, OF_RUNTIME, OF_CANNOT_FEED.
 */
export async function runBench(request: BenchRequest): Promise<BenchResult> {
  const { models, batches, rounds, prompt, decode } = request;
  const placements: (Placement | null)[] = [];
  for (const { path, model } of models) {
    const onCpu = (request.options.provider ?? 'cpu') === 'cpu';
    const placement = onCpu ? null : await measurePlacement(path, model, request.options);
    if (placement && !request.allowFallback) checkPlacement(placement, path);
    placements.push(placement);
  }
  const starts = models.map(({ path, model }) => {
    const signature = readSignature(model);
    return { location: path, signature, options: { ...request.options, ...cachesOnGpu(request.options, signature) } };
  });
  const workers = await Workers.start(starts);
  try {
    const turns = new Map<string, TurnTimes[]>();
    const total = (rounds + 1) * batches.length * models.length;
    let done = 0;
    for (let round = 0; round <= rounds; round++) {
      for (const batch of batches) {
        for (const index of turnsOf(round, models.length)) {
          request.onTurn?.(done++, total);
          const turn: TurnRequest = { batch, prompt, decode };
          const times = await workers.turn(index, turn);
          if (round === 0) continue;
          const key = `${batch} ${index}`;
          turns.set(key, [...(turns.get(key) ?? []), times]);
        }
      }
    }
    const timesOf = (batch: number, index: number): readonly TurnTimes[] => turns.get(`${batch} ${index}`) ?? [];
    const rows = batches.flatMap((batch) =>
      (['prefill', 'decode'] as const).flatMap((phase) => {
        const samples = models.map((_, index) => timesOf(batch, index).map((times) => millisecondsOf(times, phase)));
        return samples.every((list) => list.every(Number.isFinite)) ? [rowOf(batch, phase, samples, prompt)] : [];
      }),
    );
    return {
      models: models.map(({ path, model }, index) => ({
        path,
        weightBytes: workOf(model).weightBytes,
        loadMs: workers.loadMs[index] ?? Number.NaN,
        peakRssBytes: Math.max(...batches.flatMap((batch) => timesOf(batch, index).map((each) => each.peakRssBytes))),
        placement: placements[index] ?? null,
      })),
      rows,
      cache: request.options.provider === 'webgpu' ? 'on the GPU' : 'copied every step',
      rounds,
      prompt,
      decode,
    };
  } finally {
    workers.end();
  }
}

/** Only webgpu leaves outputs where they are; onnxruntime-node copies those of the others, even when it is given the memory. */
export function cachesOnGpu(options: SessionOptions, { caches }: Signature): Pick<SessionOptions, 'onGpu'> {
  return options.provider === 'webgpu' ? { onGpu: caches.flatMap(({ output }) => output ?? []) } : {};
}

/** Of a turn: the prompt, or the median of its tokens; NaN where the model cannot decode. */
function millisecondsOf({ prefillMs, decodeMs }: TurnTimes, phase: 'prefill' | 'decode'): number {
  if (phase === 'prefill') return prefillMs ?? Number.NaN;
  return decodeMs.length > 0 ? quartiles(decodeMs).median : Number.NaN;
}

/** @internal The figures of one row from the milliseconds of every round, per model. */
export function rowOf(
  batch: number,
  phase: 'prefill' | 'decode',
  samples: readonly (readonly number[])[],
  prompt: number,
): BenchRow {
  const ms = samples.map(quartiles);
  const tokens = batch * (phase === 'prefill' ? prompt : 1);
  const [first, second] = samples;
  return {
    batch,
    phase,
    ms,
    tokensPerSecond: ms.map(({ median }) => (1000 * tokens) / median),
    ratio: first && second ? quartiles(second.map((each, i) => each / (first[i] as number))) : null,
  };
}
