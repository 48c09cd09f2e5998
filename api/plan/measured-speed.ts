/** Speed as it is measured: of a changed model beside its original, in the runtime that will serve them. */

import { dirname } from 'node:path';
import { errors, type Model, openModel } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import {
  calibrate,
  type Device,
  findGenai,
  genaiTimer,
  nodeTimer,
  quartiles,
  type SessionOptions,
  type StepTimer,
  whyNotGenai,
} from '../../runtime/index.js';
import type { Talk } from '../basics/progress.js';
import { prepare } from '../fuse/prepared.js';

/** The runtimes that can measure. */
export type ServingRuntime = 'genai' | 'node';

/** Where and how a token is timed. */
export interface SpeedRequest extends Pick<SessionOptions, 'provider' | 'threads'> {
  /** By default onnxruntime-genai, where Python has it and the model lies in a folder of it, else onnxruntime-node. */
  readonly runtime?: ServingRuntime | undefined;
  /** Positions in the KV caches when a token is decoded; 2048 by default. */
  readonly context?: number | undefined;
  /** Sequences decoded together; 1 by default. */
  readonly batch?: number | undefined;
  /** Turns of each model; 7 by default. */
  readonly rounds?: number | undefined;
  /** Also time a prompt of `context` tokens, once a turn. */
  readonly prompt?: boolean | undefined;
  readonly talk?: Talk | undefined;
}

/** Medians of both models, and their ratio. */
export interface MeasuredSpeed {
  /** Seconds of one decoded token. */
  readonly original: number;
  readonly changed: number;
  /** How many times as fast the changed model is: the median of the ratios within a round, and the quarters around it. */
  readonly speedup: number;
  readonly quartiles: readonly [p25: number, p75: number];
  /** Seconds of the prompt; null where it was not asked for. */
  readonly prompt: { readonly original: number; readonly changed: number; readonly speedup: number } | null;
  /** What measured it, and behind how many tokens of how many sequences. */
  readonly runtime: string;
}

const CONTEXT = 2048;
const ROUNDS = 7;

/**
 * Times one token, and a prompt where it is asked for, of the model at `path` and of `changed`, which is made of it: in turns.
 * Weights that are computed and large are written to a temporary folder beside the original, as a check does.
 * @throws Diagnostic OF_NO_RUNTIME, OF_RUNTIME, OF_USAGE for a runtime that cannot, OF_WRITE.
 */
export async function measureSpeed(path: string, changed: Model, request: SpeedRequest = {}): Promise<MeasuredSpeed> {
  const { context = CONTEXT, batch = 1, rounds = ROUNDS, prompt = false, talk } = request;
  const timer = await timerFor(path, request);
  const other = await prepare(changed, dirname(path));
  try {
    const models = [{ location: path, model: openModel(path) }, other];
    const onTurn = (done: number, total: number): void => talk?.progress('measuring the speed', done, total);
    const [a, b] = await timer.time(models, { context, batch, rounds, prompt, onTurn });
    const ratio = ratioOf(a?.token ?? [], b?.token ?? []);
    const rows = batch === 1 ? 'one sequence' : `${batch} sequences`;
    return {
      original: quartiles(a?.token ?? []).median,
      changed: quartiles(b?.token ?? []).median,
      speedup: ratio.median,
      quartiles: [ratio.p25, ratio.p75],
      prompt: prompt
        ? {
            original: quartiles(a?.prompt ?? []).median,
            changed: quartiles(b?.prompt ?? []).median,
            speedup: ratioOf(a?.prompt ?? [], b?.prompt ?? []).median,
          }
        : null,
      runtime: `${timer.runtime}, ${rows} behind ${counted(context, 'token')}`,
    };
  } finally {
    talk?.done();
    await other.discard();
  }
}

function ratioOf(original: readonly number[], changed: readonly number[]) {
  return quartiles(original.map((seconds, i) => seconds / (changed[i] as number)));
}

/** `calibrate` in the runtime that will serve the model at `path`; `prompts`: of prompts, too. @throws Diagnostic as `measureSpeed`. */
export async function calibrateFor(path: string, request: SpeedRequest = {}, prompts = false): Promise<Device> {
  const { context, batch, rounds, provider, threads, talk } = request;
  const onTurn = (done: number, total: number): void => talk?.progress('measuring this machine', done, total);
  onTurn(0, 1);
  const timer = await timerFor(path, request);
  try {
    return await calibrate(path, { context, batch, rounds, prompts, provider, threads, timer, onTurn });
  } finally {
    talk?.done();
  }
}

/** The Python that runs onnxruntime-genai. */
export function defaultPython(): string {
  return process.env['ONNX_FUSE_PYTHON'] || 'python3';
}

/**
 * What times the model at `path`: what was asked for, else onnxruntime-genai where it can, else onnxruntime-node.
 * @throws Diagnostic OF_USAGE when onnxruntime-genai was asked for and cannot, OF_NO_RUNTIME.
 */
export async function timerFor(path: string, request: SpeedRequest): Promise<StepTimer> {
  const { runtime, provider, threads } = request;
  const options = { provider, threads };
  if (runtime === 'node') return nodeTimer(options);
  const found = whyNotGenai(path) ?? (await findGenai(defaultPython()));
  if (typeof found !== 'string') return genaiTimer(path, found, options);
  if (runtime === undefined) return nodeTimer(options);
  const remedy = 'time it in onnxruntime-node (option runtime), or name a Python that has it in ONNX_FUSE_PYTHON';
  throw errors.usage('option runtime', `onnxruntime-genai cannot time ${path}: ${found}`, remedy);
}
