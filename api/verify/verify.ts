/** Both models on the same inputs and, where there is some, on text. */
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { errors, type Model, openModel, referenceOf } from '../../ir/index.js';
import {
  type Candidate,
  type Comparison,
  checkEnds,
  floatTwin,
  type Provider,
  usesBfloat16,
  type VerifyOptions,
  verifyPair,
} from '../../runtime/index.js';
import { runtimeErrors } from '../../runtime/session/errors.js';
import { silent, type Talk } from '../basics/progress.js';
import { isFolder } from '../folder/inside.js';
import { modelFile } from '../folder/model-folder.js';
import { few, fitting, inPieces, reopened, whyItFails } from '../fuse/check.js';
import type { EvidenceHead } from '../fuse/evidence.js';
import { type Prepared, prepare } from '../fuse/prepared.js';
import { polygraphyFiles, polygraphyRanks, type RankGroup } from '../shard/polygraphy-ranks.js';
import { compareRanks, ranksIn } from '../shard/rank-check.js';
import { ranksFileIn, readRanks } from '../shard/ranks-file.js';
import type { Continuation } from './continuations.js';
import { type DataQuality, type TextRequest, verifyOnText } from './on-text.js';
import { noteFallback } from './providers.js';

/** What to compare two models on. */
export interface VerificationRequest extends TextRequest, Omit<VerifyOptions, 'known' | 'noFallback'> {
  /** Bytes of memory that running may take; what is free by default. A model that needs more is run in pieces, on the CPU. */
  readonly memory?: number | undefined;
  /** Where notes and progress go; nowhere by default. */
  readonly talk?: Talk | undefined;
}

/** What a verification found. */
export interface Verification extends Comparison, EvidenceHead<'verification'> {
  readonly provider: Provider;
  /** With `data`. */
  readonly text?: DataQuality;
  /** With `data` or `prompt`. */
  readonly continuations?: readonly Continuation[];
  /** What was done in another way than asked, or not at all, and why. */
  readonly notes: readonly string[];
}

/** What was found, without the head that names the files. */
export type Findings = Omit<Verification, keyof EvidenceHead>;

/** A model to compare: the path that it was given by, or `a model in memory`. */
interface Side {
  readonly name: string;
  readonly candidate: Candidate;
}

/**
 * Compares two models: of files, of folders, or in memory. Where onnxruntime has no bfloat16 kernels for the original, fp32
 * twins of both stand in, and a note says so.
 * @throws Diagnostic
 */
export async function compareModels(
  reference: string | Model,
  candidate: string | Model,
  request: VerificationRequest,
): Promise<Findings> {
  const { provider = 'cpu', talk = silent } = request;
  const ranks = typeof candidate === 'string' && isFolder(candidate) ? ranksOf(reference, candidate) : null;
  if (ranks) return verifyRanks(modelFile(reference as string), candidate as string, ranks, request, talk);
  const sides = [sideOf(reference), sideOf(candidate)] as const;
  const options: VerifyOptions = { ...optionsIn(request), provider };
  const twins: Prepared[] = [];
  try {
    const notes: string[] = [];
    // A GPU's own memory is not asked.
    const inMemory = (a: Candidate, b: Candidate): readonly [Candidate, Candidate] =>
      provider === 'cpu' ? [fitting(a, request.memory), fitting(b, request.memory)] : [a, b];
    let pair = inMemory(sides[0].candidate, sides[1].candidate);
    for (const { location, model, open } of pair) {
      // The whole would be loaded for that.
      if (typeof location === 'string' && !open) await checkEnds(location, model, options);
    }
    const why = await whyTwins(pair, options, talk);
    if (why !== null) {
      notes.push(`compared through fp32 twins of bfloat16 weights, not in bfloat16: ${why}`);
      for (const { location } of pair) twins.push(await prepare(floatTwin(reopened(location)), tmpdir()));
      pair = inMemory(...(twins as unknown as readonly [Candidate, Candidate]));
    }
    const onRun = (done: number, total: number): void => {
      talk.progress('running', done, total);
      request.onRun?.(done, total);
    };
    const comparison = await verifyPair(pair[0], pair[1], { ...few(...pair), ...options, onRun });
    for (const [i, placement] of (comparison.placements ?? []).entries()) {
      noteFallback(placement, sides[i as 0 | 1].name, talk);
    }
    if (typeof reference !== 'string' && (request.data ?? request.prompt) !== undefined) {
      const text = 'the tokenizer is looked for beside the reference, and a model in memory lies nowhere';
      throw errors.usage(
        request.data === undefined ? 'option prompt' : 'option data',
        text,
        'save the reference first',
      );
    }
    const names = [sides[0].name, sides[1].name] as const;
    // The runs before may have left less.
    pair = inMemory(...pair);
    notes.push(...inPieces(...pair).map((how) => `${how}, because the whole is larger than memory`));
    const onText = await verifyOnText(names, pair, { ...request, provider, notes, isTwins: why !== null }, talk);
    return { ...comparison, provider, ...onText, notes };
  } finally {
    talk.done();
    for (const twin of twins) await twin.discard();
  }
}

function sideOf(given: string | Model): Side {
  if (typeof given !== 'string')
    return { name: 'a model in memory', candidate: { location: referenceOf(given), model: given } };
  const path = modelFile(given);
  return { name: path, candidate: { location: path, model: openModel(path) } };
}

/** What of a request is about the inputs and the sessions. */
function optionsIn(request: VerificationRequest): VerifyOptions {
  const { deviceId, threads, allowFallback, optimization, tokens, seeds, batches, renamed, merged } = request;
  const given = { deviceId, threads, allowFallback, optimization, tokens, seeds, batches, renamed, merged };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** The model files that are compared; a folder of ranks is no file, nor is a model in memory, or what it is compared with. */
export function comparedFiles(reference: string | Model, candidate: string | Model): string[] {
  if (typeof reference !== 'string') return [];
  const isFile = typeof candidate === 'string' && !(isFolder(candidate) && isGroup(candidate));
  return [reference, ...(isFile ? [candidate] : [])].map(modelFile);
}

function isGroup(folder: string): boolean {
  return existsSync(ranksFileIn(folder)) || polygraphyFiles(folder) !== null;
}

/** The rank models in `folder`, ours or Polygraphy's; null when it has none. @throws Diagnostic OF_RANKS, OF_USAGE. */
function ranksOf(original: string | Model, folder: string): RankGroup | null {
  if (!isGroup(folder)) return null;
  if (typeof original !== 'string')
    throw errors.usage(folder, 'ranks are compared with a model in a file', 'save the reference first');
  if (existsSync(ranksFileIn(folder))) return ranksIn(folder, readRanks(folder));
  return polygraphyRanks(openModel(modelFile(original)), polygraphyFiles(folder) ?? []);
}

/** The same for a folder of rank models, which run together on the CPU. */
async function verifyRanks(
  a: string,
  b: string,
  ranks: RankGroup,
  request: VerificationRequest,
  talk: Talk,
): Promise<Findings> {
  const { provider = 'cpu' } = request;
  if (provider !== 'cpu')
    throw errors.usage('option provider', `ranks run together on the CPU, not on ${provider}`, 'leave it out');
  // One machine in the place of several tells nothing of their speed.
  const text = { ...request, provider, timing: false, isTwins: false };
  const found = await compareRanks(a, b, ranks, talk, (pair, notes) =>
    verifyOnText([a, b], pair, { ...text, notes }, talk),
  );
  if (typeof found === 'string') throw runtimeErrors.notComparable(a, found);
  return { ...found.comparison, provider, ...found.more, notes: found.notes };
}

/** Why the models cannot run in bfloat16; null when they can, or are of no such type. */
async function whyTwins(
  pair: readonly [Candidate, Candidate],
  options: VerifyOptions,
  talk: Talk,
): Promise<string | null> {
  const first = pair.find(({ model }) => usesBfloat16(model));
  return first ? whyItFails(first, talk, options) : null;
}
