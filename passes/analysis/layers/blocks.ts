/**
 * Layers (transformer blocks) on the residual stream: what each branch is, and which branches make up a layer.
 *
 * Layers are numbered as in the original model: by the numbers in names (`model.layers.7.mlp...`, also in metadata that
 * exporters leave behind) where those follow the stream, else by position.
 */
import type { Graph, Node, Value } from '../../../ir/core.js';
import { describe, type Recognised, Refusal } from '../refusal.js';
import { branchNodes, describeAttention, hasMixer, mixerOf } from './attention.js';
import { matchFfn } from './ffn.js';
import { findResidualStream } from './find-stream.js';
import { findFixed } from './fixed-layers.js';
import type { AttentionBranch, Blocks, Branch, Layer, LayerOrigin, OtherBranch } from './layer.js';
import { type Group, groupLayers, type ReadStage } from './layer-groups.js';
import { matchLinearBranch, slotsOf } from './linear-branch.js';
import { isSame, pointOf, type ResidualStream, type Stage, shiftedBy, valueAt } from './residual-stream.js';

/** Finds the layers of `graph`. With `origin`, branches keep the numbers they had there. */
export function findBlocks(graph: Graph, origin?: LayerOrigin): Blocks {
  const stream = findResidualStream(graph);
  const stages = stream.stages.map((stage): ReadStage => {
    const branches = stage.branches.map((output) => readBranch(stream, stage, output));
    // What happens to the stream between two sums (a copy, a Reshape, the norm of a post-norm network) hides nothing.
    return { stage, branches, hidden: stage.isResidual ? null : hiddenNodes(stream, stage) };
  });
  const { groups, numbering, doubt } = groupLayers(stages, origin);
  const owners = new Map(
    groups.flatMap(({ label, branches }) => branches.flatMap(({ nodes }) => [...nodes].map((node) => [node, label]))),
  );
  const layers = groups.map((group) => {
    const branches = group.branches.map((branch) =>
      branch.role === 'attention' ? described(branch, stream, owners) : branch,
    );
    return layerOf({ ...group, branches });
  });
  const fixed = findFixed(stream, layers);
  return {
    stream,
    layers: layers.map((layer, i) => ({ ...layer, fixed: layer.fixed ?? fixed[i] ?? null })),
    reason: layers.length > 0 ? null : whyNone(stream),
    numbering,
    doubt,
  };
}

function layerOf({ index, label, name, branches, hidden }: Group): Layer {
  const slots = slotsOf(branches);
  const attention = branches.find((branch) => branch.role === 'attention') ?? null;
  const ffn = branches.find((branch) => branch.role === 'ffn') ?? null;
  const unread = hidden && whyHidden(hidden);
  return {
    index,
    label,
    name,
    attention,
    ffn,
    linears: branches.flatMap((branch) =>
      branch.role === 'linear' ? [{ ...branch, slot: slots.get(branch) ?? 'unknown' }] : [],
    ),
    others: branches.flatMap((branch) => (branch === attention || branch === ffn ? [] : asOther(branch))),
    fixed: branches.length === 0 ? unread : null,
    unread,
  };
}

/** A branch that is no other's equal in its layer: a second attention or FFN is kept as what it is, another branch. */
function asOther(branch: Branch): OtherBranch[] {
  if (branch.role === 'other') return [branch];
  if (branch.role === 'linear') return [];
  const { stage, output, nodes } = branch;
  const isAttention = branch.role === 'attention';
  const reason = `it is a second ${isAttention ? 'attention' : 'FFN'} of its layer`;
  const recognised = isAttention ? 'mixer' : null;
  return [{ stage, output, nodes, role: 'other', reason, recognised, mixesTokens: isAttention }];
}

function described(
  branch: AttentionBranch,
  stream: ResidualStream,
  owners: ReadonlyMap<Node, string>,
): AttentionBranch {
  const { stage, output, attention } = branch;
  const ownerOf = (node: Node): string | undefined => owners.get(node);
  return { ...branch, attention: describeAttention(stream, stage, output, attention.kind, ownerOf) };
}

/** A stage that only copies its start (a Cast that changes nothing, Identity). */
export function isCopy(stage: Stage, stream: ResidualStream): boolean {
  const end = valueAt(stage.end);
  return end !== null && isSame(end, stage.start, stream.types);
}

/** A stage that only adds a constant to its start: a bias in the place of a branch. */
export function isShift({ start, end }: Stage, { types }: ResidualStream): boolean {
  const value = valueAt(end);
  const shifted = value && shiftedBy(value);
  return shifted != null && isSame(shifted, start, types);
}

/** A stage that only reshapes its start: some exporters flatten [batch, tokens] around the FFN. */
export function isReshape({ start, end }: Stage): boolean {
  const node = valueAt(end)?.producer;
  return node?.op === 'Reshape' && node.input(0) !== null && pointOf(node.input(0) as Value) === start;
}

/** The nodes of a stage that is no sum although it multiplies by matrices or mixes tokens; null when it does neither. */
function hiddenNodes(stream: ResidualStream, stage: Stage): ReadonlySet<Node> | null {
  const nodes = branchNodes(stream, stage, stage.end);
  return hasMixer(nodes) || expertsIn(nodes) !== null ? nodes : null;
}

function whyHidden({ start, end }: Stage): string {
  const node = 'opType' in end ? end : end.producer;
  return `from '${start.name}' to ${describe(node)} no sum adds branches to the residual stream`;
}

function readBranch(stream: ResidualStream, stage: Stage, output: Value): Branch {
  const nodes = branchNodes(stream, stage, output);
  const base = { stage, output, nodes };
  const other = (reason: string, recognised: Recognised | null): OtherBranch => {
    const mixesTokens = recognised === 'mixer' || recognised === 'cross attention';
    return { ...base, role: 'other', reason, recognised, mixesTokens };
  };
  if (stage.branches.some((term) => term !== output && term.producer && nodes.has(term.producer))) {
    // Blocks made parallel as wholes: r + a(r) + f(r + a(r)) + ...
    return other('it reads the result of the attention that is added to the same sum', null);
  }
  // Experts first: a router's Softmax and batched products look like attention.
  const experts = expertsIn(nodes);
  if (experts) return other(experts, 'experts');
  const mixer = mixerOf(nodes, stream, stage);
  if (mixer?.role === 'attention') {
    // What dies with it is read once all layers are known.
    const attention = {
      kind: mixer.kind,
      nodes,
      side: new Set<Node>(),
      kvInputs: [],
      kvOutputs: [],
      blocked: null,
      obstacles: [],
    };
    return { ...base, role: 'attention', attention };
  }
  if (mixer?.role === 'cross') return other('its cross attention reads another sequence', 'cross attention');
  if (mixer) return other(`${mixer.kind} mixes tokens`, 'mixer');
  const linear = matchLinearBranch(output, stage.start, stage.end, stream.types);
  if (linear) return { ...base, role: 'linear', ...linear, slot: 'unknown' };
  const ffn = matchFfn(output, stage.start, stage.end, stream.types);
  if (!(ffn instanceof Refusal)) return { ...base, role: 'ffn', ffn };
  return other(ffn.message, ffn.recognised);
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
