/** What `onnx-fuse in out` does, without a command line: open, transform, write aside, check, commit. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { pipeline as pump } from 'node:stream/promises';
import { Diagnostic, type Model, modelSources, openModel, stageModel } from '../../ir/index.js';
import {
  type AnyPass,
  extendRegistry,
  type FuseOptions,
  fuseSteps,
  type PipelineResult,
  parsePipeline,
  printPipeline,
  registry,
  runPipeline,
} from '../../passes/index.js';
import { isRuntimeAvailable, loadRuntime } from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { packageVersion } from '../basics/package-version.js';
import { silent, type Talk } from '../basics/progress.js';
import { checkFused, failureOf, unchecked } from './check.js';
import { kvBytesPerToken, layerFacts, parameterCount } from './figures.js';
import type { FileFact, Report } from './report.js';

export interface FuseRequest extends FuseOptions {
  readonly input: string;
  readonly output: string;
  /** Replaces the default pipeline; the empty text copies the model. */
  readonly pipeline?: string | undefined;
  /** Passes beside ours that the pipeline may name. */
  readonly passes?: readonly AnyPass[];
  /** Check with onnxruntime before committing; true by default. */
  readonly verify?: boolean;
  /** Commit even when the check failed. */
  readonly force?: boolean;
  /** Do everything except writing. */
  readonly dryRun?: boolean;
  /** Fail when nothing was fused. */
  readonly requireFusion?: boolean;
  /** Force weights into a data file (true) or into the model file (false); by default as the input has them. */
  readonly external?: boolean | undefined;
  /** Largest data file in bytes; a tensor that is larger has one of its own. */
  readonly maxShardBytes?: number | undefined;
  /** Hash input and output for the report. */
  readonly hash?: boolean;
  readonly talk?: Talk;
}

/**
 * Fuses a model file into another. Nothing appears at the output unless everything succeeded.
 * @throws Diagnostic for everything a user can mend.
 */
export async function fuse(request: FuseRequest): Promise<Report> {
  const talk = request.talk ?? silent;
  const seconds: Record<string, number> = {};
  const timed = async <T>(phase: string, work: () => T | Promise<T>): Promise<T> => {
    const began = performance.now();
    try {
      return await work();
    } finally {
      seconds[phase] = (performance.now() - began) / 1000;
      talk.done();
    }
  };

  const known = extendRegistry(registry, request.passes ?? [], '');
  const wanted = request.pipeline === undefined ? fuseSteps(request) : parsePipeline(request.pipeline, known);
  const original = await timed('read', () => openModel(request.input));
  const sources = modelSources(original);
  const before = factsOf(original);
  let model = original;
  let steps = wanted;
  const result = await timed('transform', () => runPipeline(model, wanted));
  const { outcome } = result;
  const didNothing = [
    outcome.fusedRuns,
    outcome.removedAttention,
    outcome.removedFfn,
    outcome.renamedCaches,
    outcome.parallelBlocks,
  ].every((list) => list.length === 0);
  if (outcome.fusedRuns.length === 0 && request.requireFusion) throw apiErrors.nothingFused(whyNothing(result));
  if (didNothing && request.pipeline === undefined) {
    // Nothing to fuse: the output is the input, not the input less what a clean-up would take.
    steps = [];
    model = openModel(request.input);
  }
  const after = factsOf(model);

  let checks = unchecked(whySkipped(request, didNothing));
  let written: FileFact[] = [];
  let bytes = { read: 0, written: 0 };
  if (!request.dryRun) {
    const options = {
      external: request.external,
      maxShardBytes: request.maxShardBytes,
      hash: request.hash,
      onProgress: (done: number, total: number) => talk.progress('writing', done, total, 'bytes'),
    };
    const staged = await timed('write', () => stageModel(model, request.output, options));
    try {
      if (checks.skipped === null) {
        const fused = { location: staged.headerPath, model };
        const renamed = new Map(outcome.renamedCaches.map(({ from, to }) => [to, from]));
        const merged = outcome.mergedAttention.flatMap(({ caches }) => caches);
        const check = { input: request.input, fused, steps: wanted, renamed, merged, talk };
        checks = await timed('check', () => checkFused(check)).catch((error: unknown) => {
          // A fused model that does not even run is a failed check, and `force` overrides those.
          if (!request.force || !(error instanceof Diagnostic)) throw error;
          return { ...checks, skipped: `the check failed: ${error.message}` };
        });
        const failure = failureOf(checks);
        if (failure && !request.force) throw failure;
      }
      await timed('commit', () => staged.commit());
    } catch (error) {
      await staged.discard();
      throw error;
    }
    bytes = { read: staged.bytesRead, written: staged.bytesWritten };
    const folder = dirname(resolve(request.output));
    written = staged.files.map(({ path, bytes, sha256 }) => ({ path: join(folder, basename(path)), bytes, sha256 }));
  }

  return {
    input: await timed('hash', () =>
      Promise.all(sources.map((file) => fileFact(file.path, file.size, request.hash === true))),
    ),
    output: written,
    options: optionsOf(request),
    pipeline: printPipeline(steps),
    removedAttention: outcome.removedAttention,
    removedFfn: outcome.removedFfn,
    renamedCaches: outcome.renamedCaches,
    parallelBlocks: outcome.parallelBlocks,
    parallelRuns: outcome.parallelRuns,
    runs: outcome.fusedRuns,
    mergedAttention: outcome.mergedAttention,
    requantized: outcome.requantized,
    original: layerFacts(result.before?.layers ?? []),
    checks,
    left: leftOf(result),
    parameters: { before: before.parameters, after: after.parameters },
    kvBytesPerToken: { before: before.kv, after: after.kv },
    nodes: { before: before.nodes, after: after.nodes },
    layers: result.before?.layers.length ?? 0,
    bytesRead: bytes.read,
    bytesWritten: bytes.written,
    seconds,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    versions: await versions(),
    written: !request.dryRun,
    dryRun: request.dryRun === true,
  };
}

interface Facts {
  readonly parameters: number;
  readonly kv: number | null;
  readonly nodes: number;
}

function factsOf(model: Model): Facts {
  return { parameters: parameterCount(model), kv: kvBytesPerToken(model), nodes: model.graph.nodeCount };
}

function whySkipped(request: FuseRequest, didNothing: boolean): string | null {
  if (request.dryRun) return 'a dry run writes nothing that could be checked';
  if (request.verify === false) return 'switched off (option verify)';
  return didNothing && !request.pipeline ? 'the model is an unchanged copy' : null;
}

/** Reasons for layers that are in no run: the last word any pass had on each. */
function leftOf(result: PipelineResult): Report['left'] {
  const fused = new Set(result.outcome.fusedRuns.flatMap((run) => run.layers));
  const reasons = new Map<string, string>();
  for (const { kind, layer, message } of result.remarks) {
    if (kind === 'missed' && layer !== null && !fused.has(layer)) reasons.set(layer, message);
  }
  return [...reasons].map(([layer, reason]) => ({ layer, reason }));
}

function whyNothing(result: PipelineResult): string {
  const [first] = leftOf(result);
  if (first) return `layer ${first.layer}: ${first.reason}`;
  return result.before?.reason ?? 'the pipeline fuses nothing';
}

function optionsOf(request: FuseRequest): Record<string, unknown> {
  const { talk: _talk, input: _input, output: _output, hash: _hash, passes = [], ...options } = request;
  const all = { ...options, passes: passes.length > 0 ? passes.map((pass) => pass.id) : undefined };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** Path, size and, when wanted, hash of a file. */
export async function fileFact(path: string, bytes: number, hash: boolean): Promise<FileFact> {
  if (!hash) return { path: resolve(path), bytes, sha256: null };
  const digest = createHash('sha256');
  await pump(createReadStream(path), digest);
  return { path: resolve(path), bytes, sha256: digest.digest('hex') };
}

async function versions(): Promise<Record<string, string>> {
  const found: Record<string, string> = { 'onnx-fuse': await packageVersion(), node: process.versions.node };
  if (await isRuntimeAvailable()) found['onnxruntime-node'] = (await loadRuntime()).version;
  return found;
}
