/**
 * Windows of whole layers that can be made parallel: consecutive layers of which each is a sum with the attention and a
 * sum with the FFN after it, or one sum with both.
 */
import { type Use, Value } from '../../../ir/core.js';
import { passErrors } from '../errors.js';
import { isCopy, isReshape } from '../layers/blocks.js';
import {
  type Blocks,
  type Branch,
  branchesOf,
  type Layer,
  mixesTokens,
  requireLayer,
  slotOf,
} from '../layers/layer.js';
import {
  isSkipNorm,
  type Point,
  pointOf,
  privateOrigin,
  type ResidualStream,
  type Stage,
  shiftedBy,
  sumOperands,
  takesUp,
  widens,
} from '../layers/residual-stream.js';
import { describe } from '../refusal.js';
import { readerBetween } from './outside-readers.js';

/** One sum of a layer. */
export interface LayerSum {
  readonly layer: Layer;
  readonly stage: Stage;
  readonly branches: readonly Branch[];
  /** Where the sum takes up the residual stream. */
  readonly root: Use;
}

/** Layers whose blocks will read one input. */
export interface Window {
  readonly layers: readonly Layer[];
  /** The sums with a token mixer, or with a linear in the place of one, in order. */
  readonly mixers: readonly LayerSum[];
  /** The sums with nothing but FFNs, in order. */
  readonly ffns: readonly LayerSum[];
  /** Everything in order. */
  readonly parts: readonly LayerSum[];
}

/** Reads the window of the layers `indices`. Throws OF_NO_SUCH_LAYER or OF_CANNOT_FUSE. */
export function planWindow(blocks: Blocks, indices: readonly number[]): Window {
  const { layers, stream } = blocks;
  const chosen = indices.map((index) => {
    const layer = requireLayer(layers, index);
    if (layer.fixed) throw passErrors.cannotFuse(layer.label, layer.fixed);
    return layer;
  });
  for (const [i, layer] of chosen.entries()) {
    const previous = chosen[i - 1];
    if (previous && layers.indexOf(layer) !== layers.indexOf(previous) + 1) {
      throw passErrors.cannotFuse(layer.label, `it does not directly follow layer ${previous.label}`);
    }
  }
  const parts = chosen.flatMap((layer) => partsOf(layer, stream));
  for (const [i, part] of parts.entries()) {
    const reason = i > 0 && whyApart(parts[i - 1] as LayerSum, part, stream);
    if (reason) throw passErrors.cannotFuse(part.layer.label, reason);
  }
  const mixers = parts.filter((part) => part.branches.some(comesFirst));
  const ffns = parts.filter((part) => !mixers.includes(part));
  return { layers: chosen, mixers, ffns, parts };
}

/** True for what stands in the place of an attention, a linear too. */
function comesFirst(branch: Branch): boolean {
  return mixesTokens(branch) || slotOf(branch) === 'attention';
}

function partsOf(layer: Layer, stream: ResidualStream): LayerSum[] {
  const all = branchesOf(layer);
  const stages = stream.stages.filter((stage) => all.some((branch) => branch.stage === stage));
  const parts = stages.map((stage): LayerSum => {
    const branches = all.filter((branch) => branch.stage === stage);
    if (branches.length < stage.branches.length) {
      throw passErrors.cannotFuse(layer.label, 'it is parallel with another layer already');
    }
    const root = rootOf(stage.end, stage.start, stream);
    if (!root) throw passErrors.cannotFuse(layer.label, 'where its sum takes up the residual stream was not found');
    return { layer, stage, branches, root };
  });
  const mixing = parts.map(({ branches }) => branches.some(comesFirst));
  if (parts.length > 2 || mixing.lastIndexOf(true) > 0) {
    throw passErrors.cannotFuse(layer.label, 'it is not an attention with an FFN after it');
  }
  const skip = stages.map(({ end }) => end).find((end) => takesWeightsFrom(end, stream));
  if (skip) throw passErrors.cannotFuse(layer.label, 'the norm behind its sum takes its weights from the stream');
  const outer = all.flatMap(({ nodes }) => [...nodes]).find(({ subgraphs }) => subgraphs.length > 0);
  if (outer) {
    const why = `what graphs inside ${describe(outer)} read of the residual stream is not moved`;
    throw passErrors.cannotFuse(layer.label, why);
  }
  return parts;
}

function takesWeightsFrom(end: Point, { position }: ResidualStream): boolean {
  const weights = 'opType' in end ? end.inputs.slice(2) : [];
  return weights.some((value) => value !== null && position.has(pointOf(value)));
}

/** Where the sum that ends at `end` takes up `start`: the operand of it, or of a sum nested in it, that is `start`. */
export function rootOf(end: Point, start: Point, { types }: ResidualStream): Use | null {
  const open: Point[] = [end];
  for (let point = open.pop(); point; point = open.pop()) {
    const node = point instanceof Value ? point.producer : point;
    const shifted = shiftedBy(point);
    for (const operand of shifted ? [shifted] : sumOperands(point)) {
      const index = node?.inputs.indexOf(operand) ?? -1;
      if (node && takesUp(operand, start, types)) return { node, index };
      const inner = privateOrigin(operand, types);
      if (inner && !(inner.producer && isSkipNorm(inner.producer))) open.push(inner);
    }
  }
  return null;
}

/** Why the second sum does not take up what the first gives; null when it does. */
function whyApart(first: LayerSum, second: LayerSum, stream: ResidualStream): string | null {
  const { stages } = stream;
  const between = stages.slice(stages.indexOf(first.stage) + 1, stages.indexOf(second.stage));
  const other = between.find((stage) => stage.isResidual || !(isCopy(stage, stream) || isReshape(stage)));
  if (other) return `something else happens to the residual stream between it and layer ${first.layer.label}`;
  if (widens(second.stage, stream.types)) return `the residual stream is widened behind layer ${first.layer.label}`;
  return readerBetween(first, second, stream)?.message ?? null;
}
