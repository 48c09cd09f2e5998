/** A decoder in pieces, and the text on which its plans are measured and maps are fitted. */
import {
  type CanonicalFit,
  cutPieces,
  type Fit,
  type Fits,
  type JudgeOptions,
  ORIGINAL,
  type PieceModel,
  type Quality,
  qualityOf,
  type SessionOptions,
  StreamRunner,
  StreamText,
  TensorStore,
  type TokenBatch,
  tokenBatches,
  type WalkPlan,
} from '../../runtime/index.js';
import { runtimeErrors } from '../../runtime/session/errors.js';
import { type MapForm, WHOLE_MAPS } from './map-form.js';
import { type DraftMove, type PlanMove, walkOf, walkWith } from './moves.js';
import type { PlanTexts } from './texts.js';

/** The ridge of maps that are only fitted to be searched with, in parts of the mean diagonal. */
const SEARCH_RIDGE = 0.03;
/** Bytes of such maps that are held in memory. */
const HELD_BYTES = 256 * 2 ** 20;
/** Tokens of a batch: what is computed for one is in memory together. */
const BATCH_TOKENS = 512;

/** Quality, and the perplexity of the original on the same text. */
export type Measured = ReturnType<typeof qualityOf>;

/** Measures plans of one model. */
export class Measurement {
  readonly #text: StreamText;
  #check: StreamText | null = null;
  /** Maps that were fitted for a move alone. */
  readonly #maps = new TensorStore(HELD_BYTES);
  readonly #fits = new Map<string, Fit>();

  private constructor(
    readonly model: PieceModel,
    readonly runner: StreamRunner,
    readonly texts: PlanTexts,
    /** Most tokens of a batch; a batch has one row at least. */
    readonly batchTokens: number,
    /** Of maps that stay; those that are only searched with have the rank, and the type of the activations. */
    readonly form: MapForm,
  ) {
    this.#text = new StreamText(runner, this.batchesOf(texts.fit), this.batchesOf(texts.search));
  }

  /** @throws Diagnostic OF_CANNOT_INSTRUMENT, OF_RUNTIME, OF_NO_RUNTIME. */
  static async open(
    path: string,
    texts: PlanTexts,
    options: SessionOptions,
    form: MapForm = WHOLE_MAPS,
  ): Promise<Measurement> {
    const model = cutPieces(path);
    const runner = new StreamRunner(model, options);
    return new Measurement(model, runner, texts, (await runsRowsTogether(runner)) ? BATCH_TOKENS : 0, form);
  }

  /** How many pieces one walk runs over the text to search on, to fit on and to check on. */
  get work() {
    const walk = (sequences: PlanTexts['fit']): number => this.model.pieces.length * this.batchesOf(sequences).length;
    const { fit, search, check } = this.texts;
    return { search: walk(search), fit: walk(fit), check: walk(check) };
  }

  /** Runs the original over the text to fit and to search on. */
  prepare(onPiece: (done: number, total: number) => void): Promise<void> {
    return this.#text.prepare(onPiece);
  }

  /** The model as it is, on the text that is searched on. */
  async unchanged(): Promise<Measured> {
    return qualityOf((await this.#text.judge(ORIGINAL)).judgements);
  }

  /** 1 - cos of the original's stream before a piece and before another, on the text that is searched on. */
  distance(from: number, to: number): number {
    return this.#text.distance(from, to);
  }

  /** How linear the attention at a piece is, and its map, both as in NBL; on the text to fit on. */
  linearity(piece: number): Promise<CanonicalFit | null> {
    return this.#text.linearity(piece);
  }

  /** One move alone, on at most `batches` batches; a map is fitted, once, on what the original computes. */
  async alone(move: DraftMove, batches: number): Promise<Quality> {
    const moves = [{ ...move, kl: 0 }];
    const isKnown = [...move.changes].every(([i, change]) => change === 'remove' || this.#fits.has(`${move.key} ${i}`));
    const plan = isKnown ? await this.#walkApart(moves) : walkOf(moves, this.model.pieces);
    const { fits, judgements } = await this.#judge(plan, { batches, ridges: [SEARCH_RIDGE] });
    if (!isKnown) this.#keep(move, fits);
    return qualityOf(judgements);
  }

  /** Moves together, on the text that is searched on, with the maps that were fitted for each alone. */
  async together(moves: readonly PlanMove[]): Promise<Quality> {
    return qualityOf((await this.#text.judge(await this.#walkApart(moves))).judgements);
  }

  /** The same with maps that are fitted one after another, each on what the model computes with those before it. */
  async fitted(
    moves: readonly PlanMove[],
    options: Pick<JudgeOptions, 'ridges'> = {},
  ): Promise<{ readonly quality: Quality; readonly fits: Fits }> {
    const { fits, judgements } = await this.#judge(walkOf(moves, this.model.pieces), options);
    return { quality: qualityOf(judgements), fits };
  }

  /** The maps of a plan that stays: fitted one after another on all text that may be, what is searched on included. */
  async finalFits(moves: readonly PlanMove[]): Promise<Fits> {
    const how = { batches: 0, onAll: true, bits: this.form.quantizeMaps };
    return (await this.#judge(walkOf(moves, this.model.pieces), how)).fits;
  }

  /** A plan on the text that nothing was fitted or chosen on, over which the original is run once for all. */
  async checked(plan: WalkPlan, onPiece: (done: number, total: number) => void = () => {}): Promise<Measured> {
    if (!this.#check) {
      this.#check = new StreamText(this.runner, [], this.batchesOf(this.texts.check));
      await this.#check.prepare(onPiece);
    }
    return qualityOf((await this.#check.judge(plan, { withOverlap: true })).judgements);
  }

  async release(): Promise<void> {
    this.#maps.release();
    await this.#check?.release();
    await this.#text.release();
    await this.runner.release();
  }

  batchesOf(sequences: PlanTexts['fit']): TokenBatch[] {
    const longest = Math.max(1, ...sequences.map(({ length }) => length));
    return tokenBatches(sequences, this.model.signature, { rows: Math.max(1, Math.floor(this.batchTokens / longest)) });
  }

  /** The maps that were fitted for each of these moves alone, by piece. */
  async fitsApart(moves: readonly PlanMove[]): Promise<Fits> {
    const fits = new Map<number, Fit>();
    for (const move of moves) {
      for (const [i, change] of move.changes) if (change === 'map') fits.set(i, await this.#fitOf(move, i));
    }
    return new Map([...fits].sort(([a], [b]) => a - b));
  }

  /** What is fitted on the way has the rank that was asked for. */
  #judge(plan: WalkPlan, options: JudgeOptions): ReturnType<StreamText['judge']> {
    return this.#text.judge(plan, { ...options, rank: this.form.mapRank });
  }

  async #walkApart(moves: readonly PlanMove[]): Promise<WalkPlan> {
    return walkWith(moves, this.model.pieces, await this.fitsApart(moves));
  }

  #keep(move: DraftMove, fits: Fits): void {
    for (const [i, { map, ...fit }] of fits) {
      const key = `${move.key} ${i}`;
      this.#fits.set(key, { ...fit, map: null });
      if (!map) continue;
      this.#maps.put(`${key} weight`, { dtype: 'float', dims: [map.weight.length], data: map.weight });
      this.#maps.put(`${key} bias`, { dtype: 'float', dims: [map.bias.length], data: map.bias });
    }
  }

  /** What was fitted for the move alone, or is now: a run that goes on where it was has the scores, not the maps. */
  async #fitOf(move: PlanMove, i: number): Promise<Fit> {
    const key = `${move.key} ${i}`;
    if (!this.#fits.has(key)) await this.alone(move, 0);
    const fit = this.#fits.get(key) as Fit;
    if (fit.kind === 'nothing') return fit;
    const values = (part: string): Float32Array => this.#maps.get(`${key} ${part}`).data as Float32Array;
    return { ...fit, map: { weight: values('weight'), bias: values('bias') } };
  }
}

/** Whether the model takes two rows at once: some exports do not. */
async function runsRowsTogether(runner: StreamRunner): Promise<boolean> {
  const { batch, sequence } = runner.model.signature;
  // Where shapes are fixed they say so themselves.
  if (batch !== null || sequence !== null) return true;
  const rows = [0, 1].map((row) => [0, 0, 0, row]);
  const text = new StreamText(runner, [], [{ sequences: rows }]);
  try {
    await text.prepare();
    return true;
  } catch (error) {
    if (runtimeErrors.runtimeFailed.is(error)) return false;
    throw error;
  } finally {
    await text.release();
  }
}
