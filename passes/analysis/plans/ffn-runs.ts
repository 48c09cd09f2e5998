/**
 * Runs of feed-forward layers: stretches of consecutive layers without attention whose FFNs can be made parallel and
 * concatenated (FFN Fusion, arXiv 2503.18908, section 3).
 */

import type { Value } from '../../../ir/core.js';
import { passErrors } from '../errors.js';
import { isCopy, isReshape } from '../layers/blocks.js';
import { keyDifference } from '../layers/ffn.js';
import { type Blocks, type FfnBranch, type Layer, linearIn, requireLayer } from '../layers/layer.js';
import { type Point, valueAt } from '../layers/residual-stream.js';
import { integersOf } from '../values/shape-arithmetic.js';

/** How runs are chosen. */
export interface RunOptions {
  /** How many FFNs at the end of every attention-free stretch stay out (the paper: 1). */
  readonly keepLast: number;
  /** Widest fused FFN, in hidden units; 0 is no limit. */
  readonly maxWidth: number;
  /** Runs to fuse exactly as given, in original layer numbers; empty means automatic. */
  readonly runs: readonly (readonly number[])[];
  /** Also take the FFN of the layer just before the stretch, whose attention stays. */
  readonly lead: boolean;
}

/** One FFN of a run, with its layer. */
export interface RunMember {
  readonly layer: Layer;
  readonly branch: FfnBranch;
}

/** FFNs that will become one. */
export interface FfnRun {
  readonly members: readonly RunMember[];
  readonly fusedWidth: number;
}

/** All runs of a model, and why other layers are in none. */
export interface RunPlan {
  readonly runs: readonly FfnRun[];
  /** Every layer that is in no run, with the reason. */
  readonly left: readonly { readonly layer: Layer; readonly reason: string }[];
}

/** The paper's choice: every run, but for its last FFN. */
export const DEFAULT_RUN_OPTIONS: RunOptions = { keepLast: 1, maxWidth: 0, runs: [], lead: false };

/** Plans the runs. Throws OF_NO_SUCH_LAYER or OF_CANNOT_FUSE for explicit runs that cannot be. */
export function planRuns(blocks: Blocks, options: RunOptions): RunPlan {
  return options.runs.length > 0 ? explicitRuns(blocks, options.runs) : automaticRuns(blocks, options);
}

/** Why the FFN of a layer cannot be in any run; null when it can. */
export function unfusable(layer: Layer): string | null {
  if (layer.fixed) return layer.fixed;
  if (!layer.ffn) {
    const other = layer.others.find((branch) => !branch.mixesTokens);
    if (other) return `its FFN is left as it is: ${other.reason}`;
    if (layer.unread) return `its FFN was not recognised: ${layer.unread}`;
    return linearIn(layer, 'ffn') ? 'a linear stands in the place of its FFN' : 'it has no FFN';
  }
  if (layer.ffn.stage.branches.length > 1 && layer.others.length > 0) {
    return `its FFN runs in parallel with another branch on one sum: ${layer.others[0]?.reason}`;
  }
  return null;
}

function mixesTokens(layer: Layer): boolean {
  return layer.attention !== null || layer.others.some((branch) => branch.mixesTokens);
}

/** True when `next`'s FFN reads the sum that `layer`'s FFN adds to. */
function isFollowedBy(blocks: Blocks, layer: FfnBranch, next: FfnBranch): boolean {
  const { stages } = blocks.stream;
  // An output shows the stream between the two, which would not exist any more.
  if (valueAt(layer.stage.end)?.isGraphOutput) return false;
  if (next.stage.index <= layer.stage.index) return false;
  const between = stages.slice(layer.stage.index + 1, next.stage.index);
  const isPlain = between.every((stage) => !stage.isResidual && (isCopy(stage, blocks.stream) || isReshape(stage)));
  // Flattened and unflattened again and again: only what has one shape can be added up.
  const reshapes = between.filter((stage) => isReshape(stage));
  return isPlain && (reshapes.length === 0 || (isFlat(layer.stage.start) && isFlat(next.stage.start)));
}

/** True for the result of Reshape to [-1, hidden]. */
function isFlat(point: Point): boolean {
  const node = 'opType' in point ? null : point.producer;
  if (node?.op !== 'Reshape') return false;
  const target = integersOf(node.input(1), (of) => lastDimension(of));
  return target?.length === 2 && target[0] === -1;
}

function lastDimension(value: Value): number | null {
  const last = value.shape?.at(-1);
  // The length of the target is what matters: an unknown size is as good as any.
  return typeof last === 'number' ? last : 0;
}

function automaticRuns(blocks: Blocks, options: RunOptions): RunPlan {
  const { layers } = blocks;
  const reasons = new Map<Layer, string>();
  const runs: FfnRun[] = [];
  for (let i = 0; i < layers.length; ) {
    const stretch = stretchFrom(blocks, i, options.lead, reasons);
    i += Math.max(stretch.advance, 1);
    const { members } = stretch;
    if (members.length === 0) continue;
    const kept = Math.min(options.keepLast, members.length);
    const rest = members.slice(0, members.length - kept);
    for (const { layer } of members.slice(members.length - kept)) {
      reasons.set(
        layer,
        members.length === 1
          ? 'it has no neighbour without attention'
          : `it stays as the last of the run ${labels(members)} (option keep-last is ${options.keepLast})`,
      );
    }
    for (const piece of cut(rest, options.maxWidth, reasons)) {
      if (piece.length >= 2) runs.push(runOf(piece));
      else if (piece[0] && !reasons.has(piece[0].layer)) {
        reasons.set(
          piece[0].layer,
          members.length === 1
            ? 'it has no neighbour without attention'
            : rest.length === 1
              ? `it is alone once the last ${kept} of its run stay out (option keep-last is ${options.keepLast})`
              : 'it has no neighbour without attention that it could be fused with',
        );
      }
    }
  }
  return finish(layers, runs, reasons);
}

/** The attention-free stretch that starts at layer `start`, led by the layer before it when asked. */
function stretchFrom(
  blocks: Blocks,
  start: number,
  lead: boolean,
  reasons: Map<Layer, string>,
): { members: RunMember[]; advance: number } {
  const { layers } = blocks;
  const members: RunMember[] = [];
  let i = start;
  for (; i < layers.length; i++) {
    const layer = layers[i] as Layer;
    const reason = unfusable(layer);
    const last = members.at(-1);
    if (reason) {
      if (!last) reasons.set(layer, reason);
      break;
    }
    const branch = layer.ffn as FfnBranch;
    if (mixesTokens(layer)) {
      const next = layers[i + 1];
      // A parallel block's FFN is on one sum with its attention: what follows reads both.
      const isParallel = branch.stage.branches.length > 1;
      const leads = lead && !isParallel && !last && next && !unfusable(next) && !mixesTokens(next);
      if (!leads || !isFollowedBy(blocks, branch, next.ffn as FfnBranch)) {
        if (!last) reasons.set(layer, attentionStays(layer));
        break;
      }
    } else if (last && !isFollowedBy(blocks, last.branch, branch)) break;
    members.push({ layer, branch });
  }
  return { members, advance: i - start };
}

function attentionStays(layer: Layer): string {
  const { attention } = layer;
  if (!attention) return layer.others.find((branch) => branch.mixesTokens)?.reason ?? 'it mixes tokens';
  const { blocked } = attention.attention;
  return blocked ? `its attention stays: ${blocked}` : 'its attention stays (option remove-attention takes it out)';
}

/** Cuts a stretch where FFNs are incompatible and where the width cap is reached. */
function cut(members: readonly RunMember[], maxWidth: number, reasons: Map<Layer, string>): RunMember[][] {
  const pieces: RunMember[][] = [];
  let piece: RunMember[] = [];
  let width = 0;
  for (const member of members) {
    const own = member.branch.ffn.width;
    const first = piece[0];
    const difference = first && incompatibility(first, member);
    if (difference) reasons.set(member.layer, difference);
    const isTooWide = maxWidth > 0 && width + own > maxWidth;
    if (isTooWide && own > maxWidth)
      reasons.set(member.layer, `its width ${own} alone is more than option max-width allows, ${maxWidth}`);
    else if (isTooWide)
      reasons.set(member.layer, `fusing it with its neighbours gives more than option max-width allows, ${maxWidth}`);
    if (difference || isTooWide) {
      if (piece.length > 0) pieces.push(piece);
      piece = [];
      width = 0;
    }
    piece.push(member);
    width += own;
  }
  if (piece.length > 0) pieces.push(piece);
  return pieces;
}

/** What keeps two FFNs from being concatenated; null when nothing does. */
export function incompatibility(a: RunMember, b: RunMember): string | null {
  const difference = keyDifference(a.branch.ffn, b.branch.ffn);
  return difference && `its FFN differs from that of layer ${a.layer.label}: ${difference}`;
}

function explicitRuns(blocks: Blocks, wanted: readonly (readonly number[])[]): RunPlan {
  const runs = wanted.map((indices) => {
    const members = indices.map((index, i): RunMember => {
      const layer = requireLayer(blocks.layers, index);
      const reason = unfusable(layer);
      if (reason) throw passErrors.cannotFuse(layer.label, reason);
      if (mixesTokens(layer) && (i > 0 || layer.ffn?.stage.branches.length !== 1)) {
        throw passErrors.cannotFuse(layer.label, 'its attention is still there (option remove-attention takes it out)');
      }
      return { layer, branch: layer.ffn as FfnBranch };
    });
    for (const [i, member] of members.entries()) {
      const previous = members[i - 1];
      if (!previous) continue;
      const difference = incompatibility(members[0] as RunMember, member);
      if (difference) throw passErrors.cannotFuse(member.layer.label, difference);
      if (!isFollowedBy(blocks, previous.branch, member.branch)) {
        throw passErrors.cannotFuse(member.layer.label, `it does not directly follow layer ${previous.layer.label}`);
      }
    }
    return runOf(members);
  });
  const reasons = new Map(
    blocks.layers.map((layer) => [
      layer,
      unfusable(layer) ?? 'it is not in the runs that were asked for (option runs)',
    ]),
  );
  return finish(blocks.layers, runs, reasons);
}

function runOf(members: readonly RunMember[]): FfnRun {
  return { members, fusedWidth: members.reduce((sum, { branch }) => sum + branch.ffn.width, 0) };
}

function labels(members: readonly RunMember[]): string {
  return `${members[0]?.layer.label}..${members.at(-1)?.layer.label}`;
}

function finish(layers: readonly Layer[], runs: readonly FfnRun[], reasons: ReadonlyMap<Layer, string>): RunPlan {
  const fused = new Set(runs.flatMap((run) => run.members.map((member) => member.layer)));
  const left = layers
    .filter((layer) => !fused.has(layer))
    .map((layer) => ({ layer, reason: reasons.get(layer) ?? 'it is not part of a run' }));
  return { runs, left };
}
