/** `bench`: models timed against each other. */
import { cpus } from 'node:os';
import { errors, openModel } from '../../ir/index.js';
import {
  type BenchResult,
  loadRuntime,
  measureBandwidth,
  type Provider,
  runBench,
  type SessionOptions,
} from '../../runtime/index.js';
import { checkOptions, checkType } from '../basics/options.js';
import { silent, type Talk } from '../basics/progress.js';
import { writeJson } from '../basics/small-file.js';
import { checkTarget } from '../basics/targets.js';
import { modelFile } from '../folder/model-folder.js';
import { type EvidenceHead, withHead } from '../fuse/evidence.js';
import { calibrateFor, type ServingRuntime } from '../plan/measured-speed.js';
import { noteFallback } from '../verify/providers.js';

/** How models are timed. */
export interface BenchmarkRequest {
  /** Sequences that run together, one measurement for each number; [1] by default. */
  readonly batch?: readonly number[] | undefined;
  /** Tokens of the prompt; 128 by default. */
  readonly prompt?: number | undefined;
  /** Tokens that are decoded after it, one by one; 32 by default. */
  readonly decode?: number | undefined;
  /** Turns of each model that count; 7 by default. */
  readonly rounds?: number | undefined;
  /** Where models run; `cpu` by default. */
  readonly provider?: Provider | undefined;
  /** Only warn when the CPU does the work of another provider; false by default: OF_PROVIDER_FALLBACK. */
  readonly allowFallback?: boolean | undefined;
  /** Threads of each model; as onnxruntime chooses by default. */
  readonly threads?: number | undefined;
  /** A file that the cost model of this machine is written to, for `device` of a plan; none by default. */
  readonly calibrate?: string | undefined;
  /** With `calibrate`: also what a prompt costs, for plans that are optimized for prompts; false by default. */
  readonly prompts?: boolean | undefined;
  /** With `calibrate`: what times tokens; `genai` where Python has it, else `node`, by default. */
  readonly runtime?: ServingRuntime | undefined;
  /** With `calibrate`: tokens that a timed token stands behind; 2048 by default. */
  readonly context?: number | undefined;
  /** Where notes and progress go; nowhere by default. */
  readonly talk?: Talk | undefined;
}

/** Times of one or two models, and what they were measured on. */
export interface Benchmark extends BenchResult, EvidenceHead<'benchmark'> {
  readonly machine: string;
  readonly provider: string;
  /** Bytes of weights per second that a MatMul of one row gets through here. */
  readonly bytesPerSecond: number;
}

/**
 * Times one model, or two that take turns, each in a process of its own: what `onnx-fuse bench` does.
 *
 * @param models the original and, where there are two, the changed one: paths of .onnx files, or of folders with one
 * @throws Diagnostic OF_NO_RUNTIME, OF_NO_PROVIDER, OF_PROVIDER_FALLBACK, OF_RUNTIME, OF_CANNOT_FEED, OF_USAGE, OF_WRITE
 */
export async function bench(
  models: readonly [a: string, b?: string],
  request: BenchmarkRequest = {},
): Promise<Benchmark> {
  const given = Array.isArray(models) ? models.filter((each) => each !== undefined) : [];
  checkType('models', Array.isArray(models) ? given : models, 'string[]');
  checkOptions('BenchmarkRequest', request);
  const { provider = 'cpu', threads, calibrate, runtime, talk = silent } = request;
  const options: SessionOptions = { provider, threads };
  const batches = (request.batch ?? [1]).map((each) => countOf('option batch', each));
  const paths = given.map(modelFile);
  checkTarget(calibrate, paths);
  const opened = paths.map((path) => ({ path, model: openModel(path) }));
  const counts = {
    prompt: countOf('option prompt', request.prompt ?? 128),
    decode: countOf('option decode', request.decode ?? 32),
    rounds: countOf('option rounds', request.rounds ?? 7),
  };
  const context = countOf('option context', request.context ?? 2048);
  const bytesPerSecond = await measureBandwidth(options);
  const result = await runBench({
    models: opened,
    options,
    allowFallback: request.allowFallback ?? false,
    batches,
    ...counts,
    onTurn: (done, total) => talk.progress('taking turns', done, total),
  });
  talk.done();
  for (const { path, placement } of result.models) if (placement) noteFallback(placement, path, talk);
  const { version } = await loadRuntime();
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, Node ${process.versions.node}, onnxruntime-node ${version}`;
  if (calibrate !== undefined) {
    const speed = { ...options, runtime, context, batch: batches[0], talk };
    await writeJson(calibrate, await calibrateFor(paths[0] as string, speed, request.prompts));
  }
  return withHead('benchmark', paths, { machine, provider, bytesPerSecond, ...result });
}

function countOf(place: string, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw errors.usage(place, `'${value}' is no count`, 'give a whole number from 1 on');
}
