/** Runs a decoder piece by piece (pieces.ts), with sessions that are opened when they are needed. */

import type { TokenBatch } from '../quality/forced.js';
import { makeFeeds } from '../run/feeds.js';
import type { Session, SessionOptions } from '../session/session.js';
import { Sessions, type SizedLocation } from '../session/sessions.js';
import { fillTensor, type HostTensor, rangeAlong, type TensorMap } from '../session/tensor.js';
import type { MapBlocks } from './map-blocks.js';
import { type BranchPiece, type PassagePiece, PIECE, type PieceModel } from './pieces.js';
import { giveJudgement, giveReference, JUDGE, JUDGED, type Judgement, REFERENCE } from './scores.js';

/** A linear map in the place of a branch: n(x) weight + bias, row-major [hidden, hidden] and [hidden]. */
export interface LinearMap {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  /** How `weight` is stored, where it was rounded to blocks of bits. */
  readonly blocks?: MapBlocks;
  /** The two matrices whose product `weight` is, where it is of low rank. */
  readonly factors?: MapFactors;
}

/** A matrix of low rank as left right, row-major [hidden, rank] and [rank, hidden]. */
export interface MapFactors {
  readonly rank: number;
  readonly left: Float32Array;
  readonly right: Float32Array;
}

export class StreamRunner {
  readonly #sessions: Sessions;
  readonly #feeds = new WeakMap<TokenBatch, TensorMap>();

  constructor(
    readonly model: PieceModel,
    readonly options: SessionOptions = {},
  ) {
    this.#sessions = new Sessions({ ...options, arena: false });
  }

  /** The stream as the first branch reads it, [rows, tokens, hidden]. */
  async start(batch: TokenBatch): Promise<HostTensor> {
    return this.#run('prologue', () => this.model.prologue(), batch, []);
  }

  /** base + branch(reads). */
  branch(piece: BranchPiece, reads: HostTensor, base: HostTensor, batch: TokenBatch): Promise<HostTensor> {
    const given: [string, HostTensor][] = [
      [PIECE.reads, reads],
      [PIECE.base, base],
    ];
    return this.#run(`branch ${piece.term}`, () => this.model.branch(piece), batch, given);
  }

  passage(piece: PassagePiece, reads: HostTensor, batch: TokenBatch): Promise<HostTensor> {
    return this.#run(`passage ${piece.end}`, () => this.model.passage(piece), batch, [[PIECE.reads, reads]]);
  }

  /** The norm of `reads` that the branch reads. */
  norm(piece: BranchPiece, reads: HostTensor, batch: TokenBatch): Promise<HostTensor> {
    return this.#run(`norm ${piece.term}`, () => this.model.norm(piece), batch, [[PIECE.reads, reads]], PIECE.normed);
  }

  /** base + norm(reads) weight + bias, in the element type of the norm. */
  map(piece: BranchPiece, map: LinearMap, reads: HostTensor, base: HostTensor, batch: TokenBatch): Promise<HostTensor> {
    const { hidden } = this.model;
    const given: [string, HostTensor][] = [
      [PIECE.reads, reads],
      [PIECE.base, base],
      [PIECE.weight, tensorOf(piece, [hidden, hidden], map.weight)],
      [PIECE.bias, tensorOf(piece, [hidden], map.bias)],
    ];
    return this.#run(`map ${piece.term}`, () => this.model.map(piece), batch, given);
  }

  /** What the original says of each position, row by row; probabilities are kept in `dtype`. */
  async reference(stream: HostTensor, batch: TokenBatch, dtype: 'float' | 'float16'): Promise<TensorMap[]> {
    const rows: TensorMap[] = [];
    for (const [row, piece] of this.#rows(stream, batch)) {
      const make = (): SizedLocation => this.model.epilogue(giveReference(this.model.opset, dtype));
      const targets = targetsOf(batch.sequences[row] as readonly number[]);
      const feeds = [[PIECE.reads, piece] as const, [JUDGE.targets, targets] as const];
      rows.push(
        await this.#sessions.use(`reference ${dtype}`, make, (session) =>
          session.run(new Map([...this.#own(session, rowOf(batch, row)), ...feeds]), REFERENCE),
        ),
      );
    }
    return rows;
  }

  /** How a stream's scores stand beside the original's, row by row; `withOverlap` takes twice as long. */
  async judge(
    stream: HostTensor,
    reference: readonly TensorMap[],
    batch: TokenBatch,
    { dtype, withOverlap }: { readonly dtype: 'float' | 'float16'; readonly withOverlap: boolean },
  ): Promise<Judgement[]> {
    const found: Judgement[] = [];
    for (const [row, piece] of this.#rows(stream, batch)) {
      const ids = batch.sequences[row] as readonly number[];
      const make = (): SizedLocation => this.model.epilogue(giveJudgement(this.model.opset, dtype, withOverlap));
      const { [JUDGE.referenceLoss]: referenceLoss, ...rest } = Object.fromEntries(reference[row] as TensorMap);
      const feeds = [...Object.entries(rest), [PIECE.reads, piece] as const, [JUDGE.targets, targetsOf(ids)] as const];
      const said = await this.#sessions.use(`judge ${dtype} ${withOverlap}`, make, (session) =>
        session.run(
          new Map([...this.#own(session, rowOf(batch, row)), ...feeds]),
          withOverlap ? [...JUDGED, JUDGE.overlap] : JUDGED,
        ),
      );
      const outputs = new Map([...said, [JUDGE.referenceLoss, referenceLoss as HostTensor]]);
      // What comes after the last token is not in the text.
      const entries = [...outputs].map(([name, { data }]) => [name, (data as Float32Array).slice(0, ids.length - 1)]);
      found.push(Object.fromEntries(entries) as Judgement);
    }
    return found;
  }

  release(): Promise<void> {
    return this.#sessions.release();
  }

  *#rows(stream: HostTensor, { sequences }: TokenBatch): Generator<[number, HostTensor]> {
    for (const row of sequences.keys()) yield [row, rangeAlong(stream, 0, row, row + 1)];
  }

  /** The feeds of the model's own inputs that a piece has kept. */
  #own(session: Session, batch: TokenBatch): [string, HostTensor][] {
    let all = this.#feeds.get(batch);
    if (!all) {
      all = makeFeeds(this.model.signature, { tokenIds: batch.sequences }).tensors;
      this.#feeds.set(batch, all);
    }
    const names = new Set(session.inputs.map(({ name }) => name));
    return [...all].filter(([name]) => names.has(name));
  }

  async #run(
    key: string,
    make: () => SizedLocation,
    batch: TokenBatch,
    given: readonly (readonly [string, HostTensor])[],
    result: string = PIECE.result,
  ): Promise<HostTensor> {
    const outputs = await this.#sessions.use(key, make, (session) =>
      session.run(new Map([...this.#own(session, batch), ...given]), [result]),
    );
    return outputs.get(result) as HostTensor;
  }
}

/** The token that comes after each; after the last the last itself, which is not judged. */
function targetsOf(ids: readonly number[]): HostTensor {
  return fillTensor('int64', [1, ids.length, 1], (i) => ids[Math.min(i + 1, ids.length - 1)] as number);
}

/** One row of a batch as a batch; the same object for the same row, so that its feeds are made once. */
function rowOf(batch: TokenBatch, row: number): TokenBatch {
  let rows = rowsOf.get(batch);
  if (!rows) {
    rows = batch.sequences.map((sequence) => ({ sequences: [sequence] }));
    rowsOf.set(batch, rows);
  }
  return rows[row] as TokenBatch;
}

const rowsOf = new WeakMap<TokenBatch, TokenBatch[]>();

function tensorOf({ normedType }: BranchPiece, dims: readonly number[], values: Float32Array): HostTensor {
  if (normedType === 'float') return { dtype: 'float', dims, data: values };
  return fillTensor(normedType, dims, (i) => values[i] as number);
}
