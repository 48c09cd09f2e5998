/** Text that a model writes itself: tokens drawn from its own next-token distribution, many rows at once. */
import { elementCount } from '../../ir/type.js';
import { runtimeErrors } from '../session/errors.js';
import type { Session } from '../session/session.js';
import { type HostTensor, type TensorMap, toFloat32 } from '../session/tensor.js';
import type { Signature } from '../signature/signature.js';
import { makeFeeds } from './feeds.js';
import { mix } from './random.js';
import { hasCache } from './steps.js';

/** What is written, and how. */
export interface SampleRequest {
  /** Numbers of the rows: what a row says depends on its number and the seed, not on the rows beside it. */
  readonly rows: readonly number[];
  /** Tokens of each row, the first one included; no more than the model has room for. */
  readonly length: number;
  /** Divides the scores: below 1 what is likely becomes likelier. Above 0. */
  readonly temperature: number;
  readonly seed: number;
  /** The token that begins a document; null: one drawn from the vocabulary, each as likely. */
  readonly begin: number | null;
  /** Tokens that end a document. The next token of the row begins another one. */
  readonly ends: ReadonlySet<number>;
  /** Called before each token. */
  readonly onToken?: (done: number, total: number) => void;
}

/** A number from 0 to 1, exclusive, for one place of one row. */
export function uniformAt(seed: number, row: number, place: number): number {
  return mix(mix(seed, row + 1), place) / 2 ** 32;
}

/**
 * Token ids [rows][length]: all rows together, with the KV caches where there are some, else by running what is written again for
 * every token.
 * @throws Diagnostic OF_CANNOT_FEED, OF_RUNTIME, or OF_NOT_COMPARABLE for a model without scores, or whose scores are no numbers.
 */
export async function sampleRows(
  session: Pick<Session, 'run'>,
  signature: Signature,
  request: SampleRequest,
): Promise<number[][]> {
  const { length, temperature, seed, begin, ends } = request;
  const { driver, logits, sequence } = signature;
  if (driver?.role !== 'tokens')
    throw runtimeErrors.cannotFeed(driver?.name ?? 'tokens', 'the model takes no token ids');
  if (logits === null) throw runtimeErrors.notComparable('logits', 'the model gives no next-token scores');
  const cached = hasCache(signature);
  // A fixed batch is filled up with rows that nobody asked for.
  const numbers = Array.from({ length: signature.batch ?? request.rows.length }, (_, i) => request.rows[i] ?? -1 - i);
  const fetch = [logits, ...(cached ? signature.caches.flatMap(({ output }) => output ?? []) : [])];
  const uniform = (row: number, place: number): number => uniformAt(seed, numbers[row] as number, place);
  const first = (row: number, place: number): number =>
    begin ?? Math.floor(uniform(row, place) * (signature.vocabulary ?? 1));
  const written = numbers.map((_, row) => [first(row, 0)]);
  let past: TensorMap | undefined;
  for (let at = 1; at < length; at++) {
    request.onToken?.(at, length);
    const fresh = cached ? written.map((ids) => ids.slice(at - 1)) : written;
    const padding = sequence === null ? 0 : sequence - (fresh[0]?.length ?? 0);
    const padded = padding > 0 ? fresh.map((ids) => [...ids, ...new Array<number>(padding).fill(0)]) : fresh;
    const feeds = makeFeeds(signature, {
      tokenIds: padded,
      pastLength: cached ? at - 1 : 0,
      padding,
      ...(past ? { past } : {}),
    });
    const outputs = await session.run(feeds.tensors, fetch);
    if (cached) past = outputs;
    const scores = lastScores(outputs.get(logits), numbers.length, fresh[0]?.length ?? 1);
    for (const [row, ids] of written.entries()) {
      const isOver = ends.has(ids[at - 1] as number);
      const start = row * scores.stride + scores.offset;
      const width = Math.min(scores.width, signature.vocabulary ?? scores.width);
      ids.push(isOver ? first(row, at) : drawFrom(scores.values, start, width, temperature, uniform(row, at)));
    }
  }
  return written.slice(0, request.rows.length);
}

function lastScores(tensor: HostTensor | undefined, rows: number, tokens: number) {
  if (!tensor) throw runtimeErrors.notComparable('logits', 'the run gave no next-token scores');
  const width = tensor.dims[tensor.dims.length - 1] ?? 0;
  const positions = elementCount(tensor.dims) / width / rows;
  // Some models give the scores of the last position only.
  const offset = (Math.min(tokens, positions) - 1) * width;
  return { values: toFloat32(tensor), width, stride: positions * width, offset };
}

let shares = new Float64Array(0);

/**
 * The id of `width` scores, counted from `start`, at which the distribution softmax(scores / temperature) has grown beyond `uniform`.
 * @throws Diagnostic OF_NOT_COMPARABLE for scores that are no numbers.
 */
export function drawFrom(
  scores: Float32Array,
  start: number,
  width: number,
  temperature: number,
  uniform: number,
): number {
  if (shares.length < width) shares = new Float64Array(width);
  let most = Number.NEGATIVE_INFINITY;
  for (let i = start; i < start + width; i++) if ((scores[i] as number) > most) most = scores[i] as number;
  let sum = 0;
  for (let i = 0; i < width; i++) {
    const share = Math.exp(((scores[start + i] as number) - most) / temperature);
    shares[i] = share;
    sum += share;
  }
  if (!Number.isFinite(sum)) throw runtimeErrors.notComparable('logits', 'the model gives scores that are no numbers');
  let left = uniform * sum;
  let last = 0;
  for (let i = 0; i < width; i++) {
    const share = shares[i] as number;
    if (share === 0) continue;
    last = i;
    left -= share;
    if (left < 0) return i;
  }
  // Rounding may leave a hair.
  return last;
}
