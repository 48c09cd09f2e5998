/** `verify` on text: quality of a changed model, both told the true tokens; its decoding; what both say next. */

import { errors } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import {
  type Candidate,
  type DecodeAgreement,
  decodeBatch,
  type FullQuality,
  isBounded,
  measureDecode,
  type NoDecode,
  type Provider,
  type Quality,
  readSignature,
  SessionPair,
  tokenBatches,
} from '../../runtime/index.js';
import { runtimeErrors } from '../../runtime/session/errors.js';
import { apiErrors } from '../basics/errors.js';
import type { Talk } from '../basics/progress.js';
import { type MeasuredSpeed, measureSpeed } from '../plan/measured-speed.js';
import { codecFor } from '../tokens/text-codec.js';
import { loadTokenData, type TokenDataOptions } from '../tokens/token-data.js';
import { type Continuation, continueBoth, promptsOf } from './continuations.js';
import { type DraftWorth, draftOf, renderDraft } from './draft.js';

/** What text to compare models on. */
export interface TextRequest extends Pick<TokenDataOptions, 'length' | 'maxTokens'> {
  /** Text or token ids (.jsonl, .npy) to measure on; none by default, and then only the algebra is checked. */
  readonly data?: string | undefined;
  /** A tokenizer.json to read text with; the one beside the reference by default. */
  readonly tokenizer?: string | undefined;
  /** A text that both models continue; the first rows of `data` by default. */
  readonly prompt?: string | undefined;
  /** Tokens of a continuation, 0 for none; 48 by default. */
  readonly generate?: number | undefined;
  /** Whether a token of both models is timed, for what the changed one is worth as a draft; true by default. */
  readonly timing?: boolean | undefined;
}

/** Quality on a text, and what of the text was used. */
export interface DataQuality {
  readonly source: string;
  readonly tokens: number;
  readonly originalPerplexity: number;
  readonly quality: FullQuality;
  /** Whether each model decodes through its KV cache what it says in one prefill. */
  readonly decode: { readonly original: DecodeAgreement | NoDecode; readonly fused: DecodeAgreement | NoDecode };
  /** What the changed model is worth as a draft for the original. */
  readonly draft: DraftWorth;
}

/** What the user asks for; what is not given is not judged. */
export interface QualityBudget {
  /** Largest mean KL(original || changed), in nats per token; none by default. */
  readonly maxKl?: number | null | undefined;
  /** Largest share by which perplexity may grow: 0.05 is 5 %; none by default. */
  readonly maxPplIncrease?: number | null | undefined;
  /** Smallest share of positions with the same top token, from 0 to 1; none by default. */
  readonly minTop1?: number | null | undefined;
}

interface OnText {
  readonly text?: DataQuality;
  readonly continuations?: readonly Continuation[];
}

const GENERATED = 48;

/**
 * Runs both models on the text, with both sessions open where memory allows. `files` are what the user calls `pair`
 * (which may be twins); the first is a path. Adds to `notes` what was done otherwise, or not.
 * @throws Diagnostic OF_TOKEN_DATA, OF_TOKENIZER, OF_USAGE, OF_MEMORY, OF_NO_RUNTIME, OF_RUNTIME, OF_CANNOT_FEED or
 * OF_NOT_COMPARABLE.
 */
export async function verifyOnText(
  files: readonly [string, string],
  pair: readonly [Candidate, Candidate],
  request: TextRequest & {
    readonly provider: Provider;
    readonly notes: string[];
    /** Whether twins stand in for the models, which then tell nothing of their speed. */
    readonly isTwins: boolean;
  },
  talk: Talk,
): Promise<OnText> {
  const { data, prompt, notes, provider, isTwins } = request;
  const count = request.generate ?? GENERATED;
  if (!Number.isInteger(count) || count < 0) throw errors.usage('option generate', `'${count}' is no count`, 'try 48');
  if (data === undefined && prompt === undefined) {
    if (request.generate === undefined) return {};
    throw errors.usage(
      'option generate',
      'there is nothing to continue',
      'give a prompt or a text (option prompt, option data)',
    );
  }
  const signature = readSignature(pair[0].model);
  const { vocabulary } = signature;
  const codec = await codecFor(files[0], vocabulary, request.tokenizer);
  const read = data === undefined ? null : await loadTokenData(data, { ...request, vocabulary, codec });
  const sequences = read?.sequences ?? [];
  const prompts = await promptsOf(prompt, sequences, codec);
  const both = new SessionPair(pair, { provider, optimization: 'disabled' });
  if (!both.memory.together) notes.push('both models do not fit into memory together: they were opened in turn');
  let judged: Judged | null = null;
  let continuations: readonly Continuation[] | null = null;
  const isSlow = pair.some(isBounded);
  // Each token of a model in pieces reads it from disk: done where it was asked for.
  const continues = count > 0 && (!isSlow || request.generate !== undefined || prompt !== undefined);
  if (count > 0 && !continues) notes.push(`no continuations: ${SLOW}`);
  try {
    judged = read && (await judge(both, pair, sequences, talk));
    if (continues) {
      const speaks = signature.driver?.role === 'tokens' && signature.logits !== null;
      if (!speaks && prompt === undefined) notes.push('no continuations: the model takes no token ids');
      const asked = speaks || prompt !== undefined;
      continuations = asked ? await continueBoth(both, prompts, count, codec, talk) : [];
    }
  } finally {
    await both.close();
  }
  const said = continuations ? { continuations } : {};
  if (!read || !judged) return said;
  // The sessions are closed: nothing else runs while the models are timed.
  const context = Math.max(...sequences.map((each) => each.length));
  if (isSlow) notes.push(`a token was not timed: ${SLOW}`);
  const isTimed = !isSlow && (request.timing ?? true);
  const speed = isTimed ? await speedOf(files[0], pair[1], { provider, context, notes, talk, isTwins }) : null;
  const draft = draftOf(judged.quality.overlap, speed);
  return { text: { source: read.source, tokens: read.tokens, ...judged, draft }, ...said };
}

/** Why what takes a run for each token is left out. */
const SLOW = 'the models are larger than memory, and in pieces each token would read them from disk';

type Judged = Omit<DataQuality, 'source' | 'tokens' | 'draft'>;

/** Turns of each model: enough for a ratio. */
const ROUNDS = 5;

/** Times one token of the model at `file` and of `changed` behind `context` others; null, with a note, where that cannot be done. */
async function speedOf(
  file: string,
  changed: Candidate,
  given: {
    readonly provider: Provider;
    readonly context: number;
    readonly notes: string[];
    readonly talk: Talk;
    readonly isTwins: boolean;
  },
): Promise<MeasuredSpeed | null> {
  const { notes, isTwins, ...request } = given;
  if (isTwins) {
    notes.push('a token was not timed: twins in another element type stood in for the models');
    return null;
  }
  try {
    return await measureSpeed(file, changed.model, { ...request, rounds: ROUNDS });
  } catch (error) {
    if (!runtimeErrors.runtimeFailed.is(error) && !errors.writeFailed.is(error)) throw error;
    notes.push(`a token was not timed: ${error.text}`);
    return null;
  }
}

async function judge(
  both: SessionPair,
  pair: readonly [Candidate, Candidate],
  sequences: readonly (readonly number[])[],
  talk: Talk,
): Promise<Judged> {
  const batches = tokenBatches(sequences, both.signatures[0]);
  const measured = await both.quality(batches, (done, total) => talk.progress('measuring on text', done, total));
  const decodes = (side: 0 | 1): Promise<DecodeAgreement | NoDecode> => {
    const signature = both.signatures[side];
    if (isBounded(pair[side])) return Promise.resolve({ skipped: SLOW });
    const batch = decodeBatch(sequences, signature);
    if (!batch) return Promise.resolve({ skipped: 'there is no text of two tokens' });
    return both.use(side, ({ session }) => measureDecode(session, pair[side].model, signature, batch));
  };
  // In this order: when they take turns, the second model is the one that is open.
  const fused = await decodes(1);
  return { ...measured, decode: { original: await decodes(0), fused } };
}

/** What a limit may be: the least and the most. */
const LIMITS = {
  maxKl: { place: 'option max-kl', most: Infinity, example: '0.05' },
  maxPplIncrease: { place: 'option max-ppl-increase', most: 1, example: '0.05, which is 5 %' },
  minTop1: { place: 'option min-top1', most: 1, example: '0.95, which is 95 %' },
} as const;

/** Whether limits can be meant: a percentage is none of the shares. @throws Diagnostic OF_USAGE. */
export function checkLimits(budget: QualityBudget): void {
  for (const [name, { place, most, example }] of Object.entries(LIMITS)) {
    const limit = budget[name as keyof typeof LIMITS];
    if (limit == null || (limit >= 0 && limit <= most)) continue;
    const expected = most === 1 ? 'a share from 0 to 1' : 'no less than 0';
    throw errors.usage(place, `it is ${limit}, expected ${expected}`, `give ${example}`);
  }
}

/** Holds the quality to its limits. @throws Diagnostic OF_QUALITY for the first one exceeded; a figure that is no number exceeds each. */
export function checkBudget(
  { quality }: { readonly quality: Quality },
  { maxKl, maxPplIncrease, minTop1 }: QualityBudget,
): void {
  const over = (name: string, found: number, limit: number) =>
    apiErrors.quality(`${name} is ${found.toPrecision(4)}`, `${limit}`);
  if (maxKl != null && !(quality.kl <= maxKl)) throw over('KL', quality.kl, maxKl);
  if (maxPplIncrease != null && !(quality.perplexityIncrease <= maxPplIncrease)) {
    throw over('perplexity increase', quality.perplexityIncrease, maxPplIncrease);
  }
  if (minTop1 != null && !(quality.top1 >= minTop1)) throw over('top-1 agreement', quality.top1, minTop1);
}

/** @throws Diagnostic OF_TOLERANCE where two models differ by more than was allowed. */
export function checkTolerance(relative: number, limit: number): void {
  if (!(relative <= limit)) throw apiErrors.tolerance(relative.toExponential(2), `${limit}`);
}

/** Holds both models to decoding what they say in a prefill. @throws Diagnostic OF_DECODE for the first one that does not. */
export function checkDecode({ decode }: DataQuality, files: readonly [string, string]): void {
  for (const [i, found] of [decode.original, decode.fused].entries()) {
    if ('skipped' in found || found.agrees) continue;
    throw apiErrors.decodeDisagrees(files[i] as string, found.relative.toExponential(2), `${found.tolerance}`);
  }
}

/** A few lines for people; KL by position in eight stretches. */
export function renderQuality({ source, originalPerplexity, quality, decode, draft }: DataQuality): string {
  const by = quality.klByPosition;
  const each = Math.max(1, Math.ceil(by.length / 8));
  const lines = [
    `on ${source}: ${counted(quality.positions, 'position')}, told the true tokens`,
    `  KL           mean ${quality.kl.toPrecision(4)}, max ${quality.maxKl.toPrecision(4)} nats`,
    `  perplexity   ${originalPerplexity.toFixed(4)} -> ${quality.perplexity.toFixed(4)} (${(100 * quality.perplexityIncrease).toFixed(2)} %)`,
    `  agreement    top-1 ${(100 * quality.top1).toFixed(2)} %, top-5 ${(100 * quality.top5).toFixed(2)} %, overlap ${(100 * quality.overlap).toFixed(2)} %`,
    '  KL by position',
  ];
  for (let at = 0; at < by.length; at += each) {
    const part = by.slice(at, at + each);
    const mean = part.reduce((sum, kl) => sum + kl, 0) / part.length;
    lines.push(`    ${`${at}-${at + part.length - 1}`.padEnd(11)} ${mean.toPrecision(4)}`);
  }
  lines.push('  decoding token by token against one prefill');
  for (const [name, found] of Object.entries(decode)) lines.push(`    ${name.padEnd(11)} ${decodeText(found)}`);
  lines.push(...renderDraft(draft));
  return lines.join('\n');
}

function decodeText(found: DecodeAgreement | NoDecode): string {
  if ('skipped' in found) return `not compared: ${found.skipped}`;
  const { rows, tokens, relative, top1, tolerance, precision, agrees } = found;
  const same = top1 === null ? '' : `, top-1 ${(100 * top1).toFixed(1)} %`;
  return `${relative.toExponential(2)}, ${agrees ? 'within' : 'MORE than'} ${tolerance} for ${precision}${same} (${counted(rows, 'sequence')} of ${counted(tokens, 'token')})`;
}
