/**
 * Layers (transformer blocks) on the residual stream: an attention branch, the FFN branch after it, or one of them.
 *
 * Layers are numbered as in the original model: by the numbers in names (`model.layers.7.mlp...`, also in metadata that
 * exporters leave behind) when every layer has one and they increase, else by position.
 */
import type { Graph, Node, Value } from '../../../ir/core.js';
import { Refusal } from '../refusal.js';
import { branchNodes, describeAttention, mixerOf } from './attention.js';
import { matchFfn } from './ffn.js';
import { findFixed } from './fixed-layers.js';
import type { Blocks, Branch, Layer, LayerOrigin } from './layer.js';
import { type LayerNumber, layerNumbers, numberOf, originOf } from './layer-numbers.js';
import { adopt, mixesTokens, splitLayers } from './parallel-layers.js';
import { findResidualStream, isSame, pointOf, type ResidualStream, type Stage, valueAt } from './residual-stream.js';

/** Finds the layers of `graph`. With `origin`, branches keep the numbers they had there. */
export function findBlocks(graph: Graph, origin?: LayerOrigin): Blocks {
  const stream = findResidualStream(graph);
  const groups: Branch[][] = [];
  // Where one layer lost its FFN and the next its attention, what is left of the two is not one layer.
  const areOfTwo = (first: readonly Branch[], second: readonly Branch[]): boolean =>
    origin !== undefined && originOf(first, origin) !== originOf(second, origin);
  let current: Branch[] | null = null;
  // Layers whose attentions are on one sum, until the sum of their FFNs is reached.
  let parallel: readonly Branch[][] | null = null;
  const layerOf = (branch: Branch): number | null => numberOf(branch, origin);
  for (const stage of stream.stages) {
    // What happens to the stream between two sums (a copy, a Reshape, the norm of a post-norm network) parts no layer.
    if (!stage.isResidual) continue;
    const branches = stage.branches.map((output) => readBranch(stream, stage, output));
    const mixers = branches.filter(mixesTokens);
    const mixes = mixers.length > 0;
    if (mixers.length > 1 || (parallel && !mixes)) {
      const more: readonly Branch[][] =
        parallel && !mixes ? adopt(parallel, branches, layerOf) : splitLayers(branches, layerOf);
      groups.push(...more);
      parallel = mixers.length === branches.length ? more : null;
      current = null;
      continue;
    }
    parallel = null;
    const areParallel = branches.length > 1 && branches.every((branch) => branch.role === 'ffn');
    const continues: boolean =
      !mixes && !areParallel && current?.length === 1 && current[0]?.role !== 'ffn' && !areOfTwo(current, branches);
    if (continues && current) {
      current.push(...branches);
      current = null;
    } else if (!areParallel) {
      // Several branches of which one is no FFN (experts, each a term of the sum) are parts of one layer.
      current = [...branches];
      groups.push(current);
      if (branches.length > 1 || !mixes) current = null;
    } else {
      // Parallel FFNs on one input: as many layers.
      for (const branch of branches) groups.push([branch]);
      current = null;
    }
  }
  const numbers = layerNumbers(groups, origin);
  const fixed = findFixed(stream, groups);
  const layers = groups.map((branches, i): Layer => {
    const others = branches.filter((branch) => branch.role === 'other');
    const attention = branches.find((branch) => branch.role === 'attention') ?? null;
    const ffn = branches.find((branch) => branch.role === 'ffn') ?? null;
    return { ...(numbers[i] as LayerNumber), attention, ffn, others, fixed: fixed[i] ?? null };
  });
  // FFNs that were made parallel sit on one sum in any order.
  if (origin) layers.sort((a, b) => a.index - b.index);
  const reason = layers.length > 0 ? null : whyNone(stream);
  return { stream, layers, reason };
}

/** A stage that only copies its start (a Cast that changes nothing, Identity). */
export function isCopy(stage: Stage, stream: ResidualStream): boolean {
  const end = valueAt(stage.end);
  return end !== null && isSame(end, stage.start, stream.types);
}

/** A stage that only reshapes its start: some exporters flatten [batch, tokens] around the FFN. */
export function isReshape({ start, end }: Stage): boolean {
  const node = valueAt(end)?.producer;
  return node?.op === 'Reshape' && node.input(0) !== null && pointOf(node.input(0) as Value) === start;
}

function readBranch(stream: ResidualStream, stage: Stage, output: Value): Branch {
  const nodes = branchNodes(stream, stage, output);
  const base = { stage, output, nodes };
  if (stage.branches.some((other) => other !== output && other.producer && nodes.has(other.producer))) {
    // Blocks made parallel as wholes: r + a(r) + f(r + a(r)) + ...
    const reason = 'it reads the result of the attention that is added to the same sum';
    return { ...base, role: 'other', reason, recognised: null, mixesTokens: false };
  }
  // Experts first: a router's Softmax and batched products look like attention.
  const experts = expertsIn(nodes);
  if (experts) return { ...base, role: 'other', reason: experts, recognised: 'experts', mixesTokens: false };
  const mixer = mixerOf(nodes, stream, stage);
  if (mixer?.isAttention) {
    return { ...base, role: 'attention', attention: describeAttention(stream, stage, output, mixer.kind) };
  }
  if (mixer) {
    return { ...base, role: 'other', reason: `${mixer.kind} mixes tokens`, recognised: null, mixesTokens: true };
  }
  const ffn = matchFfn(output, stage.start, stage.end, stream.types);
  if (!(ffn instanceof Refusal)) return { ...base, role: 'ffn', ffn };
  return { ...base, role: 'other', reason: ffn.message, recognised: ffn.recognised, mixesTokens: false };
}

function expertsIn(nodes: ReadonlySet<Node>): string | null {
  for (const node of nodes) {
    if (node.opType === 'MoE' || node.opType === 'QMoE') return `it is a mixture of experts (${node.op})`;
    if (node.opType === 'TopK') return 'it is a mixture of experts (TopK routing)';
  }
  return null;
}

function whyNone(stream: ResidualStream): string {
  if (!stream.embedding) return 'no residual stream was found: no sum adds a branch to the value the branch reads';
  return 'no layer was found on the residual stream';
}
