/**
 * Walks text through a decoder whose branches are kept, removed or replaced by linear maps, piece by piece and all batches
 * side by side, from the first piece that is changed; maps that are not given are fitted on the way, on the activations
 * of the model as it is by then.
 *
 * A map's target is the original's stream at the point that the next branch reads: where several branches go together, one
 * map stands for all of them. In a run, whose branches all read its start, the map stands beside the FFNs and its target
 * is the original's stream behind the run.
 */
import { Distance } from '../quality/distance.js';
import type { TokenBatch } from '../quality/forced.js';
import type { HostTensor } from '../session/tensor.js';
import { fillTensor, toFloat32 } from '../session/tensor.js';
import type { BranchPiece, StreamPiece } from '../stream/pieces.js';
import type { LinearMap, StreamRunner } from '../stream/runner.js';
import { type Judgement, REFERENCE } from '../stream/scores.js';
import { TensorStore } from '../stream/tensor-store.js';
import { type BranchRows, type CanonicalFit, canonicalFit } from './canonical.js';
import { type Fit, type FitOptions, fitMap, RIDGES } from './fit.js';
import { Gram, GramMachine } from './gram.js';
import { Products } from './products.js';

/** `map`: a linear map is fitted and stands there when unseen text agrees; a map that is given stands there as it is. */
export type BranchChange = 'remove' | 'map' | LinearMap;

/** What becomes of branches, by their index among the pieces: those that are not named stay. */
export interface WalkPlan {
  readonly changes: ReadonlyMap<number, BranchChange>;
  /** Stretches [first, last] of pieces whose branches all read the start of the stretch. */
  readonly runs: readonly (readonly [number, number])[];
}

/** The walk that changes nothing. */
export const ORIGINAL: WalkPlan = { changes: new Map(), runs: [] };

/** What was fitted, by the index of the piece. */
export type Fits = ReadonlyMap<number, Fit>;

/** Of ridges that are not given the one that is best for the branch alone is taken. */
export interface JudgeOptions extends FitOptions {
  /** Batches of the unseen text that are judged; all by default, and with 0 maps are only fitted. */
  readonly batches?: number;
  /** Also how much both distributions overlap. */
  readonly withOverlap?: boolean;
}

/** Of a branch for which alone no map was worth anything. */
const DEFAULT_RIDGE = 0.1;

/** Bytes of streams that are held in memory; more goes to a temporary file. */
const HELD_BYTES = 320 * 2 ** 20;

/** Bytes of the original's probabilities, up to which they are kept in float32. */
const REFERENCE_BYTES = 128 * 2 ** 20;

/** Text that the original has been run on: its streams and scores are there to start from and to be held against. */
export class StreamText {
  readonly #store = new TensorStore(HELD_BYTES);
  readonly #grams: GramMachine;
  readonly #ridges = new Map<number, number>();
  readonly #products = new Products();
  readonly #batches: readonly TokenBatch[];
  /** Of the original's probabilities: float16 where float32 would be more than is held. */
  readonly #referenceType: 'float' | 'float16';

  constructor(
    readonly runner: StreamRunner,
    /** Text to fit on, and text to judge fits and plans by. */
    readonly seen: readonly TokenBatch[],
    readonly unseen: readonly TokenBatch[],
  ) {
    this.#grams = new GramMachine(runner.options);
    this.#batches = [...seen, ...unseen];
    const tokens = unseen.flatMap(({ sequences }) => sequences).reduce((sum, { length }) => sum + length, 0);
    const bytes = 4 * tokens * (runner.model.signature.vocabulary ?? 1);
    this.#referenceType = bytes <= REFERENCE_BYTES ? 'float' : 'float16';
  }

  /** Runs the original once over all text. */
  async prepare(onPiece: (done: number, total: number) => void = () => {}): Promise<void> {
    const { pieces } = this.runner.model;
    const total = this.#batches.length;
    for (const [b, batch] of this.#batches.entries()) {
      onPiece(b, total);
      let stream = await this.runner.start(batch);
      this.#store.put(key(b, 0), stream);
      for (let i = 0; i < pieces.length; i = nextSum(pieces, i)) {
        const end = nextSum(pieces, i);
        stream = await this.#kept(i, end, ORIGINAL, stream, b);
        this.#store.put(key(b, end), stream);
      }
      if (b < this.seen.length) continue;
      const reference = await this.runner.reference(stream, batch, this.#referenceType);
      for (const [row, tensors] of reference.entries()) {
        for (const [name, tensor] of tensors) this.#store.put(`reference ${b} ${row} ${name}`, tensor);
      }
    }
  }

  /** Fits what `plan` asks for and judges the result on the unseen text. */
  async judge(
    plan: WalkPlan,
    options: JudgeOptions = {},
  ): Promise<{ readonly fits: Fits; readonly judgements: readonly Judgement[] }> {
    const { pieces } = this.runner.model;
    const fits = new Map<number, Fit>();
    const first = firstChange(plan, pieces);
    const lastFit = Math.max(-1, ...[...plan.changes].filter(([, change]) => change === 'map').map(([i]) => i));
    const unseen = this.unseen.slice(0, options.batches ?? this.unseen.length).map((_, i) => this.seen.length + i);
    // Text to fit on need not go further than the last map.
    const running = (i: number): number[] => [
      ...(i <= lastFit ? this.seen.map((_, b) => b) : []),
      ...(lastFit >= 0 && i <= lastFit ? this.unseen.map((_, u) => this.seen.length + u) : unseen),
    ];
    const streams = new Map<number, HostTensor>();
    for (const b of running(first)) streams.set(b, this.#store.get(key(b, first)));
    for (let i = first; i < pieces.length; ) {
      const run = plan.runs.find(([from]) => from === i);
      const end = run ? run[1] + 1 : nextSum(pieces, i);
      const active = running(i).filter((b) => streams.has(b));
      const starts = new Map(active.map((b) => [b, streams.get(b) as HostTensor]));
      for (const b of active) streams.set(b, await this.#kept(i, end, plan, streams.get(b) as HostTensor, b));
      for (let at = i; at < end; at++) {
        const change = plan.changes.get(at);
        const piece = pieces[at] as StreamPiece;
        if (change === undefined || change === 'remove' || piece.kind === 'passage') continue;
        if (change === 'map') {
          fits.set(at, await this.#fit(piece, starts, streams, this.#target(end, plan, run !== undefined), options));
        }
        const map = change === 'map' ? fits.get(at)?.map : change;
        if (!map) continue;
        for (const b of running(end)) {
          const [start, base] = [starts.get(b), streams.get(b)] as [HostTensor, HostTensor];
          streams.set(b, await this.runner.map(piece, map, start, base, this.#batches[b] as TokenBatch));
        }
      }
      i = end;
    }
    const judgements: Judgement[] = [];
    const how = { dtype: this.#referenceType, withOverlap: options.withOverlap ?? false };
    for (const b of unseen) {
      const batch = this.#batches[b] as TokenBatch;
      const reference = batch.sequences.map(
        (_, row) => new Map(REFERENCE.map((name) => [name, this.#store.get(`reference ${b} ${row} ${name}`)])),
      );
      judgements.push(...(await this.runner.judge(streams.get(b) as HostTensor, reference, batch, how)));
    }
    return { fits, judgements };
  }

  /**
   * Mean over the unseen positions of 1 - cos of the original's stream at the starts of two pieces: LLM-Drop's score of an
   * attention (arXiv 2406.15786), ShortGPT's of a block (arXiv 2403.03853).
   */
  distance(from: number, to: number): number {
    const distance = new Distance();
    for (let b = this.seen.length; b < this.#batches.length; b++) {
      const [before, after] = [from, to].map((piece) => toFloat32(this.#store.get(key(b, piece))));
      distance.add(before as Float32Array, after as Float32Array, this.runner.model.hidden);
    }
    return distance.mean;
  }

  /**
   * How linear the branch at piece `at`, which has its sum for itself, is on the text to fit on: NBL's score of an attention
   * (arXiv 2505.21077), and its map. Null for one of several on a sum, and where there is too little text.
   */
  async linearity(at: number): Promise<CanonicalFit | null> {
    const { hidden, pieces } = this.runner.model;
    if (nextSum(pieces, at) !== at + 1 || (at > 0 && nextSum(pieces, at - 1) !== at)) return null;
    return canonicalFit(this.#rowsAt(pieces[at] as BranchPiece, at), hidden, this.#products);
  }

  async *#rowsAt(piece: BranchPiece, at: number): AsyncGenerator<BranchRows> {
    for (const [b, batch] of this.seen.entries()) {
      const start = this.#store.get(key(b, at));
      const [normed, before, after] = [
        await this.runner.norm(piece, start, batch),
        start,
        this.#store.get(key(b, at + 1)),
      ].map((tensor) => toFloat32(tensor) as Float32Array) as [Float32Array, Float32Array, Float32Array];
      yield { normed, added: after.map((value, i) => value - (before[i] as number)) };
    }
  }

  async release(): Promise<void> {
    this.#store.release();
    await this.#grams.release();
    await this.#products.release();
  }

  /** The kept branches of pieces [from, end), which all read the stream at `from`. */
  async #kept(from: number, end: number, plan: WalkPlan, stream: HostTensor, b: number): Promise<HostTensor> {
    const { pieces } = this.runner.model;
    const batch = this.#batches[b] as TokenBatch;
    let base = stream;
    for (let i = from; i < end; i++) {
      const piece = pieces[i] as StreamPiece;
      if (piece.kind === 'passage') {
        base = await this.runner.passage(piece, base, batch);
      } else if (plan.changes.has(i)) {
        base = converted(base, piece);
      } else {
        base = await this.runner.branch(piece, stream, base, batch);
      }
    }
    return base;
  }

  /** The piece at whose start the original's stream is what a map in the sum or run that ends at `end` should lead to. */
  #target(end: number, plan: WalkPlan, isRun: boolean): number {
    const { pieces } = this.runner.model;
    let target = end;
    while (!isRun && target < pieces.length && plan.changes.get(target) === 'remove') target = nextSum(pieces, target);
    return target;
  }

  async #fit(
    piece: BranchPiece,
    starts: ReadonlyMap<number, HostTensor>,
    streams: ReadonlyMap<number, HostTensor>,
    target: number,
    { ridges, ...how }: JudgeOptions,
  ): Promise<Fit> {
    const { hidden, pieces } = this.runner.model;
    const tried = ridges ?? [await this.#ridgeOf(pieces.indexOf(piece), how.rank ?? null)];
    const [seen, unseen] = [new Gram(hidden), new Gram(hidden)];
    for (const [b, start] of starts) {
      const normed = await this.runner.norm(piece, start, this.#batches[b] as TokenBatch);
      const gram = b < this.seen.length ? seen : unseen;
      await this.#grams.add(gram, normed, streams.get(b) as HostTensor, this.#store.get(key(b, target)));
    }
    return fitMap(seen, unseen, this.#products, { ...how, ridges: tried });
  }

  /** The best of all ridges for a branch on what the original computes: it is found once, whatever is changed before it. */
  async #ridgeOf(at: number, rank: number | null): Promise<number> {
    let ridge = this.#ridges.get(at);
    if (ridge === undefined) {
      const plan: WalkPlan = { changes: new Map([[at, 'map']]), runs: [] };
      const { fits } = await this.judge(plan, { batches: 0, ridges: RIDGES, rank });
      ridge = fits.get(at)?.ridge ?? DEFAULT_RIDGE;
      this.#ridges.set(at, ridge);
    }
    return ridge;
  }
}

/** Where a plan first differs from the original. */
export function firstChange(plan: WalkPlan, pieces: readonly StreamPiece[]): number {
  const first = Math.min(pieces.length, ...plan.changes.keys(), ...plan.runs.map(([from]) => from));
  // A sum is walked as a whole.
  let start = 0;
  for (let i = 0; i <= first && i < pieces.length; i = nextSum(pieces, i)) start = i;
  return first >= pieces.length ? pieces.length : start;
}

/** The piece behind the sum, or the passage, that begins at `i`. */
export function nextSum(pieces: readonly StreamPiece[], i: number): number {
  const piece = pieces[i];
  let next = i + 1;
  if (piece?.kind !== 'branch') return next;
  for (let other = pieces[next]; other?.kind === 'branch' && other.sum === piece.sum; other = pieces[next]) next++;
  return next;
}

function key(batch: number, piece: number): string {
  return `stream ${batch} ${piece}`;
}

/** Where a branch that widens the stream is gone, the stream is widened all the same. */
function converted(stream: HostTensor, { endType }: BranchPiece): HostTensor {
  if (stream.dtype === endType) return stream;
  const values = toFloat32(stream);
  return fillTensor(endType, stream.dims, (i) => values[i] as number);
}
