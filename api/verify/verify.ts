/** What `verify` does, without a command line: both models on the same inputs and, where there is some, on text. */

import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { errors, openModel } from '../../ir/index.js';
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
import type { Talk } from '../basics/progress.js';
import { isFolder } from '../folder/inside.js';
import { modelFile } from '../folder/model-folder.js';
import { whyItFails } from '../fuse/check.js';
import { type Prepared, prepare } from '../fuse/prepared.js';
import { polygraphyFiles, polygraphyRanks, type RankGroup } from '../shard/polygraphy-ranks.js';
import { compareRanks, ranksIn } from '../shard/rank-check.js';
import { ranksFileIn, readRanks } from '../shard/ranks-file.js';
import type { Continuation } from './continuations.js';
import { type DataQuality, type TextRequest, verifyOnText } from './on-text.js';
import { noteFallback } from './providers.js';

/** What to compare two models on. */
export interface VerifyRequest extends TextRequest {
  readonly provider: Provider;
  readonly allowFallback: boolean;
}

/** What a verification found. */
export interface Verification extends Comparison {
  readonly provider: Provider;
  /** With `data`. */
  readonly text?: DataQuality;
  /** With `data` or `prompt`. */
  readonly continuations?: readonly Continuation[];
  /** What was done in another way than asked, or not at all, and why. */
  readonly notes: readonly string[];
}

/**
 * Compares the models of two files, or folders. Where onnxruntime has no bfloat16 kernels for the original, fp32 twins of both stand
 * in, and a note says so.
 * @throws Diagnostic
 */
export async function verifyFiles(
  reference: string,
  candidate: string,
  request: VerifyRequest,
  talk: Talk,
): Promise<Verification> {
  const { provider, allowFallback } = request;
  const a = modelFile(reference);
  const ranks = isFolder(candidate) ? ranksOf(a, candidate) : null;
  if (ranks) return verifyRanks(a, candidate, ranks, request, talk);
  const b = modelFile(candidate);
  const options: VerifyOptions = { provider, allowFallback };
  const twins: Prepared[] = [];
  try {
    const notes: string[] = [];
    let pair: readonly [Candidate, Candidate] = [candidateOf(a), candidateOf(b)];
    for (const [i, path] of [a, b].entries()) {
      await checkEnds(path, (pair[i] as Candidate).model, { provider, allowFallback });
    }
    const why = await whyTwins(pair, options, talk);
    if (why !== null) {
      notes.push(`compared through fp32 twins of bfloat16 weights, not in bfloat16: ${why}`);
      for (const path of [a, b]) twins.push(await prepare(floatTwin(openModel(path)), tmpdir()));
      pair = twins as unknown as readonly [Candidate, Candidate];
    }
    const onRun = (done: number, total: number): void => talk.progress('running', done, total);
    const comparison = await verifyPair(pair[0], pair[1], { ...options, onRun });
    for (const [i, placement] of (comparison.placements ?? []).entries()) {
      noteFallback(placement, [a, b][i] as string, talk);
    }
    const onText = await verifyOnText([a, b], pair, { ...request, notes }, talk);
    return { ...comparison, provider, ...onText, notes };
  } finally {
    talk.done();
    for (const twin of twins) await twin.discard();
  }
}

/** The model files that `verifyFiles` compares; a folder of ranks is no file. */
export function comparedFiles(reference: string, candidate: string): string[] {
  const isGroup = isFolder(candidate) && (existsSync(ranksFileIn(candidate)) || polygraphyFiles(candidate) !== null);
  return [reference, ...(isGroup ? [] : [candidate])].map(modelFile);
}

/** The rank models in `folder`, ours or Polygraphy's; null when it has none. @throws Diagnostic OF_RANKS. */
function ranksOf(original: string, folder: string): RankGroup | null {
  if (existsSync(ranksFileIn(folder))) return ranksIn(folder, readRanks(folder));
  const models = polygraphyFiles(folder);
  return models && polygraphyRanks(openModel(original), models);
}

/** The same for a folder of rank models, which run together on the CPU. */
async function verifyRanks(
  a: string,
  b: string,
  ranks: RankGroup,
  request: VerifyRequest,
  talk: Talk,
): Promise<Verification> {
  const { provider } = request;
  if (provider !== 'cpu')
    throw errors.usage('option provider', `ranks run together on the CPU, not on ${provider}`, 'leave it out');
  // One machine in the place of several tells nothing of their speed.
  const text = { ...request, timing: false };
  const found = await compareRanks(a, b, ranks, talk, (pair, notes) =>
    verifyOnText([a, b], pair, { ...text, notes }, talk),
  );
  if (typeof found === 'string') throw runtimeErrors.notComparable(a, found);
  return { ...found.comparison, provider, ...found.more, notes: found.notes };
}

function candidateOf(path: string): Candidate {
  return { location: path, model: openModel(path) };
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
