/** Holds one model against another: the same inputs through both, one after the other. */

import { isDeepStrictEqual } from 'node:util';
import type { Model } from '../../ir/core.js';
import { Diagnostic, reasonOf } from '../../ir/diagnostic.js';
import type { DataType } from '../../ir/type.js';
import { counted } from '../../ir/visible.js';
import type { GroupSession } from '../ranks/group.js';
import { checkPlacement, measurePlacement, type Placement } from '../run/placement.js';
import { checkClaim } from '../run/room.js';
import { hasCache, runSteps, type StepResult, type StepsResult, stepTokens } from '../run/steps.js';
import { runtimeErrors } from '../session/errors.js';
import { weightBytes } from '../session/memory.js';
import {
  type ModelLocation,
  type OptimizationLevel,
  placeOf,
  type SessionOptions,
  withSession,
} from '../session/session.js';
import { joinAlong, type TensorMap, truncate } from '../session/tensor.js';
import { readSignature, type Signature } from '../signature/signature.js';
import { compareOutputs, type OutputComparison, type OutputDifference } from './compare.js';

/** A model to run, with its graph to read the signature from. */
export interface Candidate {
  readonly location: ModelLocation;
  readonly model: Model;
  /** Opens it where it is no single file: the ranks of a tensor-parallel group. */
  readonly open?: (options: SessionOptions) => Promise<GroupSession>;
}

/** What is run to compare two models. */
export interface VerifyOptions extends Pick<SessionOptions, 'provider' | 'deviceId' | 'threads' | 'noFallback'> {
  /** Go on where the CPU does the work of another provider; false by default: OF_PROVIDER_FALLBACK. */
  readonly allowFallback?: boolean;
  /** 'disabled' by default: what is written is what is compared. */
  readonly optimization?: OptimizationLevel;
  /** Tokens of the short prefill, 6 by default, and of the long one, 16 by default. */
  readonly tokens?: readonly [short: number, long: number];
  /** Seeds of the random tokens; 1 and 2 by default. */
  readonly seeds?: readonly number[];
  /** Rows where the model leaves them open; 1 and 2 by default. */
  readonly batches?: readonly number[];
  /** Outputs of the candidate that have another name there than in the reference: candidate's name -> reference's; none by default. */
  readonly renamed?: ReadonlyMap<string, string>;
  /**
   * Caches that are one in the candidate: outputs of the reference that make it up, one after another along `axis`. It
   * has the name of the first of them. None by default.
   */
  readonly merged?: readonly { readonly members: readonly string[]; readonly axis: number }[];
  /** What candidates gave in earlier comparisons, and where what this one gives is kept. */
  readonly known?: KnownRuns;
  /** Called before each run, for progress; nothing by default. */
  readonly onRun?: (done: number, total: number) => void;
}

/** The largest differences over all outputs and runs. */
export interface Worst {
  readonly relative: number;
  readonly absolute: number;
  readonly cosine: number;
  /** Largest KL(reference || candidate) of a position, in nats; 0 without logits. */
  readonly kl: number;
  /** Smallest agreement on the most likely token among the runs; 1 without logits. */
  readonly top1: number;
}

/** One run of both models. */
export interface CaseComparison extends OutputComparison {
  readonly step: 'prefill' | 'decode';
  readonly batch: number;
  readonly tokens: number;
  readonly pastLength: number;
  readonly seed: number;
}

/** How two models differ. */
export interface Comparison {
  readonly worst: Worst;
  readonly prefill: Worst;
  /** null when the models have no decode step (fixed length). */
  readonly decode: Worst | null;
  /** The worst of each output over all runs. */
  readonly perOutput: readonly OutputDifference[];
  /** Next-token distributions compared. */
  readonly positions: number;
  readonly runs: readonly CaseComparison[];
  readonly onlyReference: readonly string[];
  readonly onlyCandidate: readonly string[];
  /** Whether the decode steps continued a cache (of the reference, of the candidate). */
  readonly cached: readonly [reference: boolean, candidate: boolean];
  /** Inputs that the reference itself cannot run (a batch of two, say), with the reason; there are others that it can. */
  readonly skipped: readonly string[];
  /** Elements that are NaN or infinite: in the reference, and in the candidate. */
  readonly nonFinite: readonly [reference: number, candidate: number];
  /** Inputs that got arbitrary values because their purpose is not known. */
  readonly assumed: readonly string[];
  /** Where the nodes of each ran; null on the CPU. */
  readonly placements: readonly [reference: Placement, candidate: Placement] | null;
  /** The level both ran at: 'basic' where a model does not load at 'disabled'. */
  readonly optimizationLevel: OptimizationLevel;
}

interface Case {
  readonly seed: number;
  readonly stepwise?: boolean;
  readonly tokenIds: readonly (readonly number[])[];
}

/**
 * Runs `reference` and `candidate` on the same inputs: prefills of two lengths and a decode step after each, with
 * different seeds and batch sizes. One session is open at a time.
 * @throws Diagnostic OF_NO_RUNTIME, OF_NO_PROVIDER, OF_PROVIDER_FALLBACK, OF_RUNTIME, OF_CANNOT_FEED or OF_NOT_COMPARABLE.
 */
export async function verifyPair(
  reference: Candidate,
  candidate: Candidate,
  options: VerifyOptions = {},
): Promise<Comparison> {
  const signatures = [readSignature(reference.model), readSignature(candidate.model)] as const;
  for (const [i, { location }] of [reference, candidate].entries()) {
    checkClaim(signatures[i] as Signature, placeOf(location));
  }
  const wanted = casesOf(signatures[0], options);
  let done = 0;
  const tick = () => options.onRun?.(done++, 2 * wanted.length);
  const level = options.optimization ?? 'disabled';
  const placements = await placementsOf([reference, candidate], level, options);
  let left = await runAll(reference, signatures[0], wanted, level, options, tick, true);
  const cases = left.cases;
  const right =
    options.known?.recall(candidate, cases, left.level) ??
    (await runAll(candidate, signatures[1], cases, left.level, options, tick, false));
  options.known?.keep(candidate, left.level, right);
  // Both at the same level, or optimisation itself would count as a difference.
  if (right.level !== left.level) {
    left = {
      ...(await runAll(reference, signatures[0], cases, right.level, options, () => {}, false)),
      skipped: left.skipped,
    };
  }
  const summary = summarise(
    signatures[0],
    options.merged ? joined(left, options.merged) : left,
    options.renamed ? underNames(right, options.renamed) : right,
  );
  return { ...summary, placements };
}

async function placementsOf(
  pair: readonly [Candidate, Candidate],
  optimization: OptimizationLevel,
  options: VerifyOptions,
): Promise<Comparison['placements']> {
  if ((options.provider ?? 'cpu') === 'cpu') return null;
  const placed = async ({ location, model }: Candidate): Promise<Placement> => {
    const placement = await measurePlacement(location, model, { ...sessionOptions(options), optimization });
    if (!options.allowFallback) checkPlacement(placement, placeOf(location));
    return placement;
  };
  return [await placed(pair[0]), await placed(pair[1])];
}

function sessionOptions({ provider, deviceId, threads, noFallback }: VerifyOptions): SessionOptions {
  return { provider, deviceId, threads, noFallback };
}

/** The same runs with the outputs changed. */
function withOutputs(runs: Runs, change: (outputs: TensorMap) => TensorMap): Runs {
  const results = runs.results.map((result) => ({
    ...result,
    steps: result.steps.map((step) => ({ ...step, outputs: change(step.outputs) })),
  }));
  return { ...runs, results };
}

/** The same runs with caches that the candidate has in one piece in one piece. */
function joined(runs: Runs, merged: NonNullable<VerifyOptions['merged']>): Runs {
  return withOutputs(runs, (outputs) => {
    const all = new Map(outputs);
    for (const { members, axis } of merged) {
      const tensors = members.map((name) => outputs.get(name));
      // Inputs are among them, and outputs that another step took away.
      if (!tensors.every((tensor) => tensor !== undefined)) continue;
      for (const name of members.slice(1)) all.delete(name);
      all.set(members[0] as string, joinAlong(tensors, axis));
    }
    return all;
  });
}

/** The same runs with outputs under the names that the reference has for them. */
function underNames(runs: Runs, names: ReadonlyMap<string, string>): Runs {
  return withOutputs(
    runs,
    (outputs) => new Map([...outputs].map(([name, tensor]) => [names.get(name) ?? name, tensor])),
  );
}

function casesOf(signature: Signature, options: VerifyOptions): Case[] {
  const [short, long] = options.tokens ?? [6, 16];
  const [first = 1, second = first + 1] = options.seeds ?? [1, 2];
  const batches = signature.batch === null ? (options.batches ?? [1, 2]) : [signature.batch];
  const cases = batches.map((batch, i) => ({ batch, tokens: short, seed: i === 0 ? first : second }));
  cases.push({ batch: batches[0] ?? 1, tokens: long, seed: second });
  for (const seed of options.seeds?.slice(2) ?? []) cases.push({ batch: batches[0] ?? 1, tokens: long, seed });
  return cases.map(({ batch, tokens, seed }) => ({ seed, tokenIds: stepTokens(signature, batch, tokens, seed) }));
}

interface Runs {
  /** The cases that ran, in order, and how. */
  readonly cases: readonly Case[];
  readonly results: readonly StepsResult[];
  readonly skipped: readonly string[];
  readonly level: OptimizationLevel;
}

/** What candidates gave, so that one that is compared with several references is loaded once. */
export class KnownRuns {
  readonly #runs = new Map<Candidate, { readonly wanted: OptimizationLevel; readonly runs: Runs }>();

  /** What the candidate gave when it was asked the same at the same level; null when it was not. */
  recall(candidate: Candidate, cases: readonly Case[], level: OptimizationLevel): Runs | null {
    const known = this.#runs.get(candidate);
    return known && known.wanted === level && isDeepStrictEqual(known.runs.cases, cases) ? known.runs : null;
  }

  keep(candidate: Candidate, wanted: OptimizationLevel, runs: Runs): void {
    this.#runs.set(candidate, { wanted, runs });
  }
}

/**
 * Runs every case. A `forgiving` run leaves out those that fail, unless all do: some exports cannot run a batch of two,
 * or no more than one token at a time, and are no less worth comparing for it.
 */
function runAll(
  candidate: Candidate,
  signature: Signature,
  cases: readonly Case[],
  optimization: OptimizationLevel,
  options: VerifyOptions,
  tick: () => void,
  forgiving: boolean,
): Promise<Runs> {
  const session = { ...sessionOptions(options), optimization, weightBytes: weightBytes(candidate.model) };
  return withCandidate(candidate, session, async (open) => {
    const ran: Case[] = [];
    const results: StepsResult[] = [];
    const skipped: string[] = [];
    let failure: unknown;
    for (const request of cases) {
      tick();
      const ways = forgiving && hasCache(signature) ? [request, { ...request, stepwise: true }] : [request];
      let reason: unknown;
      for (const way of ways) {
        try {
          results.push(await runSteps(open, signature, way));
          ran.push(way);
          reason = undefined;
          break;
        } catch (error) {
          if (!forgiving || !runtimeErrors.runtimeFailed.is(error)) throw error;
          reason ??= error;
        }
      }
      if (!reason) continue;
      failure ??= reason;
      const { tokenIds } = request;
      skipped.push(`batch ${tokenIds.length}, ${counted(tokenIds[0]?.length ?? 0, 'token')}: ${causeOf(reason)}`);
    }
    if (ran.length === 0) throw failure;
    return { cases: ran, results, skipped, level: open.optimizationLevel };
  });
}

async function withCandidate<T>(
  { location, open }: Candidate,
  options: SessionOptions,
  body: (session: GroupSession) => Promise<T>,
): Promise<T> {
  if (!open) return withSession(location, options, body);
  const session = await open(options);
  try {
    return await body(session);
  } finally {
    await session.release();
  }
}

/** The cause alone: code, place and remedy say nothing new here. */
function causeOf(error: unknown): string {
  return reasonOf(error instanceof Diagnostic ? error.text : error);
}

function summarise(signature: Signature, left: Runs, right: Runs): Omit<Comparison, 'placements'> {
  const runs: CaseComparison[] = [];
  for (const [index, { seed, tokenIds }] of left.cases.entries()) {
    const theirs = right.results[index]?.steps ?? [];
    for (const [at, step] of (left.results[index]?.steps ?? []).entries()) {
      const other = theirs[at];
      if (!other) continue;
      const tokens = step.shape[1];
      const place = { batch: tokenIds.length, tokens, pastLength: step.pastLength, seed };
      runs.push({ step: at === 0 ? 'prefill' : 'decode', ...place, ...compareStep(signature, step, other) });
    }
  }
  const prefill = runs.filter((run) => run.step === 'prefill');
  const decode = runs.filter((run) => run.step === 'decode');
  const perOutput = worstPerOutput(runs);
  return {
    worst: worstOf(runs),
    prefill: worstOf(prefill),
    decode: decode.length ? worstOf(decode) : null,
    perOutput,
    positions: runs.reduce((sum, run) => sum + (run.logits?.positions ?? 0), 0),
    runs,
    onlyReference: runs[0]?.onlyReference ?? [],
    onlyCandidate: runs[0]?.onlyCandidate ?? [],
    cached: [left.results.some((result) => result.cached), right.results.some((result) => result.cached)],
    skipped: left.skipped,
    nonFinite: [sum(perOutput, (output) => output.nonFinite[0]), sum(perOutput, (output) => output.nonFinite[1])],
    assumed: [...new Set([...left.results, ...right.results].flatMap((result) => result.assumed))],
    optimizationLevel: right.level,
  };
}

/**
 * A model that lost its last cache decodes by running the whole prefix again. Its last rows are then compared with the
 * cached step of the other side.
 */
function compareStep(signature: Signature, a: StepResult, b: StepResult): OutputComparison {
  if (a.shape[1] === b.shape[1] || !signature.logits || !a.logits || !b.logits) {
    return compareOutputs(written(signature, a), written(signature, b), signature.logits);
  }
  const rows = Math.min(a.shape[1], b.shape[1]);
  const name = signature.logits;
  return compareOutputs(new Map([[name, lastRows(a, rows)]]), new Map([[name, lastRows(b, rows)]]), name);
}

/** The outputs without the places of fixed-size caches that nothing was written to: what they hold is accidental. */
function written(signature: Signature, step: StepResult): TensorMap {
  const outputs = new Map(step.outputs);
  const length = step.pastLength + step.tokens;
  for (const { output, sequenceAxis: axis, capacity } of signature.caches) {
    const tensor = output === null ? undefined : outputs.get(output);
    if (!tensor || output === null || axis === null || capacity === null) continue;
    if ((tensor.dims[axis] ?? 0) > length) outputs.set(output, truncate(tensor, axis, length));
  }
  return outputs;
}

function lastRows(step: StepResult, rows: number): { dtype: DataType; dims: number[]; data: Float32Array } {
  const [batch, tokens, width] = step.shape;
  const data = new Float32Array(batch * rows * width);
  for (let row = 0; row < batch; row++) {
    const end = (row + 1) * tokens * width;
    data.set((step.logits as Float32Array).subarray(end - rows * width, end), row * rows * width);
  }
  return { dtype: 'float', dims: [batch, rows, width], data };
}

function worstOf(runs: readonly CaseComparison[]): Worst {
  const outputs = runs.flatMap((run) => run.outputs);
  return {
    relative: Math.max(0, ...outputs.map((output) => output.relative)),
    absolute: Math.max(0, ...outputs.map((output) => output.absolute)),
    cosine: Math.min(1, ...outputs.map((output) => output.cosine)),
    kl: Math.max(0, ...runs.map((run) => run.logits?.maxKl ?? 0)),
    top1: Math.min(1, ...runs.map((run) => run.logits?.top1 ?? 1)),
  };
}

function worstPerOutput(runs: readonly CaseComparison[]): OutputDifference[] {
  const worst = new Map<string, OutputDifference>();
  for (const output of runs.flatMap((run) => run.outputs)) {
    const known = worst.get(output.name);
    if (!known) {
      worst.set(output.name, output);
      continue;
    }
    worst.set(output.name, {
      name: output.name,
      elements: known.elements + output.elements,
      absolute: Math.max(known.absolute, output.absolute),
      relative: Math.max(known.relative, output.relative),
      cosine: Math.min(known.cosine, output.cosine),
      nonFinite: [known.nonFinite[0] + output.nonFinite[0], known.nonFinite[1] + output.nonFinite[1]],
      broken: known.broken + output.broken,
    });
  }
  return [...worst.values()];
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
