/** A model with gates in one session: for what pieces do not say, which is how blocks depend on each other, and orders of FFNs. */
import {
  type DetailedScores,
  ForcedScorer,
  type GatedModel,
  gateFeeds,
  gateModel,
  measureQuality,
  measureScores,
  NO_CHANGE,
  openGated,
  remembering,
  type Scorer,
  type Session,
  scoreRows,
  type TokenBatch,
  tokenBatches,
} from '../../runtime/index.js';
import type { LayerChoice, Quality } from './plan-file.js';
import type { Sequences } from './texts.js';

/** Sequences that scores are measured on: every layer costs three runs of each. */
const SCORED = 16;
/** Bytes of the original's scores that are kept; others are computed again for every plan. */
const KEPT_BYTES = 512 * 2 ** 20;

/** Text that a model with gates is run on. */
export class GatedText {
  /** Scores of the original; what was computed is kept, as far as it fits. */
  readonly reference: Scorer;
  readonly batches: readonly TokenBatch[];
  readonly #scorer: ForcedScorer;

  private constructor(
    readonly path: string,
    readonly sequences: Sequences,
    readonly gated: GatedModel,
    readonly session: Session,
  ) {
    this.#scorer = new ForcedScorer(session, gated.signature);
    this.reference = remembering(this.#scorerOf(NO_CHANGE), KEPT_BYTES);
    this.batches = tokenBatches(sequences, gated.signature);
  }

  /** @throws Diagnostic OF_CANNOT_INSTRUMENT, OF_RUNTIME, OF_NO_RUNTIME. */
  static async open(path: string, sequences: Sequences): Promise<GatedText> {
    const gated = gateModel(path);
    return new GatedText(path, sequences, gated, await openGated(gated));
  }

  /** How good the model is with this choice of layers, which has no maps. */
  async quality(choice: LayerChoice): Promise<Quality> {
    return (await measureQuality(this.batches, this.reference, this.#scorerOf(choice))).quality;
  }

  /** How much the model needs each layer, and blocks each other. `hidden`: width of its residual stream. */
  scores(hidden: number, onRun: (done: number, total: number) => void): Promise<DetailedScores> {
    const few = this.sequences.slice(0, SCORED);
    const rows = scoreRows(this.gated, hidden, Math.max(...few.map((each) => each.length)));
    const batches = tokenBatches(few, this.gated.signature, { rows: Math.min(rows, SCORED) });
    return measureScores(this.gated, this.session, batches, onRun);
  }

  release(): Promise<void> {
    return this.session.release();
  }

  #scorerOf(choice: LayerChoice): Scorer {
    const feeds = gateFeeds(this.gated.plan, choice);
    return (batch) => this.#scorer.scores(batch, feeds);
  }
}
