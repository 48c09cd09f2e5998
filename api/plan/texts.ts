/** The text that a plan is made on, in three parts that share nothing: to fit maps on, to search on, to check the choice on. */
import type { Model } from '../../ir/index.js';
import { readSignature } from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { type OwnTextRequest, writeOwnText } from '../tokens/own-text.js';
import { codecFor } from '../tokens/text-codec.js';
import { loadTokenData, type TokenData } from '../tokens/token-data.js';

/** What text to measure on. */
export interface PlanTextRequest {
  /** Text or token ids: files, one after another. Where there are none the model writes its own. */
  readonly data: readonly string[];
  /** How the model writes. */
  readonly own?: Pick<OwnTextRequest, 'temperature' | 'seed' | 'provider' | 'threads' | 'talk'> | undefined;
  /** Text or token ids that only the choice is checked on. */
  readonly heldOut?: string | undefined;
  readonly tokenizer?: string | undefined;
  readonly length?: number | undefined;
  readonly maxTokens?: number | undefined;
}

export type Sequences = TokenData['sequences'];

/** The parts. */
export interface PlanTexts {
  /** Maps are fitted on it; empty when none are wanted. */
  readonly fit: Sequences;
  /** Ridges and plans are chosen on it. */
  readonly search: Sequences;
  /** Nothing is fitted or chosen on it. */
  readonly check: Sequences;
  readonly source: string;
  /** Where `check` comes from; null when it is the end of `source`. */
  readonly heldOut: string | null;
}

/** Parts of the sequences, by position: the last to check on, and of the rest the end to search on. */
const CHECK_SHARE = 0.2;
const SEARCH_SHARE = 0.25;

/**
 * Reads the text for a plan of the model at `path`, or lets the model write it, and parts it.
 * @throws Diagnostic OF_TOKEN_DATA, also for text that is too little to be parted; OF_USAGE, OF_READ.
 */
export async function readPlanTexts(
  path: string,
  original: Model,
  request: PlanTextRequest,
  isFitting: boolean,
): Promise<PlanTexts> {
  const { vocabulary } = readSignature(original);
  const codec = await codecFor(path, vocabulary, request.tokenizer);
  const { length, maxTokens } = request;
  const options = { vocabulary, codec, ...(length === undefined ? {} : { length }) };
  const limits = {
    ...(length === undefined ? {} : { length }),
    ...(maxTokens === undefined ? {} : { tokens: maxTokens }),
  };
  const read: TokenData[] = request.data.length > 0 ? [] : [await writeOwnText(path, { ...request.own, ...limits })];
  let left = maxTokens;
  for (const file of request.data) {
    if (left !== undefined && left < 2) break;
    const data = await loadTokenData(file, { ...options, ...(left === undefined ? {} : { maxTokens: left }) });
    read.push(data);
    if (left !== undefined) left -= data.tokens;
  }
  const most = maxTokens === undefined ? {} : { maxTokens };
  const heldOut = request.heldOut === undefined ? null : await loadTokenData(request.heldOut, { ...options, ...most });
  const sequences = read.flatMap((each) => each.sequences);
  const source = read.map((each) => each.source).join(', ');
  if (heldOut) checkHeldOut(heldOut, sequences);
  return {
    ...partsOf(sequences, heldOut?.sequences ?? null, isFitting, source),
    source,
    heldOut: heldOut?.source ?? null,
  };
}

/** Text that all else is fitted on judges nothing. @throws Diagnostic OF_TOKEN_DATA. */
function checkHeldOut(heldOut: TokenData, sequences: Sequences): void {
  const seen = new Set(sequences.map((each) => each.join(' ')));
  if (!heldOut.sequences.every((each) => seen.has(each.join(' ')))) return;
  const why = 'all of it is in the text to fit and search on as well, so it would judge nothing';
  throw apiErrors.tokenData(
    heldOut.source,
    why,
    'hold out other text, or none: then the end of the text is (option held-out)',
  );
}

/** Parts sequences by position; none of the parts is empty. */
function partsOf(
  all: Sequences,
  heldOut: Sequences | null,
  isFitting: boolean,
  source: string,
): Pick<PlanTexts, 'fit' | 'search' | 'check'> {
  const least = Number(isFitting) + 1 + Number(heldOut === null);
  if (all.length < least) {
    const found = all.length === 1 ? 'one sequence cannot' : `${all.length} sequences cannot`;
    const parts = [...(isFitting ? ['fit on'] : []), 'search on', ...(heldOut ? [] : ['check on'])];
    const remedy =
      'give more text, use more of it (option max-tokens), or cut it into shorter sequences (option length)';
    throw apiErrors.tokenData(source, `${found} be parted into text to ${parts.join(', text to ')}`, remedy);
  }
  const checked = heldOut ? 0 : Math.max(1, Math.round(all.length * (isFitting ? CHECK_SHARE : 0.5)));
  const rest = all.length - checked;
  const searched = isFitting ? Math.min(rest - 1, Math.max(1, Math.round(rest * SEARCH_SHARE))) : rest;
  const [fit, search] = [all.slice(0, rest - searched), all.slice(rest - searched, rest)];
  return { fit, search, check: heldOut ?? all.slice(rest) };
}

/** How many next tokens sequences ask for. */
export function positionsOf(sequences: Sequences): number {
  return sequences.reduce((sum, { length }) => sum + length - 1, 0);
}
