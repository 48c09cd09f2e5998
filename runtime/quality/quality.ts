/** How good a changed model still is, on text: both models are told the true tokens and asked for the next one. */

import { runtimeErrors } from '../session/errors.js';
import { compareRow, logNormaliser } from '../verify/compare.js';
import type { Scores, TokenBatch } from './forced.js';

/** How near a changed model's next-token distributions are to the original's, over all positions of some text. */
export interface Quality {
  /** Mean KL(original || changed), nats per token. Infinity when the changed model gives scores that are no numbers. */
  readonly kl: number;
  /** The largest of one position. */
  readonly maxKl: number;
  /** exp of the mean negative log-likelihood of the text's own next tokens, by the changed model. */
  readonly perplexity: number;
  /** The same by the original, where it does not stand beside. */
  readonly originalPerplexity?: number;
  /** Perplexity of the changed model over that of the original, minus 1. */
  readonly perplexityIncrease: number;
  /** Share of positions whose most likely token is the original's; whose most likely token is among the original's five. */
  readonly top1: number;
  readonly top5: number;
  /**
   * Mean of sum min(p, q): the share of tokens drafted by the changed model that speculative sampling takes. 0 at a position where
   * it gives no numbers, null where it was not measured.
   */
  readonly overlap: number | null;
  /** Mean KL by position in the sequence. */
  readonly klByPosition: readonly number[];
  /** Positions that were judged: each has a next token in the text. */
  readonly positions: number;
}

/** Quality of which everything was measured. */
export interface FullQuality extends Quality {
  readonly overlap: number;
}

/**
 * Adds up quality over batches, in float64. What it keeps does not grow with the vocabulary, so the scores of a batch can
 * be dropped once it is added.
 */
export class QualityMeter {
  #positions = 0;
  #kl = 0;
  #maxKl = 0;
  #top1 = 0;
  #top5 = 0;
  #overlap = 0;
  readonly #loss = { reference: 0, candidate: 0 };
  readonly #byPosition: { sum: number; count: number }[] = [];

  /**
   * Adds a batch: `scores` [rows, positions, vocabulary] of both models for the same tokens.
   * @throws Diagnostic OF_NOT_COMPARABLE when the shapes differ, or the reference itself gives no numbers.
   */
  add(batch: TokenBatch, reference: Scores, candidate: Scores): void {
    const [rows, positions, width] = reference.shape;
    if (reference.shape.join() !== candidate.shape.join()) {
      throw runtimeErrors.notComparable('logits', `its shape is [${reference.shape}] and [${candidate.shape}]`);
    }
    for (const [row, sequence] of batch.sequences.entries()) {
      if (row >= rows) break;
      for (let at = 0; at + 1 < sequence.length && at < positions; at++) {
        this.#addRow(reference.logits, candidate.logits, (row * positions + at) * width, width, {
          at,
          target: sequence[at + 1] as number,
        });
      }
    }
  }

  #addRow(
    reference: Float32Array,
    candidate: Float32Array,
    start: number,
    width: number,
    { at, target }: { at: number; target: number },
  ): void {
    const found = compareRow(reference, start, candidate, start, width);
    if (found === null && !Number.isFinite(logNormaliser(reference, start, width))) {
      throw runtimeErrors.notComparable('logits', `the original gives scores that are no numbers, at position ${at}`);
    }
    const kl = found?.kl ?? Number.POSITIVE_INFINITY;
    this.#positions++;
    this.#kl += kl;
    if (kl > this.#maxKl) this.#maxKl = kl;
    if (found?.rank === 0) this.#top1++;
    if (found !== null && found.rank < 5) this.#top5++;
    this.#overlap += found?.overlap ?? 0;
    const [left, right] = found?.normalisers ?? [logNormaliser(reference, start, width), Number.POSITIVE_INFINITY];
    this.#loss.reference += left - (reference[start + target] as number);
    this.#loss.candidate += found ? right - (candidate[start + target] as number) : Number.POSITIVE_INFINITY;
    let place = this.#byPosition[at];
    if (!place) this.#byPosition[at] = place = { sum: 0, count: 0 };
    place.sum += kl;
    place.count++;
  }

  /** Perplexity of the original, on what was added so far. */
  get originalPerplexity(): number {
    return Math.exp(this.#loss.reference / this.#positions);
  }

  /** @throws Diagnostic OF_NOT_COMPARABLE when no position was added. */
  result(): FullQuality {
    const count = this.#positions;
    if (count === 0) throw runtimeErrors.notComparable('logits', 'there is no position to judge');
    const { reference, candidate } = this.#loss;
    return {
      kl: this.#kl / count,
      maxKl: this.#maxKl,
      perplexity: Math.exp(candidate / count),
      perplexityIncrease: Math.exp((candidate - reference) / count) - 1,
      top1: this.#top1 / count,
      top5: this.#top5 / count,
      overlap: this.#overlap / count,
      klByPosition: Array.from(this.#byPosition, (place) => place.sum / place.count),
      positions: count,
    };
  }
}

/** Gives the scores of a batch: a model in a session, or one with other gates. */
export type Scorer = (batch: TokenBatch) => Promise<Scores>;

/**
 * Runs both on every batch, one batch at a time, so that no more than one batch of scores of each is in memory.
 * @throws Diagnostic OF_NOT_COMPARABLE, and what the scorers throw.
 */
export async function measureQuality(
  batches: readonly TokenBatch[],
  reference: Scorer,
  candidate: Scorer,
  onBatch: (done: number, total: number) => void = () => {},
): Promise<{ readonly quality: FullQuality; readonly originalPerplexity: number }> {
  const meter = new QualityMeter();
  for (const [index, batch] of batches.entries()) {
    onBatch(index, batches.length);
    meter.add(batch, await reference(batch), await candidate(batch));
  }
  return { quality: meter.result(), originalPerplexity: meter.originalPerplexity };
}

/**
 * The same scorer, which keeps what it gave as long as that is at most `bytes` in all; batches beyond are computed again.
 * For the original, which many candidates are held against.
 */
export function remembering(scorer: Scorer, bytes: number): Scorer {
  const kept = new Map<TokenBatch, Scores>();
  let held = 0;
  return async (batch) => {
    const known = kept.get(batch);
    if (known) return known;
    const scores = await scorer(batch);
    if (held + scores.logits.byteLength <= bytes) {
      held += scores.logits.byteLength;
      kept.set(batch, scores);
    }
    return scores;
  };
}
