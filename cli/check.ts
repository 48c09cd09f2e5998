/** The two checks of a fused model: the algebra against the parallel graph, and the drift from the original. */
import { dirname } from 'node:path';
import { Diagnostic, errors, type Model, openModel, reasonOf, referenceBytes } from '../ir/index.js';
import { referenceSteps, runPipeline, type Step } from '../passes/index.js';
import {
  type Candidate,
  type Comparison,
  fitsInMemory,
  isRuntimeAvailable,
  toleranceFor,
  verifyPair,
} from '../runtime/index.js';
import type { AlgebraCheck, Drift, Report } from './report.js';
import type { Talk } from './talk.js';

export interface CheckRequest {
  /** The original file. */
  readonly input: string;
  /** The written, not yet committed result. */
  readonly fused: Candidate;
  readonly steps: readonly Step[];
  /** Outputs of `fused` by the names they had before the pipeline renamed them. */
  readonly renamed?: ReadonlyMap<string, string>;
  readonly talk: Talk;
}

/**
 * Runs both checks. A model that onnxruntime cannot run here (bf16 on a CPU, a missing operator) is not checked, and the
 * result says so; a fused model that fails where the original runs is a failed check.
 * @throws Diagnostic OF_CHECK_FAILED only through `failureOf`, never from here; OF_RUNTIME when the fused model alone fails.
 */
export async function checkFused(request: CheckRequest): Promise<Report['checks']> {
  const none = { algebra: null, drift: null, assumed: [] };
  if (!(await isRuntimeAvailable())) {
    return { ...none, skipped: 'onnxruntime-node is not installed (npm install onnxruntime-node)' };
  }
  const original = openModel(request.input);
  const memory = fitsInMemory(original);
  if (!memory.fits) {
    const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
    return {
      ...none,
      skipped: `running the model needs about ${gib(memory.need)} GiB of memory, ${gib(memory.have)} are free`,
    };
  }
  const source: Candidate = { location: request.input, model: original };
  const tick = (phase: string) => (done: number, total: number) => request.talk.progress(phase, done, total);
  const reference = referenceOf(request);
  const failed = await whyOriginalFails(source, tick('running the original'));
  if (failed) return { ...none, skipped: `the original does not run here: ${failed}` };
  const names = request.renamed ? { renamed: request.renamed } : {};
  const algebra = await verifyPair(reference, request.fused, { ...names, onRun: tick('checking the algebra') });
  const drift = await verifyPair(source, request.fused, { ...names, onRun: tick('measuring the drift') });
  request.talk.done();
  return {
    algebra: algebraOf(algebra, reference.model),
    drift: driftOf(drift),
    skipped: null,
    assumed: algebra.assumed,
  };
}

/** The same pipeline with only the steps that change the function: what remains must be exact. */
function referenceOf({ input, steps }: CheckRequest): Candidate {
  const model = openModel(input);
  runPipeline(model, referenceSteps(steps));
  const folder = dirname(input);
  return { location: { bytes: referenceBytes(model, folder), folder }, model };
}

async function whyOriginalFails(
  source: Candidate,
  onRun: (done: number, total: number) => void,
): Promise<string | null> {
  try {
    await verifyPair(source, source, { batches: [1], tokens: [4, 4], seeds: [1], onRun });
    return null;
  } catch (error) {
    if (error instanceof Diagnostic) return reasonOf(error);
    throw error;
  }
}

function algebraOf(comparison: Comparison, model: Model): AlgebraCheck {
  const tolerance = toleranceFor(model);
  const { relative, absolute } = comparison.worst;
  return {
    maxRelative: relative,
    maxAbsolute: absolute,
    tolerance: tolerance.relative,
    precision: tolerance.precision,
    pass: relative <= tolerance.relative,
    positions: comparison.positions,
  };
}

export function driftOf(comparison: Comparison): Drift {
  const logits = comparison.runs.flatMap((run) => run.logits ?? []);
  const positions = logits.reduce((sum, run) => sum + run.positions, 0);
  const mean = (value: (run: (typeof logits)[number]) => number): number =>
    positions > 0 ? logits.reduce((sum, run) => sum + value(run) * run.positions, 0) / positions : 0;
  return {
    kl: mean((run) => run.meanKl),
    maxKl: Math.max(0, ...logits.map((run) => run.maxKl)),
    top1: positions > 0 ? mean((run) => run.top1) : 1,
    cosine: comparison.worst.cosine,
    positions,
    tokens: 'random',
  };
}

/** The error of a failed algebra check; null when it passed or was not made. */
export function failureOf(checks: Report['checks']): Diagnostic | null {
  const { algebra } = checks;
  if (!algebra || algebra.pass) return null;
  return errors.checkFailed(algebra.maxRelative.toExponential(2), String(algebra.tolerance));
}
