/** A run as data: what a JSON report holds and the terminal shows. It describes the model that was written. */
import type { FileSource, SharedFile } from '../../ir/index.js';
import type { FactsByPass, LayerSlot, PassResult, Remark } from '../../passes/index.js';
import type { Device } from '../../runtime/choose/cost.js';
import { installedRuntime } from '../../runtime/session/ort.js';
import { packageVersion } from '../basics/package-version.js';
import { layerFacts, type ModelFigures, type OperatorFigures } from './figures.js';
import { type FileFact, fileFact } from './file-fact.js';
import type { RecoveryFact } from './recovery-fact.js';
import type { FuseRequest } from './request.js';
import type { Stopwatch } from './stopwatch.js';
import type { Transformed } from './transform.js';
import type { Written } from './write.js';

/** How far the fused model is from the same model with only the steps that change the function. */
export interface AlgebraCheck {
  /** ||fused - parallel|| / ||parallel|| in L2, the worst output of all runs. */
  readonly maxRelative: number;
  readonly maxAbsolute: number;
  readonly tolerance: number;
  readonly precision: string;
  readonly pass: boolean;
  /** Next-token distributions compared. */
  readonly positions: number;
}

/** What quantising weights again did to the outputs, beside the exact parallel model: not held to a tolerance. */
export interface Requantization {
  /** ||requantised - exact|| / ||exact|| in L2, the worst output of all runs. */
  readonly maxRelative: number;
  readonly maxAbsolute: number;
}

/** How far the fused model is from the original: the price of the approximation, on random tokens. */
export interface Drift {
  /** Mean KL(original || fused) of next-token distributions, nats; null for models without logits, like the next two. */
  readonly kl: number | null;
  readonly maxKl: number | null;
  /** Fraction of positions with the same most likely token. */
  readonly top1: number | null;
  /** The worst of all outputs. */
  readonly cosine: number;
  readonly positions: number;
  readonly tokens: 'random';
}

/** One layer of the original. */
export interface LayerFact {
  readonly layer: number;
  readonly attention: boolean;
  /** Whether it has a branch beside the attention: an FFN, experts. */
  readonly ffn: boolean;
  /** The places of the layer in which one matrix stands. */
  readonly linear: readonly LayerSlot[];
  /** Hidden width of its FFN; null when it has none, or none that is understood. */
  readonly ffnWidth: number | null;
}

/** A file, or a folder with all that is in it, that was not copied, and why. */
export interface LeftFile {
  readonly file: string;
  readonly reason: string;
}

/** What a folder got beside its model. */
export interface FolderFacts {
  readonly path: string;
  readonly kvNaming: 'preserve' | 'compact';
  /** Files that were rewritten to fit, and files that were copied, relative to the folder. */
  readonly rewritten: readonly string[];
  readonly copied: readonly string[];
  /** Everything else that lies in the input folder. */
  readonly left: readonly LeftFile[];
  /** What a person should know before using the folder. */
  readonly notes: readonly string[];
}

/** The nodes of one operator and the weights that they read, before and after. */
export interface OperatorChange {
  readonly operator: string;
  readonly before: OperatorFigures;
  readonly after: OperatorFigures;
}

/** The time of a token by a cost model, at the batch and context that it was made for. */
export interface Prediction {
  readonly device: string;
  /** Where the constants of the device come from. */
  readonly source: string;
  readonly secondsPerToken: { readonly before: number; readonly after: number };
}

/** What was done to a model, and what it is now. */
export interface Report {
  readonly input: readonly FileFact[];
  readonly output: readonly FileFact[];
  readonly options: Readonly<Record<string, unknown>>;
  readonly pipeline: string;
  /** The steps that ran on the model that was written, in order; none where it is a copy. */
  readonly steps: readonly Pick<PassResult, 'pass' | 'changed' | 'statistics' | 'seconds'>[];
  /** What each pass did, under its id, in the form that the pass declares; `factsOf` reads it with its type. */
  readonly facts: FactsByPass;
  /** The same for a person, a line each, in the words of the passes. */
  readonly done: readonly string[];
  /** Everything that passes remarked on the way. */
  readonly remarks: readonly Remark[];
  /** The layers before the pipeline ran. */
  readonly original: readonly LayerFact[];
  /** Maps that were fitted in the place of what was removed; null when none were asked for. */
  readonly recovery: RecoveryFact | null;
  /** Where the numbers of layers come from: a layer that is not there is none of the model's if they come from names. */
  readonly numbering: 'names' | 'order';
  readonly checks: {
    readonly algebra: AlgebraCheck | null;
    /** Null when nothing was requantised, or nothing was checked. */
    readonly requantization: Requantization | null;
    readonly drift: Drift | null;
    /** Why a check was not made; null when all that apply were. */
    readonly skipped: string | null;
    /** Inputs of unknown purpose that got arbitrary values. */
    readonly assumed: readonly string[];
  };
  /** What was asked for a layer, or a run of them, by number and is left undone, with the reason. */
  readonly refused: readonly { readonly layer: string | null; readonly pass: string; readonly reason: string }[];
  /** What was left as it is and why: the last reason of each layer, and what no layer is to blame for. */
  readonly left: readonly { readonly layer: string | null; readonly pass: string; readonly reason: string }[];
  readonly parameters: { readonly before: number; readonly after: number };
  readonly kvBytesPerToken: { readonly before: number | null; readonly after: number | null };
  readonly nodes: { readonly before: number; readonly after: number };
  /** By operator, in all graphs, those first whose weights changed most. What several nodes read is counted for the first of them. */
  readonly operators: readonly OperatorChange[];
  /** Seconds that a device is predicted to take for a token, never a measurement; null where none was named. */
  readonly predicted: Prediction | null;
  readonly layers: number;
  /** The files of the input that hold weights of the output, too, named from its folder; none unless that was asked for. */
  readonly shared: readonly SharedFile[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly seconds: Readonly<Record<string, number>>;
  readonly peakRssBytes: number;
  readonly versions: Readonly<Record<string, string>>;
  readonly written: boolean;
  /** Only of a run on a folder. */
  readonly folder?: FolderFacts;
  readonly dryRun: boolean;
}

/** What a report is made of. */
interface Run {
  readonly request: FuseRequest;
  /** The files of the input. */
  readonly sources: readonly FileSource[];
  readonly before: ModelFigures;
  readonly after: ModelFigures;
  readonly made: Transformed;
  /** Its text, as it is kept. */
  readonly pipeline: string;
  readonly written: Written;
  readonly watch: Stopwatch;
}

/** Puts a report together; with `request.hash` the files of the input are read once more. */
export async function reportOf(run: Run): Promise<Report> {
  const { request, sources, before, after, made, pipeline, written, watch } = run;
  const { result } = made;
  const hash = request.hash === true;
  const input = await watch.time('hash', () =>
    Promise.all(sources.map((file) => fileFact(file.path, file.size, hash))),
  );
  return {
    input,
    output: written.files,
    options: optionsOf(request),
    pipeline,
    steps: result.steps.map(({ pass, changed, statistics, seconds }) => ({ pass, changed, statistics, seconds })),
    facts: result.facts,
    done: result.steps.flatMap(({ lines }) => lines),
    remarks: result.remarks,
    recovery: request.recovery ?? null,
    original: layerFacts(made.before?.layers ?? []),
    numbering: made.before?.numbering ?? 'order',
    checks: written.checks,
    refused: made.refused.map(({ layer, pass, message }) => ({ layer, pass, reason: message })),
    left: made.left.map(({ layer, pass, message }) => ({ layer, pass, reason: message })),
    parameters: { before: before.parameters, after: after.parameters },
    kvBytesPerToken: { before: before.kvBytesPerToken, after: after.kvBytesPerToken },
    nodes: { before: before.nodes, after: after.nodes },
    operators: operatorChanges(before, after),
    predicted: predictionOf(request.device, before, after),
    layers: made.before?.layers.length ?? 0,
    shared: written.shared,
    bytesRead: written.bytesRead,
    bytesWritten: written.bytesWritten,
    seconds: watch.seconds,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    versions: await versions(),
    written: !request.dryRun,
    dryRun: request.dryRun === true,
  };
}

const NONE: OperatorFigures = { nodes: 0, parameters: 0, bytes: 0 };

function operatorChanges(before: ModelFigures, after: ModelFigures): OperatorChange[] {
  const names = [...new Set([...before.operators.keys(), ...after.operators.keys()])];
  const changes = names.map((operator) => ({
    operator,
    before: before.operators.get(operator) ?? NONE,
    after: after.operators.get(operator) ?? NONE,
  }));
  const by = (what: keyof OperatorFigures, each: OperatorChange): number =>
    Math.abs(each.after[what] - each.before[what]);
  return changes.sort((a, b) => by('bytes', b) - by('bytes', a) || by('nodes', b) - by('nodes', a));
}

function predictionOf(device: Device | undefined, before: ModelFigures, after: ModelFigures): Prediction | null {
  if (!device || before.secondsPerToken === null || after.secondsPerToken === null) return null;
  const secondsPerToken = { before: before.secondsPerToken, after: after.secondsPerToken };
  return { device: device.name, source: device.source, secondsPerToken };
}

function optionsOf(request: FuseRequest): Record<string, unknown> {
  const {
    talk: _talk,
    input: _input,
    output: _output,
    hash: _hash,
    recovery: _recovery,
    device: _device,
    asked,
    passes = [],
    ...options
  } = request;
  const all = { ...(asked ?? options), passes: passes.length > 0 ? passes.map((pass) => pass.id) : undefined };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** No check, for this reason (null: not yet). */
export function unchecked(reason: string | null): Report['checks'] {
  return { algebra: null, requantization: null, drift: null, skipped: reason, assumed: [] };
}

async function versions(): Promise<Record<string, string>> {
  const found: Record<string, string> = { 'onnx-fuse': await packageVersion(), node: process.versions.node };
  const runtime = installedRuntime();
  if (runtime !== null) found['onnxruntime-node'] = runtime;
  return found;
}
