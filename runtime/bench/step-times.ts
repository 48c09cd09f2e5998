/** The time of one decoded token of models that take turns, behind a context, in the runtime that will serve them. */
import { longestSequence } from '../quality/forced.js';
import { checkPlacement, measurePlacement } from '../run/placement.js';
import { hasCache } from '../run/steps.js';
import { loadRuntime } from '../session/ort.js';
import { placeOf, type SessionOptions } from '../session/session.js';
import { readSignature, type Signature } from '../signature/signature.js';
import type { Candidate } from '../verify/verify.js';
import { cachesOnGpu } from './bench.js';
import type { TurnRequest, TurnTimes } from './bench-worker.js';
import { quartiles } from './turns.js';
import { turnsOf, Workers } from './workers.js';

/** What is timed of each model, and how often. */
export interface TimingRequest {
  /** Positions in the KV caches when a token is decoded; fewer where a model has no room for so many. */
  readonly context: number;
  readonly batch: number;
  /** Turns of each model; one more warms up. */
  readonly rounds: number;
  /** Whether a prompt of `context` tokens is timed in every turn, too. */
  readonly prompt: boolean;
  readonly onTurn?: ((done: number, total: number) => void) | undefined;
}

/** Seconds of one model, a sample a round. */
export interface StepSamples {
  /** Of one decoded token (the median of those of the turn). A model without a KV cache runs one token, or the length that it fixes. */
  readonly token: readonly number[];
  /** Of the prompt; empty where none was asked for. */
  readonly prompt: readonly number[];
}

/** Times models in some runtime. */
export interface StepTimer {
  /** What measures, for people: the runtime, its version, the provider. */
  readonly runtime: string;
  /** Samples of each model; those of one round are neighbours in time. @throws Diagnostic OF_RUNTIME and others. */
  time(
    models: readonly Pick<Candidate, 'location' | 'model'>[],
    request: TimingRequest,
  ): Promise<readonly StepSamples[]>;
}

/** Most tokens decoded in a turn, and milliseconds after which they are enough. The first one warms up. */
export const TURN_TOKENS = 9;
export const TURN_MS = 300;

/** A timer by onnxruntime-node. @throws Diagnostic OF_NO_RUNTIME. */
export async function nodeTimer(options: SessionOptions = {}): Promise<StepTimer> {
  const { version } = await loadRuntime();
  const provider = options.provider ?? 'cpu';
  return {
    runtime: `onnxruntime-node ${version} on ${provider}`,
    time: async (models, request) => {
      if (provider !== 'cpu') {
        for (const { location, model } of models.slice(0, 1)) {
          if (typeof location !== 'string') continue;
          checkPlacement(await measurePlacement(location, model, options), placeOf(location));
        }
      }
      const signatures = models.map(({ model }) => readSignature(model));
      const turns = signatures.map((signature) => turnOf(signature, request));
      const workers = await Workers.start(
        models.map(({ location }, index) => {
          const signature = signatures[index] as Signature;
          return { location, signature, options: { ...options, ...cachesOnGpu(options, signature) } };
        }),
      );
      try {
        const times: TurnTimes[][] = models.map(() => []);
        for (let round = 0; round <= request.rounds; round++) {
          for (const index of turnsOf(round, models.length)) {
            request.onTurn?.(times.flat().length, (request.rounds + 1) * models.length);
            times[index]?.push(await workers.turn(index, turns[index] as TurnRequest));
          }
        }
        return times.map((all) => samplesOf(all.slice(1), request.prompt));
      } finally {
        workers.end();
      }
    },
  };
}

/** A prompt and tokens behind it; the one run that there is of a model that cannot decode one token. */
function turnOf(signature: Signature, { context, batch, prompt }: TimingRequest): TurnRequest {
  const rows = signature.batch ?? batch;
  if (!hasCache(signature) || (signature.sequence ?? 1) !== 1) {
    return { batch: rows, prompt: signature.sequence ?? 1, decode: 0 };
  }
  const room = Math.max(1, Math.min(context, longestSequence(signature) - TURN_TOKENS));
  // A model that takes one token at a time has no longer prompt.
  const length = prompt && signature.sequence === 1 ? 1 : room;
  return { batch: rows, prompt: length, decode: TURN_TOKENS, made: !prompt, mostMs: TURN_MS };
}

function samplesOf(turns: readonly TurnTimes[], prompt: boolean): StepSamples {
  return {
    token: turns.map(({ prefillMs, decodeMs }) =>
      decodeMs.length > 0 ? quartiles(decodeMs.slice(1)).median / 1000 : (prefillMs ?? Number.NaN) / 1000,
    ),
    prompt: prompt ? turns.map(({ prefillMs }) => (prefillMs ?? Number.NaN) / 1000) : [],
  };
}
