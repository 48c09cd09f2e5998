/** The moves that a plan is made of: what can become of the branches of a decoder, and what follows from it. */
import { type Layer, printRun } from '../../passes/index.js';
import type { BranchChange, BranchPiece, Fits, LayerChoice, Move, StreamPiece, WalkPlan } from '../../runtime/index.js';

/** A move, as the pieces of the decoder that it changes, or the run that it fuses. */
export interface PlanMove extends Move {
  readonly changes: ReadonlyMap<number, 'map' | 'remove'>;
  readonly run: readonly number[] | null;
}

/** A move whose own KL is not known yet. */
export type DraftMove = Omit<PlanMove, 'kl'>;

/** What branches cost, in seconds of one token. */
export interface BranchCosts {
  attention(layer: number): number;
  ffn(layer: number): number;
  /** A map in the place of a branch. */
  readonly linear: number;
  /** What is saved by making FFNs one. */
  fusion(members: number): number;
}

/** What becomes of a branch, and of what. */
export type Action = 'map attention' | 'remove attention' | 'map ffn' | 'map block';

/** What a move of this kind is called. */
export function keyOf(action: Action, layer: number): string {
  return `${action} ${layer}`;
}

/** The pieces of one part of a layer. */
function piecesOf(pieces: readonly StreamPiece[], layer: number, part: 'attention' | 'ffn'): [number, BranchPiece][] {
  return pieces.flatMap((piece, i): [number, BranchPiece][] =>
    piece.kind === 'branch' && piece.layer === layer && piece.part === part ? [[i, piece]] : [],
  );
}

/** Everything that can be done to single layers. Maps stand where a branch reads the stream through a norm. */
export function draftMoves(
  pieces: readonly StreamPiece[],
  layers: readonly Layer[],
  costs: BranchCosts,
  isFitting: boolean,
): DraftMove[] {
  const drafts: DraftMove[] = [];
  for (const { index, attention, ffn, fixed } of layers) {
    if (fixed) continue;
    const [attentions, ffns] = [piecesOf(pieces, index, 'attention'), piecesOf(pieces, index, 'ffn')];
    const add = (
      action: Action,
      changes: PlanMove['changes'],
      secondsSaved: number,
      touches: readonly string[],
    ): void => {
      drafts.push({ key: keyOf(action, index), touches, secondsSaved, changes, run: null });
    };
    const [own, other] = [`attention ${index}`, `ffn ${index}`];
    const [[attentionAt, attentionPiece] = [-1, null], [ffnAt, ffnPiece] = [-1, null]] = [attentions[0], ffns[0]];
    const canGo = attention !== null && !attention.attention.blocked && attentions.length === 1;
    if (canGo) add('remove attention', new Map([[attentionAt, 'remove']]), costs.attention(index), [own]);
    if (!isFitting) continue;
    if (canGo && attentionPiece?.normed) {
      add('map attention', new Map([[attentionAt, 'map']]), costs.attention(index) - costs.linear, [own]);
    }
    if (!ffn || ffns.length !== 1 || !ffnPiece?.normed) continue;
    add('map ffn', new Map([[ffnAt, 'map']]), costs.ffn(index) - costs.linear, [other]);
    if (!canGo || !attentionPiece?.normed || ffnAt !== attentionAt + 1) continue;
    // One map, where the attention was, for both.
    const changes = new Map<number, 'map' | 'remove'>([
      [attentionAt, 'map'],
      [ffnAt, 'remove'],
    ]);
    add('map block', changes, costs.attention(index) + costs.ffn(index) - costs.linear, [own, other]);
  }
  return drafts;
}

/** The first of these actions that can be done to the layer; null where none can. */
export function findMove(drafts: readonly DraftMove[], layer: number, ...actions: readonly Action[]): PlanMove | null {
  for (const action of actions) {
    const draft = drafts.find(({ key }) => key === keyOf(action, layer));
    if (draft) return { ...draft, kl: 0 };
  }
  return null;
}

/** The move that fuses the FFNs of these layers. */
export function fuseMove(run: readonly number[], costs: BranchCosts): PlanMove {
  const touches = run.map((layer) => `ffn ${layer}`);
  return {
    key: `fuse ${printRun(run)}`,
    touches,
    kl: 0,
    secondsSaved: costs.fusion(run.length),
    changes: new Map(),
    run,
  };
}

/** Layers whose attention is gone after these moves. */
export function goneAttentions(moves: readonly PlanMove[], pieces: readonly StreamPiece[]): number[] {
  const gone = moves.flatMap(({ changes }) => [...changes.keys()]);
  const layers = gone.flatMap((i) => {
    const piece = pieces[i];
    return piece?.kind === 'branch' && piece.part === 'attention' ? [piece.layer] : [];
  });
  return [...new Set(layers)].sort((a, b) => a - b);
}

/**
 * The walk of these moves; `mapAt` says what stands where a map is wanted. Of maps that are still to be fitted, the first
 * between the FFNs of a run stands for all: they read one input.
 */
export function walkOf(
  moves: readonly PlanMove[],
  pieces: readonly StreamPiece[],
  mapAt: (piece: number) => BranchChange = () => 'map',
): WalkPlan {
  const changes = new Map<number, BranchChange>();
  for (const move of moves) {
    for (const [i, change] of move.changes) changes.set(i, change === 'map' ? mapAt(i) : 'remove');
  }
  const runs = moves.flatMap(({ run }): [number, number][] => {
    const members = (run ?? []).flatMap((layer) => piecesOf(pieces, layer, 'ffn').map(([i]) => i));
    if (members.length < 2) return [];
    return [[Math.min(...members), Math.max(...members)]];
  });
  for (const [first, last] of runs) {
    let isFirst = true;
    for (let i = first; i <= last; i++) {
      const change = changes.get(i);
      if (change === undefined || change === 'remove') continue;
      if (!isFirst && change === 'map') changes.set(i, 'remove');
      isFirst = false;
    }
  }
  return { changes: new Map([...changes].sort(([a], [b]) => a - b)), runs };
}

/** The walk of these moves with the maps that were fitted for them, and with nothing where none was accepted. */
export function walkWith(moves: readonly PlanMove[], pieces: readonly StreamPiece[], fits: Fits): WalkPlan {
  return walkOf(moves, pieces, (i) => fits.get(i)?.map ?? 'remove');
}

/** What these moves do to layers, with the maps that were accepted. */
export function choiceOf(moves: readonly PlanMove[], pieces: readonly StreamPiece[], fits: Fits): LayerChoice {
  const { changes } = walkWith(moves, pieces, fits);
  const fates = [...changes].map(([i, change]) => {
    const { layer, part } = pieces[i] as BranchPiece;
    return { layer, part, isMapped: change !== 'remove' };
  });
  const layersWith = (part: BranchPiece['part'], isMapped: boolean): number[] =>
    fates.filter((each) => each.part === part && each.isMapped === isMapped).map(({ layer }) => layer);
  return {
    removeAttention: layersWith('attention', false),
    removeFfn: layersWith('ffn', false),
    linearizeAttention: layersWith('attention', true),
    linearizeFfn: layersWith('ffn', true),
    runs: moves.flatMap(({ run }) => (run ? [run] : [])).sort((a, b) => (a[0] as number) - (b[0] as number)),
    windows: [],
  };
}
