/** The two checks of a fused model: the algebra against the parallel graph, and the drift from the original. */
import { dirname } from 'node:path';
import { Diagnostic, type Model, openModel, openModelBytes } from '../../ir/index.js';
import {
  concatAttention,
  type FactsByPass,
  factsOf,
  referenceSteps,
  renameKv,
  requantizeFfn,
  runPipeline,
  type Step,
} from '../../passes/index.js';
import {
  bounded,
  type Candidate,
  type Comparison,
  FLOAT_TWIN,
  FULL_ACCURACY_TWIN,
  fitsInMemory,
  isBounded,
  isRuntimeAvailable,
  KnownRuns,
  mayRoundActivations,
  probe,
  readSignature,
  runSteps,
  stepTokens,
  type Tolerance,
  type Twin,
  toleranceFor,
  usesBfloat16,
  type VerifyOptions,
  verifyPair,
} from '../../runtime/index.js';
import { sizeText } from '../basics/byte-size.js';
import { apiErrors } from '../basics/errors.js';
import type { Talk } from '../basics/progress.js';
import { type Prepared, prepare } from './prepared.js';
import { type AlgebraCheck, type Drift, type Report, type Requantization, unchecked } from './report.js';

/** What is checked against what. */
export interface CheckRequest {
  /** The original file. */
  readonly input: string;
  /** The written, not yet committed result. */
  readonly fused: Candidate;
  readonly steps: readonly Step[];
  /** What the steps did. */
  readonly facts: FactsByPass;
  readonly talk: Talk;
  /** Bytes of memory that running may take; what is free by default. A model that needs more is run in pieces. */
  readonly memory?: number;
}

/**
 * Runs both checks. A model that is larger than memory is run in pieces, on fewer tokens. A bfloat16 model that onnxruntime has no kernels for is checked through fp32 twins of both sides. A
 * model that cannot run here at all (a missing operator) is not checked, and the result says so; a fused model that fails
 * where the original runs is a failed check.
 * @throws Diagnostic OF_CHECK_FAILED only through `failureOf`, never from here; OF_RUNTIME when the fused model alone fails.
 */
export async function checkFused(request: CheckRequest): Promise<Report['checks']> {
  if (!(await isRuntimeAvailable())) {
    return unchecked('onnxruntime-node is not installed (npm install onnxruntime-node)');
  }
  const original = openModel(request.input);
  const source = fitting({ location: request.input, model: original }, request.memory);
  const failed = await whyItFails(source, request.talk);
  if (failed !== null && !usesBfloat16(original)) return unchecked(failed);
  const stores: Prepared[] = [];
  try {
    const twin = twinFor(original, failed);
    return await runChecks(request, source, twin, stores);
  } finally {
    request.talk.done();
    for (const store of stores) await store.discard();
  }
}

/** The form in which a model is checked; null where it is checked as it is. `failed`: why it does not run. */
export function twinFor(model: Model, failed: string | null): Twin | null {
  if (failed !== null) return FLOAT_TWIN;
  return mayRoundActivations(model) ? FULL_ACCURACY_TWIN : null;
}

/** The tolerance of a comparison of twins. Widened weights were rounded in the type that the model itself computes in. */
export function toleranceIn(twin: Twin | null, model: Model): Tolerance {
  return toleranceFor(twin === FULL_ACCURACY_TWIN ? twin.make(model) : model);
}

/** Both checks: of the models themselves, or of twins. All that is made is in `stores`. */
async function runChecks(
  request: CheckRequest,
  source: Candidate,
  twin: Twin | null,
  stores: Prepared[],
): Promise<Report['checks']> {
  const { input, talk } = request;
  const { location } = request.fused;
  const folder = typeof location === 'string' ? dirname(location) : location.folder;
  const make = async (model: Model): Promise<Candidate> => {
    const made = await prepare(twin?.make(model) ?? model, folder);
    stores.push(made);
    return fitting(made, request.memory);
  };
  const names = namesOf(request);
  // The fused model is held against the original and against the reference: it is loaded and run once.
  const known = new KnownRuns();
  const compare = (a: Candidate, b: Candidate, phase: string): Promise<Comparison> =>
    verifyPair(a, b, { ...names, ...few(a, b), known, onRun: (done, total) => talk.progress(phase, done, total) });

  const original = twin ? await make(openModel(input)) : source;
  if (twin) {
    const failed = await whyItFails(original, request.talk);
    if (failed !== null) return unchecked(`${failed} (${twin.note})`);
  }
  // What is judged is what was written: its twin is made from the staged file.
  const fused = twin ? await make(reopened(location)) : fitting(request.fused, request.memory);
  const drift = await compare(original, fused, 'measuring the drift');
  await stores[0]?.discard();
  const model = openModel(input);
  const steps = referenceSteps(request.steps);
  const made = runPipeline(model, steps);
  const tolerance = toleranceIn(twin, model);
  const reference = await make(model);
  const algebra = await compare(reference, fused, 'checking the algebra');
  let requantization: Requantization | null = null;
  if (factsOf(made, requantizeFfn).length > 0) {
    const exact = openModel(input);
    runPipeline(
      exact,
      steps.filter(({ pass }) => pass.id !== requantizeFfn.id),
    );
    const onRun = (done: number, total: number) => talk.progress('measuring the requantisation', done, total);
    const plain = await make(exact);
    const { worst } = await verifyPair(plain, reference, { ...few(plain, reference), onRun });
    requantization = { maxRelative: worst.relative, maxAbsolute: worst.absolute };
  }
  return {
    algebra: algebraOf(algebra, tolerance, [twin?.note, ...inPieces(original, fused, reference)]),
    requantization,
    drift: driftOf(drift),
    skipped: null,
    assumed: algebra.assumed,
  };
}

/** How models that are larger than memory were run; nothing where none is. */
export function inPieces(...candidates: readonly Candidate[]): string[] {
  const sizes = candidates.filter(isBounded).map(({ pieceBytes }) => pieceBytes);
  return sizes.length > 0 ? [`run in pieces of at most ${sizeText(Math.max(...sizes))} of weights`] : [];
}

/** A model in pieces is read from disk for every run: one row of few tokens, and a decode step. */
export function few(...pair: readonly Candidate[]): Pick<VerifyOptions, 'batches' | 'tokens'> {
  return pair.some(isBounded) ? { batches: [1], tokens: [8, 8] } : {};
}

/** Which outputs were called otherwise before, and which caches of the original are one now. */
export function namesOf(result: { readonly facts: FactsByPass }): Required<Pick<VerifyOptions, 'renamed' | 'merged'>> {
  return {
    renamed: new Map(factsOf(result, renameKv).map(({ from, to }) => [to, from])),
    merged: factsOf(result, concatAttention).flatMap(({ caches }) => caches),
  };
}

/** The model at a place, read once more. */
export function reopened(location: Candidate['location']): Model {
  return typeof location === 'string' ? openModel(location) : openModelBytes(location.bytes, location.folder);
}

/** What is run of a model: itself, or its pieces where it is larger than `memory` bytes, or than what is free. */
export function fitting(candidate: Candidate, memory?: number): Candidate {
  return bounded(candidate, () => reopened(candidate.location), memory);
}

/** Why running a model would need more memory than is free; null when it would not. */
export function lackOfMemory(model: Model): string | null {
  const memory = fitsInMemory(model);
  if (memory.fits) return null;
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
  return `running the model needs about ${gib(memory.need)} GiB of memory, ${gib(memory.have)} are free`;
}

/** Why a model does not run here; null when it does. */
export async function whyItFails(
  source: Candidate,
  talk: Talk,
  options: Pick<VerifyOptions, 'provider' | 'allowFallback'> = {},
): Promise<string | null> {
  if (typeof source.location === 'string' && !source.open) {
    const { reason } = await probe(source.location, source.model, options);
    return reason && `the original does not run here: ${reason}`;
  }
  // What was made of a model that has run, in memory, is run here.
  const onRun = (done: number, total: number) => talk.progress('running the original', done, total);
  try {
    if (source.open) await prefill(source);
    else await verifyPair(source, source, { ...options, batches: [1], tokens: [4, 4], seeds: [1], onRun });
    return null;
  } catch (error) {
    if (error instanceof Diagnostic) return `the original does not run here: ${error.text}`;
    throw error;
  }
}

/** One short run of a model in pieces. */
async function prefill({ model, open }: Candidate): Promise<void> {
  const signature = readSignature(model);
  const session = await open?.({ optimization: 'disabled' });
  if (session) await runSteps(session, signature, { tokenIds: stepTokens(signature, 1, 4, 1), decode: false });
}

function algebraOf(
  comparison: Comparison,
  tolerance: Tolerance,
  notes: readonly (string | null | undefined)[],
): AlgebraCheck {
  const { relative, absolute } = comparison.worst;
  const said = notes.filter((note) => note != null).join(', ');
  return {
    maxRelative: relative,
    maxAbsolute: absolute,
    tolerance: tolerance.relative,
    precision: said ? `${tolerance.precision} (${said})` : tolerance.precision,
    pass: relative <= tolerance.relative,
    positions: comparison.positions,
  };
}

/** The drift that a comparison on random tokens shows. */
export function driftOf(comparison: Comparison): Drift {
  const logits = comparison.runs.flatMap((run) => run.logits ?? []);
  const positions = logits.reduce((sum, run) => sum + run.positions, 0);
  const mean = (value: (run: (typeof logits)[number]) => number): number | null =>
    positions > 0 ? logits.reduce((sum, run) => sum + value(run) * run.positions, 0) / positions : null;
  return {
    kl: mean((run) => run.meanKl),
    maxKl: positions > 0 ? Math.max(0, ...logits.map((run) => run.maxKl)) : null,
    top1: mean((run) => run.top1),
    cosine: comparison.worst.cosine,
    positions,
    tokens: 'random',
  };
}

/** The error of a failed algebra check; null when it passed or was not made. */
export function failureOf(checks: Report['checks']): Diagnostic | null {
  const { algebra } = checks;
  if (!algebra || algebra.pass) return null;
  return apiErrors.checkFailed('algebra', algebra.maxRelative.toExponential(2), String(algebra.tolerance));
}
