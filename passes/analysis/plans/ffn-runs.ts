/**
 * Runs of feed-forward layers: stretches of consecutive layers without attention whose FFNs can be made parallel and
 * concatenated (FFN Fusion, arXiv 2503.18908, section 3).
 */

import type { Value } from '../../../ir/core.js';
import { passErrors } from '../errors.js';
import { isCopy, isReshape, isShift } from '../layers/blocks.js';
import { type Blocks, type FfnBranch, type Layer, type LinearBranch, linearIn, requireLayer } from '../layers/layer.js';
import { type Point, type Stage, widens } from '../layers/residual-stream.js';
import { Refusal } from '../refusal.js';
import { integersOf } from '../values/shape-arithmetic.js';
import { canMerge, type Member } from './ffn-merge.js';
import { readerBetween, type SumOfLayer } from './outside-readers.js';
import type { RunOptions } from './run-options.js';

/** FFNs that will become one. */
export interface FfnRun {
  readonly members: readonly Member[];
  /** Per member: the linears between its FFN and that of the member before it, which read the input of the run, too. */
  readonly linears: readonly (readonly LinearBranch[])[];
  readonly fusedWidth: number;
}

/** All runs of a model, and why other layers are in none. */
export interface RunPlan {
  readonly runs: readonly FfnRun[];
  /** Every layer that is in no run, with the reason. */
  readonly left: readonly { readonly layer: Layer; readonly reason: string }[];
}

/** Plans the runs. Throws OF_NO_SUCH_LAYER or OF_CANNOT_FUSE for explicit runs that cannot be. */
export function planRuns(blocks: Blocks, options: RunOptions): RunPlan {
  return options.runs.length > 0 ? explicitRuns(blocks, options) : automaticRuns(blocks, options);
}

/** Why FFNs cannot be the run that is asked for; null when they can: FFNs that cannot be merged are not made parallel. */
function whyNoRun(members: readonly Member[], { sharesLastNorm, parallelOnly }: RunOptions): Refusal | null {
  if (parallelOnly || members.length < 2) return null;
  const norm = sharesLastNorm ? members.at(-1)?.ffn.norm : undefined;
  return canMerge(norm ? members.map((member) => ({ ...member, ffn: { ...member.ffn, norm } })) : members);
}

/**
 * Why the FFN of a layer cannot be in any run; null when it can. Runs that are chosen by themselves stop at linears, as at
 * attentions; those that were asked for may span them.
 */
export function unfusable(layer: Layer, spansLinears = false): string | null {
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
  if (!spansLinears && layer.linears.some(({ stage }) => stage === layer.ffn?.stage)) {
    return 'its FFN runs in parallel with a linear on one sum';
  }
  return null;
}

function mixesTokens(layer: Layer): boolean {
  return layer.attention !== null || layer.others.some((branch) => branch.mixesTokens);
}

/** The linears behind the sum of `before` and up to that of `member`, in the order of the stream. */
function linearsBetween({ layers }: Blocks, { branch: first }: Member, { branch: second }: Member): LinearBranch[] {
  return layers
    .flatMap(({ linears }) => linears)
    .filter(({ stage }) => stage.index > first.stage.index && stage.index <= second.stage.index)
    .sort((a, b) => a.stage.index - b.stage.index);
}

/** Why `member`'s FFN cannot be computed beside that of `before`, in words that are true of both; null when it can. */
function whyApart(blocks: Blocks, before: Member, member: Member, spansLinears: boolean): Refusal | null {
  const { stream, layers } = blocks;
  const pair = `layers ${before.layer.label} and ${member.layer.label}`;
  const [first, second] = [before.branch, member.branch];
  if (second.stage.index <= first.stage.index) return new Refusal(`${pair} share a sum already`);
  const all = layers.flatMap(({ linears }) => linears);
  const linearsOn = (stage: Stage): LinearBranch[] => all.filter((linear) => linear.stage === stage);
  // They read one input already: where one was taken from among them, the others would read another than it.
  const shared = [before, member].find(
    ({ branch: { stage } }) => stage.branches.length > 1 + (spansLinears ? linearsOn(stage).length : 0),
  );
  if (shared) return new Refusal(`the FFN of layer ${shared.layer.label} shares its sum with others`);
  const between = stream.stages.slice(first.stage.index + 1, second.stage.index);
  const linear = between.filter((stage) => linearsOn(stage).length > 0);
  if (linear.length > 0 && !spansLinears)
    return new Refusal(`a linear stands between the FFNs of ${pair} (option runs may span it)`);
  const isKnown = (stage: Stage): boolean =>
    stage.isResidual
      ? linearsOn(stage).length === stage.branches.length
      : isCopy(stage, stream) || isReshape(stage) || isShift(stage, stream);
  // Flattened and unflattened again and again: only what has one shape can be added up.
  const isReshaped = between.some((stage) => isReshape(stage));
  const isPlain = between.every((stage) => !stage.isResidual && !isShift(stage, stream));
  if (
    !between.every(isKnown) ||
    (isReshaped && !(isPlain && isFlat(first.stage.start) && isFlat(second.stage.start)))
  ) {
    return new Refusal(`something else happens to the residual stream between ${pair}`);
  }
  if ([...linear, second.stage].some((stage) => widens(stage, stream.types))) {
    return new Refusal(`the residual stream is widened between ${pair}`);
  }
  const sums: SumOfLayer[] = [
    { layer: before.layer, stage: first.stage, branches: [first] },
    ...linear.map((stage) => ({ layer: member.layer, stage, branches: linearsOn(stage) })),
    { layer: member.layer, stage: second.stage, branches: [second, ...linearsOn(second.stage)] },
  ];
  for (const [i, sum] of sums.slice(1).entries()) {
    const reader = readerBetween(sums[i] as SumOfLayer, sum, stream);
    if (reader) return reader;
  }
  return null;
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
  let border: Refusal | null = null;
  for (let i = 0; i < layers.length; ) {
    const stretch = stretchFrom(blocks, i, options.lead, reasons);
    i += Math.max(stretch.advance, 1);
    const { members } = stretch;
    // What parts it from the stretch before, or from the next one.
    const alone = (border ?? stretch.border)?.message ?? 'it has no neighbour without attention';
    border = stretch.border;
    if (members.length === 0) continue;
    const kept = Math.min(options.keepLast, members.length);
    const rest = members.slice(0, members.length - kept);
    for (const { layer } of members.slice(members.length - kept)) {
      reasons.set(
        layer,
        members.length === 1
          ? alone
          : `it stays as the last of the run ${labels(members)} (option keep-last is ${options.keepLast})`,
      );
    }
    for (const piece of cut(rest, options, reasons)) {
      if (piece.length >= 2) runs.push(runOf(piece, blocks));
      else if (piece[0] && !reasons.has(piece[0].layer)) {
        reasons.set(
          piece[0].layer,
          members.length === 1
            ? alone
            : rest.length === 1
              ? `it is alone once the last ${kept === 1 ? 'one of its run stays' : `${kept} of its run stay`} out (option keep-last is ${options.keepLast})`
              : 'it has no neighbour without attention that it could be fused with',
        );
      }
    }
  }
  return finish(layers, runs, reasons);
}

/**
 * The attention-free stretch that starts at layer `start`, led by the layer before it when asked. `border` is why the next
 * FFN, which has no attention before it either, is not part of it.
 */
function stretchFrom(
  blocks: Blocks,
  start: number,
  lead: boolean,
  reasons: Map<Layer, string>,
): { members: Member[]; advance: number; border: Refusal | null } {
  const { layers } = blocks;
  const members: Member[] = [];
  let border: Refusal | null = null;
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
    const member = { layer, branch, ffn: branch.ffn };
    if (mixesTokens(layer)) {
      const next = layers[i + 1];
      // A parallel block's FFN is on one sum with its attention: what follows reads both.
      const isParallel = branch.stage.branches.length > 1;
      const leads = lead && !isParallel && !last && next && !unfusable(next) && !mixesTokens(next);
      if (!leads || whyApart(blocks, member, memberOf(next), false)) {
        if (!last) reasons.set(layer, attentionStays(layer));
        break;
      }
    } else if (last) {
      border = whyApart(blocks, last, member, false);
      if (border) break;
    }
    members.push(member);
  }
  return { members, advance: i - start, border };
}

function attentionStays(layer: Layer): string {
  const { attention } = layer;
  if (!attention) return layer.others.find((branch) => branch.mixesTokens)?.reason ?? 'it mixes tokens';
  const { blocked } = attention.attention;
  return blocked ? `its attention stays: ${blocked}` : 'its attention stays (option remove-attention takes it out)';
}

function memberOf(layer: Layer): Member {
  const branch = layer.ffn as FfnBranch;
  return { layer, branch, ffn: branch.ffn };
}

/** Cuts a stretch where FFNs cannot be made one and where the width cap is reached. */
function cut(members: readonly Member[], options: RunOptions, reasons: Map<Layer, string>): Member[][] {
  const { maxWidth } = options;
  const pieces: Member[][] = [];
  let piece: Member[] = [];
  let width = 0;
  // All at once, first: the question is asked again for every member only where the answer is no.
  const mayDiffer = whyNoRun(members, options) !== null;
  for (const member of members) {
    const own = member.branch.ffn.width;
    const refusal = mayDiffer ? whyNoRun([...piece, member], options) : null;
    if (refusal) {
      reasons.set(member.layer, `it ${refusal.message}`);
      const [only, other] = piece;
      if (only && !other && !reasons.has(only.layer)) {
        reasons.set(only.layer, `layer ${member.layer.label} ${refusal.message}`);
      }
    }
    const isTooWide = maxWidth > 0 && width + own > maxWidth;
    if (isTooWide && own > maxWidth)
      reasons.set(member.layer, `its width ${own} alone is more than option max-width allows, ${maxWidth}`);
    else if (isTooWide)
      reasons.set(member.layer, `fusing it with its neighbours gives more than option max-width allows, ${maxWidth}`);
    if (refusal || isTooWide) {
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

function explicitRuns(blocks: Blocks, options: RunOptions): RunPlan {
  const runs = options.runs.map((indices) => {
    const members = indices.map((index, i): Member => {
      const layer = requireLayer(blocks.layers, index);
      const reason = unfusable(layer, true);
      if (reason) throw passErrors.cannotFuse(layer.label, reason);
      if (mixesTokens(layer) && (i > 0 || layer.ffn?.stage.branches.length !== 1)) {
        throw passErrors.cannotFuse(layer.label, attentionStays(layer));
      }
      return memberOf(layer);
    });
    for (const [i, member] of members.entries()) {
      const previous = members[i - 1];
      if (!previous) continue;
      const apart = whyApart(blocks, previous, member, true);
      if (apart) throw passErrors.cannotFuse(member.layer.label, apart.message);
      const refusal = whyNoRun(members.slice(0, i + 1), options);
      if (refusal) throw passErrors.cannotFuse(member.layer.label, `it ${refusal.message}`);
    }
    return runOf(members, blocks);
  });
  const reasons = new Map(
    blocks.layers.map((layer) => [layer, unfusable(layer) ?? 'its FFN is in none of the runs that are to be fused']),
  );
  return finish(blocks.layers, runs, reasons);
}

function runOf(members: readonly Member[], blocks: Blocks): FfnRun {
  const linears = members.map((member, i) => (i > 0 ? linearsBetween(blocks, members[i - 1] as Member, member) : []));
  return { members, linears, fusedWidth: members.reduce((sum, { branch }) => sum + branch.ffn.width, 0) };
}

function labels(members: readonly Member[]): string {
  return `${members[0]?.layer.label}..${members.at(-1)?.layer.label}`;
}

function finish(layers: readonly Layer[], runs: readonly FfnRun[], reasons: ReadonlyMap<Layer, string>): RunPlan {
  const fused = new Set(runs.flatMap((run) => run.members.map((member) => member.layer)));
  const left = layers
    .filter((layer) => !fused.has(layer))
    .map((layer) => ({ layer, reason: reasons.get(layer) ?? 'it is not part of a run' }));
  return { runs, left };
}
