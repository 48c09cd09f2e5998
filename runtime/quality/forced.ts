import { makeFeeds } from '../run/feeds.js';
import { hasCache, stepOf } from '../run/steps.js';
import { runtimeErrors } from '../session/errors.js';
import type { Session } from '../session/session.js';
import type { TensorMap } from '../session/tensor.js';
import type { Signature } from '../signature/signature.js';

/** Sequences of one length that run together. */
export interface TokenBatch {
  readonly sequences: readonly (readonly number[])[];
}

/** Next-token scores, row-major. Position i is what comes after token i. */
export interface Scores {
  readonly logits: Float32Array;
  readonly shape: readonly [rows: number, positions: number, vocabulary: number];
}

/**
 * How sequences go through a model: all rows at once, row by row, or token by token through the KV cache. Some exports
 * cannot run a batch of two, others no more than one token.
 */
export type Way = 'batch' | 'rows' | 'tokens';

/** Bytes of float32 scores of one batch, unless told otherwise. */
export const BATCH_BYTES = 128 * 2 ** 20;

/** How sequences are put into batches. */
export interface BatchOptions {
  /** Most bytes of float32 scores [rows, length, vocabulary] in one batch; a batch has one row at least. */
  readonly bytes?: number;
  /** Most rows of a batch; 16 by default. */
  readonly rows?: number;
}

/**
 * Groups sequences into batches the model can run: of one length, so that nothing is padded in between, as many rows as
 * fit, in the order of first appearance of a length. A model of fixed length gets sequences cut to it. Sequences of less
 * than two tokens ask nothing and are left out.
 */
export function tokenBatches(
  sequences: readonly (readonly number[])[],
  signature: Signature,
  options: BatchOptions = {},
): TokenBatch[] {
  const longest = longestSequence(signature);
  const byLength = new Map<number, (readonly number[])[]>();
  for (const sequence of sequences) {
    for (let at = 0; at + 1 < sequence.length; at += longest) {
      const piece = sequence.slice(at, at + longest);
      if (piece.length < 2) continue;
      const group = byLength.get(piece.length) ?? [];
      byLength.set(piece.length, group);
      group.push(piece);
    }
  }
  const batches: TokenBatch[] = [];
  for (const [length, group] of byLength) {
    const each = 4 * length * (signature.vocabulary ?? 1);
    const fitting = Math.max(1, Math.min(options.rows ?? 16, Math.floor((options.bytes ?? BATCH_BYTES) / each)));
    const rows = signature.batch ?? fitting;
    for (let at = 0; at < group.length; at += rows) batches.push({ sequences: group.slice(at, at + rows) });
  }
  return batches;
}

/** Most tokens of one sequence, from fixed lengths, tables of positions and caches of fixed size; Infinity without. */
export function longestSequence(signature: Signature): number {
  const { sequence, positions, caches } = signature;
  const sizes = caches.map((port) => (port.rolling ? null : port.capacity));
  const fixed = sequence !== null && !(sequence === 1 && hasCache(signature)) ? sequence : null;
  return Math.min(...[...sizes, fixed, positions].map((size) => size ?? Number.POSITIVE_INFINITY));
}

/**
 * The scores of a batch, run in the given way. `extra` are further feeds, over those that the signature asks for (gates
 * of an instrumented graph).
 * @throws Diagnostic OF_CANNOT_FEED, OF_RUNTIME, or OF_NOT_COMPARABLE for a model without scores of every position.
 */
export async function forcedScores(
  session: Pick<Session, 'run'>,
  signature: Signature,
  batch: TokenBatch,
  way: Way,
  extra: TensorMap = new Map(),
): Promise<Scores> {
  const { sequences } = batch;
  if (signature.past) {
    const why = `it has a past of ${signature.past} positions in every run: a text cannot begin`;
    throw runtimeErrors.cannotFeed(signature.driver?.name ?? 'tokens', why);
  }
  const length = sequences[0]?.length ?? 0;
  const fixed = signature.batch;
  const group = way === 'rows' ? (fixed ?? 1) : (fixed ?? sequences.length);
  const step = way === 'tokens' ? 1 : length;
  let logits: Float32Array | null = null;
  let width = 0;
  for (let row = 0; row < sequences.length; row += group) {
    const own = sequences.slice(row, row + group);
    // A model of a fixed batch gets its last row again; the scores of the copies are dropped.
    const rows = Array.from({ length: group }, (_, i) => own[Math.min(i, own.length - 1)] as readonly number[]);
    let past: TensorMap | undefined;
    for (let at = 0; at < length; at += step) {
      const found = await runPiece(session, signature, { rows, at, step, past, extra });
      past = found.outputs;
      width = found.shape[2];
      logits ??= new Float32Array(sequences.length * length * width);
      for (let i = 0; i < own.length; i++) {
        const from = i * found.shape[1] * width;
        logits.set(found.logits.subarray(from, from + step * width), ((row + i) * length + at) * width);
      }
    }
  }
  if (!logits) throw runtimeErrors.notComparable('logits', 'there is no sequence to run');
  return { logits, shape: [sequences.length, length, width] };
}

interface Piece {
  readonly rows: readonly (readonly number[])[];
  readonly at: number;
  readonly step: number;
  readonly past: TensorMap | undefined;
  readonly extra: TensorMap;
}

async function runPiece(session: Pick<Session, 'run'>, signature: Signature, piece: Piece) {
  const { rows, at, step, past, extra } = piece;
  if (signature.logits === null) throw runtimeErrors.notComparable('logits', 'the model gives no next-token scores');
  const fresh = rows.map((row) => row.slice(at, at + step));
  // A model of fixed length is filled up; what follows a position does not change its scores.
  const padding = Math.max(0, (signature.sequence ?? step) - step);
  const padded = padding > 0 ? fresh.map((row) => [...row, ...new Array<number>(padding).fill(0)]) : fresh;
  const feeds = makeFeeds(signature, { tokenIds: padded, pastLength: at, padding, ...(past ? { past } : {}) });
  for (const [name, tensor] of extra) feeds.tensors.set(name, tensor);
  // Caches are copied out of the runtime, so they are asked for only when they are fed back.
  const caches = signature.caches.flatMap((port) => port.output ?? []);
  const fetch = step < (rows[0]?.length ?? 0) ? [signature.logits, ...caches] : [signature.logits];
  const outputs = await session.run(feeds.tensors, fetch);
  const { logits, shape } = stepOf(signature, outputs, at, step, rows.length);
  if (!logits || shape[1] < step) {
    throw runtimeErrors.notComparable(signature.logits, `it has the scores of ${shape[1]} of ${step} positions`);
  }
  return { logits, shape, outputs };
}

/**
 * A scorer over one session. The way is found on the first batch: all rows at once, else row by row, else, with a cache,
 * token by token; `way` tells which it is, null before the first batch.
 */
export class ForcedScorer {
  #way: Way | null;

  constructor(
    readonly session: Pick<Session, 'run'>,
    readonly signature: Signature,
    way: Way | null = null,
  ) {
    const single = signature.sequence === 1 && hasCache(signature);
    this.#way = way ?? (single ? 'tokens' : null);
  }

  get way(): Way | null {
    return this.#way;
  }

  /** @throws Diagnostic as `forcedScores`; when no way works, the reason of the first one. */
  async scores(batch: TokenBatch, extra?: TensorMap): Promise<Scores> {
    if (this.#way) return forcedScores(this.session, this.signature, batch, this.#way, extra);
    const ways: Way[] = ['batch', 'rows'];
    if (hasCache(this.signature) && (this.signature.sequence ?? 1) === 1) ways.push('tokens');
    let failure: unknown;
    for (const way of ways) {
      try {
        const scores = await forcedScores(this.session, this.signature, batch, way, extra);
        this.#way = way;
        return scores;
      } catch (error) {
        if (!runtimeErrors.runtimeFailed.is(error) && !runtimeErrors.notComparable.is(error)) throw error;
        failure ??= error;
      }
    }
    throw failure;
  }
}
