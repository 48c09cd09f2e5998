/** Running a language model: a prefill and a decode step, or a greedy continuation. */
import { elementCount } from '../../ir/type.js';
import { runtimeErrors } from '../session/errors.js';
import type { Session } from '../session/session.js';
import { type HostTensor, type TensorMap, toFloat32 } from '../session/tensor.js';
import type { Signature } from '../signature/signature.js';
import { makeFeeds } from './feeds.js';
import { randomTokens } from './random.js';
import { checkTokens } from './room.js';

/** What is run: the tokens, and what else is fed. */
export interface StepRequest {
  /** [batch][tokens] ids: all but the last are the prefill, the last is the decode step. */
  readonly tokenIds: readonly (readonly number[])[];
  /** False runs all tokens as one prefill; true by default. */
  readonly decode?: boolean;
  /** Feeds the prefill one token at a time, for models that take no more (needs a cache); false by default. */
  readonly stepwise?: boolean;
  /** Seed of inputs other than tokens. */
  readonly seed?: number;
}

/** The outputs of one run of a model. */
export interface StepResult {
  /** Scores, row-major [batch, tokens, vocabulary]; null for a model without logits. */
  readonly logits: Float32Array | null;
  readonly shape: readonly [batch: number, tokens: number, vocabulary: number];
  /** All outputs of the run, the caches among them. */
  readonly outputs: TensorMap;
  /** Positions before this step. */
  readonly pastLength: number;
  /** New tokens of this step. */
  readonly tokens: number;
}

/** A prefill and, where there is one, the decode step behind it. */
export interface StepsResult {
  /** The prefill; then, unless it was not wanted or is not possible, the decode step. */
  readonly steps: readonly StepResult[];
  /** Whether the decode step continued a cache. */
  readonly cached: boolean;
  /** Inputs that got arbitrary values because their purpose is not known. */
  readonly assumed: readonly string[];
}

/** True when the model's caches carry on from one run to the next. */
export function hasCache(signature: Signature): boolean {
  return signature.caches.some((port) => port.output !== null && port.fixedPast === null);
}

/**
 * Token ids [batch][count + 1] for `runSteps`: pseudo-random, within the vocabulary, of the batch and length the model
 * allows (a model of fixed length without a cache has no decode step).
 * @throws Diagnostic OF_CANNOT_FEED when it fixes more than a check can make.
 */
export function stepTokens(signature: Signature, batch: number, count: number, seed: number): number[][] {
  const vocabulary = signature.vocabulary ?? 32;
  const [rows, length] = [signature.batch ?? batch, stepLength(signature, count)];
  checkTokens(signature, rows, length);
  return randomTokens(seed, rows, length, vocabulary);
}

function stepLength(signature: Signature, count: number): number {
  const { sequence } = signature;
  const room = Math.min(capacityOf(signature), signature.positions ?? Number.POSITIVE_INFINITY);
  if (sequence !== null && !(sequence === 1 && hasCache(signature))) return sequence;
  return Math.min(count + 1, room);
}

/**
 * A prefill from empty caches and one decode step of one token: with the cache where the model has one, else by running
 * the prefix again with the token appended.
 * @throws Diagnostic OF_CANNOT_FEED or OF_RUNTIME.
 */
export async function runSteps(
  session: Pick<Session, 'run'>,
  signature: Signature,
  request: StepRequest,
): Promise<StepsResult> {
  const { tokenIds, seed = 1 } = request;
  const count = tokenIds[0]?.length ?? 0;
  const cached = hasCache(signature);
  const assumed = new Set<string>();
  const run = async (from: number, to: number, past?: TensorMap): Promise<StepResult> => {
    const feeds = makeFeeds(signature, {
      tokenIds: tokenIds.map((row) => row.slice(from, to)),
      pastLength: past ? from : 0,
      seed,
      ...(past ? { past } : {}),
    });
    for (const name of feeds.assumed) assumed.add(name);
    return stepOf(signature, await session.run(feeds.tensors), feeds.pastLength, to - from, tokenIds.length);
  };

  const { sequence } = signature;
  const single = cached && (sequence === 1 || (request.stepwise ?? false));
  const open = signature.driver !== null && (sequence === null || single);
  const decode = (request.decode ?? true) && count > 1 && open;
  const prefix = decode ? count - 1 : count;
  let step: StepResult;
  if (single) {
    step = await run(0, 1);
    for (let at = 1; at < prefix; at++) step = await run(at, at + 1, step.outputs);
  } else {
    step = await run(0, prefix);
  }
  const steps = [step];
  if (decode) steps.push(cached ? await run(prefix, count, step.outputs) : await run(0, count));
  return { steps, cached: decode && cached, assumed: [...assumed] };
}

/** The outputs of one run as a step. */
export function stepOf(
  signature: Signature,
  outputs: TensorMap,
  pastLength: number,
  tokens: number,
  batch: number,
): StepResult {
  const scores = signature.logits === null ? undefined : outputs.get(signature.logits);
  if (!scores) return { logits: null, shape: [batch, tokens, 0], outputs, pastLength, tokens };
  const vocabulary = scores.dims[scores.dims.length - 1] ?? 0;
  const rows = vocabulary ? elementCount(scores.dims) / vocabulary : 0;
  // Some models give the scores of the last position only.
  return { logits: toFloat32(scores), shape: [batch, rows / batch, vocabulary], outputs, pastLength, tokens };
}

/** How text is generated. */
export interface GenerateOptions {
  /** Called with each id as it is chosen; returning false ends the generation. */
  readonly onToken?: (id: number, index: number) => boolean | undefined;
  /** Feeds the prompt one token at a time, for models that take no more (needs a cache); false by default. */
  readonly stepwise?: boolean;
  readonly seed?: number;
}

/**
 * The `count` ids that follow `promptIds` greedily (the lowest id among equals), one at a time, with the KV cache when
 * there is one and else by running the whole text again. A model of fixed length ends when it is full.
 * @returns the new ids alone.
 * @throws Diagnostic OF_CANNOT_FEED (also for an id outside the vocabulary) or OF_RUNTIME.
 */
export async function generate(
  session: Pick<Session, 'run'>,
  signature: Signature,
  promptIds: readonly number[],
  count: number,
  options: GenerateOptions = {},
): Promise<number[]> {
  const { driver, vocabulary, sequence } = signature;
  if (driver?.role !== 'tokens')
    throw runtimeErrors.cannotFeed(driver?.name ?? 'tokens', 'the model takes no token ids');
  if (signature.logits === null) throw runtimeErrors.notComparable('logits', 'the model gives no next-token scores');
  const outside = promptIds.find((id) => id < 0 || (vocabulary !== null && id >= vocabulary));
  if (outside !== undefined)
    throw runtimeErrors.cannotFeed(driver.name, `token ${outside} is outside the vocabulary of ${vocabulary}`);
  if (promptIds.length === 0) throw runtimeErrors.cannotFeed(driver.name, 'the prompt is empty');

  const rows = signature.batch ?? 1;
  const cached = hasCache(signature);
  const single = cached && (sequence === 1 || (options.stepwise ?? false));
  const all = [...promptIds];
  let past: TensorMap | undefined;
  let done = 0;
  const advance = async (): Promise<number> => {
    const fresh = cached ? all.slice(done, single ? done + 1 : all.length) : all;
    const padding = sequence === null ? 0 : sequence - fresh.length;
    const padded = padding > 0 ? [...fresh, ...new Array<number>(padding).fill(0)] : fresh;
    const feeds = makeFeeds(signature, {
      tokenIds: Array.from({ length: rows }, () => padded),
      pastLength: done,
      padding,
      seed: options.seed ?? 1,
      ...(past ? { past } : {}),
    });
    const outputs = await session.run(feeds.tensors);
    if (cached) {
      past = outputs;
      done += fresh.length;
    }
    const scores = outputs.get(signature.logits as string);
    if (!scores) throw runtimeErrors.notComparable('logits', 'the run gave no next-token scores');
    return bestAfter(scores, rows, fresh.length);
  };

  const room = Math.min(sequence === null || single ? Number.POSITIVE_INFINITY : sequence, capacityOf(signature));
  const chosen: number[] = [];
  while (chosen.length < count && all.length <= room) {
    let id = await advance();
    while (cached && done < all.length) id = await advance();
    chosen.push(id);
    all.push(id);
    if (options.onToken?.(id, chosen.length - 1) === false) break;
  }
  return chosen;
}

function capacityOf(signature: Signature): number {
  const sizes = signature.caches.map((port) => (port.rolling ? null : port.capacity));
  return Math.min(...sizes.map((size) => size ?? Number.POSITIVE_INFINITY));
}

/** The best id after token number `tokens` of the first row. */
function bestAfter(scores: HostTensor, rows: number, tokens: number): number {
  const width = scores.dims[scores.dims.length - 1] ?? 0;
  const positions = elementCount(scores.dims) / width / rows;
  const values = toFloat32(scores);
  return argmax(values, (Math.min(tokens, positions) - 1) * width, width);
}

/** Index, counted from `start`, of the largest of `count` values; the first among equals. */
export function argmax(values: Float32Array, start: number, count: number): number {
  let best = 0;
  for (let i = 1; i < count; i++) {
    if ((values[start + i] as number) > (values[start + best] as number)) best = i;
  }
  return best;
}
