/** Two models that are run on the same text: both open at once where memory allows, else one after the other. */

import { checkClaim } from '../run/room.js';
import { runtimeErrors } from '../session/errors.js';
import { fitsInMemory, type MemoryNeed, weightBytes } from '../session/memory.js';
import { openSession, placeOf, type SessionOptions } from '../session/session.js';
import { readSignature, type Signature } from '../signature/signature.js';
import { isBounded } from '../verify/bounded.js';
import type { Candidate } from '../verify/verify.js';
import { ForcedScorer, type Scores, type TokenBatch } from './forced.js';
import { type FullQuality, QualityMeter } from './quality.js';

/** Which of the two models. */
export type Side = 0 | 1;

/** How two models share the memory of this machine. */
export interface PairMemory {
  /** Whether both are open at once. */
  readonly together: boolean;
  /** Bytes of the original's scores that may be kept until the other model is open; 0 when both are. */
  readonly keptBytes: number;
}

/** Most bytes of scores kept, whatever is free. */
const MOST_KEPT = 2 ** 30;

/**
 * Decides from what each model needs and what is free.
 * @throws Diagnostic OF_MEMORY when the larger one does not fit alone.
 */
export function sharedMemory(places: readonly [string, string], needs: readonly [MemoryNeed, MemoryNeed]): PairMemory {
  const [a, b] = needs;
  const have = Math.min(a.have, b.have);
  const larger: Side = a.need >= b.need ? 0 : 1;
  if (needs[larger].need > have) throw runtimeErrors.memory(places[larger], needs[larger].need, have);
  if (a.need + b.need <= have) return { together: true, keptBytes: 0 };
  return { together: false, keptBytes: Math.min(MOST_KEPT, have - needs[larger].need) };
}

/** One that is run in pieces takes what there is. */
function needOf(candidate: Candidate): MemoryNeed {
  const found = fitsInMemory(candidate.model);
  return isBounded(candidate) ? { ...found, need: Math.min(found.need, found.have) } : found;
}

/** Two models, opened as they are used. Native memory: call `close`. */
export class SessionPair {
  readonly signatures: readonly [Signature, Signature];
  readonly memory: PairMemory;
  readonly #pair: readonly [Candidate, Candidate];
  readonly #options: SessionOptions;
  readonly #open: [ForcedScorer | null, ForcedScorer | null] = [null, null];
  #release: (() => Promise<void>)[] = [];

  /** @throws Diagnostic OF_MEMORY. A GPU's own memory is not asked: there both are open. */
  constructor(pair: readonly [Candidate, Candidate], options: SessionOptions, memory?: PairMemory) {
    this.#pair = pair;
    this.#options = options;
    this.signatures = [readSignature(pair[0].model), readSignature(pair[1].model)];
    for (const [i, { location }] of pair.entries()) checkClaim(this.signatures[i] as Signature, placeOf(location));
    const onCpu = (options.provider ?? 'cpu') === 'cpu';
    this.memory =
      memory ??
      (onCpu
        ? sharedMemory([placeOf(pair[0].location), placeOf(pair[1].location)], [needOf(pair[0]), needOf(pair[1])])
        : { together: true, keptBytes: 0 });
  }

  /** Runs `body` with one of the models. @throws Diagnostic as `openSession`. */
  async use<T>(side: Side, body: (scorer: ForcedScorer) => Promise<T>): Promise<T> {
    let scorer = this.#open[side];
    if (!scorer) {
      if (!this.memory.together) await this.close();
      const { location, model, open } = this.#pair[side];
      const session = open
        ? await open(this.#options)
        : await openSession(location, { ...this.#options, weightBytes: weightBytes(model) });
      this.#release.push(() => session.release());
      scorer = new ForcedScorer(session, this.signatures[side]);
      this.#open[side] = scorer;
    }
    return body(scorer);
  }

  /** Closes what is open. It may be used again. */
  async close(): Promise<void> {
    const releases = this.#release;
    this.#release = [];
    this.#open.fill(null);
    for (const release of releases) await release();
  }

  /**
   * `measureQuality` of the second model against the first. When they take turns, as many batches go through the first
   * one as their scores can be kept.
   * @throws Diagnostic OF_NOT_COMPARABLE, OF_RUNTIME and others.
   */
  async quality(
    batches: readonly TokenBatch[],
    onBatch: (done: number, total: number) => void = () => {},
  ): Promise<{ readonly quality: FullQuality; readonly originalPerplexity: number }> {
    const meter = new QualityMeter();
    let done = 0;
    while (done < batches.length) {
      const first = done;
      const kept: Scores[] = [];
      await this.use(0, async (scorer) => {
        let bytes = 0;
        do {
          onBatch(done, batches.length);
          const scores = await scorer.scores(batches[done++] as TokenBatch);
          kept.push(scores);
          bytes += scores.logits.byteLength;
        } while (done < batches.length && bytes + (kept.at(-1)?.logits.byteLength ?? 0) <= this.memory.keptBytes);
      });
      await this.use(1, async (scorer) => {
        for (const [i, scores] of kept.entries()) {
          const batch = batches[first + i] as TokenBatch;
          meter.add(batch, scores, await scorer.scores(batch));
        }
      });
    }
    return { quality: meter.result(), originalPerplexity: meter.originalPerplexity };
  }
}
