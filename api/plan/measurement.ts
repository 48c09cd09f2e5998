/** A model with gates in one session, and the text on which its plans are measured. */
import type { Model } from '../../ir/index.js';
import {
  ForcedScorer,
  type GatedModel,
  gateFeeds,
  gateModel,
  measureQuality,
  measureScores,
  NO_CHANGE,
  openGated,
  readSignature,
  remembering,
  type Scorer,
  type Session,
  scoreRows,
  shuffled,
  type TokenBatch,
  tokenBatches,
} from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { codecFor } from '../tokens/text-codec.js';
import { loadTokenData, type TokenData } from '../tokens/token-data.js';
import { measureRewritten } from './plan-ablations.js';
import type { LayerChoice, PlanOptions, PlanScores, Quality } from './plan-file.js';

/** What text to measure on. */
export interface PlanTextRequest {
  /** Text or token ids. */
  readonly data: string;
  readonly tokenizer?: string | undefined;
  readonly length?: number | undefined;
  readonly maxTokens?: number | undefined;
}

/** Sequences that scores are measured on: every layer costs three runs of each. */
const SCORED = 16;
/** Bytes of the original's scores that are kept; others are computed again for every plan. */
const KEPT_BYTES = 512 * 2 ** 20;

/** The text that a plan of the model at `path` is measured on. @throws Diagnostic OF_TOKEN_DATA, OF_USAGE, OF_READ. */
export async function readPlanText(path: string, original: Model, request: PlanTextRequest): Promise<TokenData> {
  const { vocabulary } = readSignature(original);
  const codec = await codecFor(path, vocabulary, request.tokenizer);
  const { length, maxTokens } = request;
  const limits = { ...(length === undefined ? {} : { length }), ...(maxTokens === undefined ? {} : { maxTokens }) };
  const data = await loadTokenData(request.data, { vocabulary, codec, ...limits });
  if (data.sequences.length >= 2) return data;
  throw apiErrors.tokenData(request.data, 'one sequence cannot be split into two halves');
}

/** Measures plans of one model. The text is in two halves: plans are searched on one, the choice is checked on the other. */
export class Measurement {
  /** Scores of the original; what was computed is kept, as far as it fits. */
  readonly reference: Scorer;
  readonly searched: readonly TokenBatch[];
  readonly checked: readonly TokenBatch[];
  readonly #scorer: ForcedScorer;

  private constructor(
    readonly path: string,
    readonly norm: PlanOptions['norm'],
    readonly sequences: TokenData['sequences'],
    readonly gated: GatedModel,
    readonly session: Session,
  ) {
    this.#scorer = new ForcedScorer(session, gated.signature);
    this.reference = remembering(this.#scorerOf(NO_CHANGE), KEPT_BYTES);
    const half = (odd: boolean) => tokenBatches(sequencesOf(sequences, odd), gated.signature);
    this.searched = half(false);
    this.checked = half(true);
  }

  /** @throws Diagnostic OF_CANNOT_INSTRUMENT, OF_RUNTIME, OF_NO_RUNTIME. */
  static async open(path: string, norm: PlanOptions['norm'], { sequences }: TokenData): Promise<Measurement> {
    const gated = gateModel(path);
    return new Measurement(path, norm, sequences, gated, await openGated(gated));
  }

  /** All of the text. */
  get all(): readonly TokenBatch[] {
    return [...this.searched, ...this.checked];
  }

  /** How good the model is with this choice of layers. */
  async quality(choice: LayerChoice, batches: readonly TokenBatch[]): Promise<Quality> {
    // Gates cannot say that several FFNs read one norm.
    if (this.norm === 'last' && choice.runs.length > 0) {
      return measureRewritten(this.path, choice, batches, this.reference);
    }
    return (await measureQuality(batches, this.reference, this.#scorerOf(choice))).quality;
  }

  async originalPerplexity(): Promise<number> {
    return (await measureQuality(this.all, this.reference, this.reference)).originalPerplexity;
  }

  /** How much the model needs each layer. `hidden`: width of its residual stream. */
  scores(hidden: number, onRun: (done: number, total: number) => void): Promise<PlanScores> {
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

/** Half of the sequences, by chance, but the same ones every time: records cut in two alternate in length. */
function sequencesOf(sequences: TokenData['sequences'], odd: boolean): TokenData['sequences'] {
  return sequences.filter((_, i) => shuffled([false, true], i)[0] === odd);
}

/** How many next tokens batches ask for. */
export function positionsOf(batches: readonly TokenBatch[]): number {
  return batches.reduce((sum, { sequences }) => sum + sequences.reduce((all, each) => all + each.length - 1, 0), 0);
}
