/** Whether a model that decodes token by token through its KV cache says the same as in one prefill. */

import type { Model } from '../../ir/core.js';
import { counted } from '../../ir/visible.js';
import { hasCache } from '../run/steps.js';
import { runtimeErrors } from '../session/errors.js';
import type { Session } from '../session/session.js';
import type { Signature } from '../signature/signature.js';
import { compareOutputs } from '../verify/compare.js';
import { type Tolerance, toleranceFor } from '../verify/tolerance.js';
import { forcedScores, type Scores, type TokenBatch, tokenBatches } from './forced.js';

/** The scores of the same tokens, in one prefill and token by token. */
export interface DecodeAgreement {
  readonly rows: number;
  /** Tokens of each row. */
  readonly tokens: number;
  /** ||prefill - decode|| / ||prefill|| of the scores, in the L2 norm; Infinity where decoding gives no numbers. */
  readonly relative: number;
  /** Share of positions with the same most likely token; null when no row of scores is finite on both sides. */
  readonly top1: number | null;
  /** Largest relative error that the order of additions explains, in the precision the model computes in. */
  readonly tolerance: number;
  readonly precision: Tolerance['precision'];
  readonly agrees: boolean;
}

/** Why a model was not made to decode. */
export interface NoDecode {
  readonly skipped: string;
}

/** Most tokens and rows that are decoded one by one: each costs a run, and caches go in and out at every one. */
export const DECODE_TOKENS = 64;
/** Most rows of `decodeBatch`. */
export const DECODE_ROWS = 2;

/** The beginnings of the first rows of one length, as many as are decoded; null when no row has two tokens. */
export function decodeBatch(sequences: readonly (readonly number[])[], signature: Signature): TokenBatch | null {
  const starts = sequences.map((row) => row.slice(0, DECODE_TOKENS));
  const longest = Math.max(0, ...starts.map((row) => row.length));
  const rows = starts.filter((row) => row.length === longest).slice(0, DECODE_ROWS);
  return tokenBatches(rows, signature)[0] ?? null;
}

/**
 * Runs `batch` as one prefill and token by token.
 * @throws Diagnostic OF_RUNTIME, OF_CANNOT_FEED or OF_NOT_COMPARABLE when decoding fails.
 */
export async function measureDecode(
  session: Pick<Session, 'run'>,
  model: Model,
  signature: Signature,
  batch: TokenBatch,
): Promise<DecodeAgreement | NoDecode> {
  if (!hasCache(signature)) return { skipped: 'the model has no KV cache' };
  if (signature.sequence === 1) return { skipped: 'the model takes one token at a time: it has no prefill' };
  if (signature.sequence !== null) return { skipped: 'the model has a fixed length: it takes no single token' };
  const whole = await prefill(session, signature, batch);
  if ('skipped' in whole) return whole;
  const decoded = await forcedScores(session, signature, batch, 'tokens');
  const { relative: tolerance, precision } = toleranceFor(model);
  const { outputs, logits } = compareOutputs(asOutput(whole), asOutput(decoded), LOGITS);
  const relative = outputs[0]?.relative ?? Number.POSITIVE_INFINITY;
  return {
    rows: whole.shape[0],
    tokens: whole.shape[1],
    relative,
    top1: logits?.top1 ?? null,
    tolerance,
    precision,
    agrees: relative <= tolerance,
  };
}

/** All rows at once, or row by row; some exports run neither. */
async function prefill(
  session: Pick<Session, 'run'>,
  signature: Signature,
  batch: TokenBatch,
): Promise<Scores | NoDecode> {
  let reason = '';
  for (const way of ['batch', 'rows'] as const) {
    try {
      return await forcedScores(session, signature, batch, way);
    } catch (error) {
      if (!runtimeErrors.runtimeFailed.is(error)) throw error;
      reason ||= error.text;
    }
  }
  return { skipped: `the model runs no prefill of ${counted(batch.sequences[0]?.length ?? 0, 'token')}: ${reason}` };
}

const LOGITS = 'logits';

function asOutput({ logits, shape }: Scores) {
  return new Map([[LOGITS, { dtype: 'float' as const, dims: [...shape], data: logits }]]);
}
