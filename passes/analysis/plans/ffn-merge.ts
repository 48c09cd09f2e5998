/**
 * What FFNs on one sum would become as one FFN: which ones belong together, what happens to their norms, and all merged
 * constants, or the reason why there are none. Nothing is changed here (concat-ffn does that).
 */

import type { Node, Value } from '../../../ir/core.js';
import { add, concat, type Weight } from '../../../ir/weight.js';
import type { ElementConstant } from '../layers/elementwise.js';
import { compatibilityKey, type Ffn, keyDifference } from '../layers/ffn.js';
import type { FfnBranch, Layer } from '../layers/layer.js';
import type { Stage } from '../layers/residual-stream.js';
import type { Linear } from '../matrices/linear.js';
import type { Matrix } from '../matrices/stored-matrices.js';
import { constantVector, vectorOf, withRank } from '../matrices/vectors.js';
import { attempt, describe, Refusal } from '../refusal.js';
import type { Slot } from '../values/constants.js';
import { foldedMatrix, foldedShift, type NormPlan, planNorms } from './norm-plan.js';

/** An FFN of a group that is to become one. */
export interface Member {
  readonly layer: Layer;
  readonly branch: FfnBranch;
  readonly ffn: Ffn;
}

/** Everything that replaces the frame's constants, made before anything is changed. */
export interface Merged extends NormPlan {
  /** Per input linear: one matrix, or, with `own` norms, one per member. */
  readonly inputs: readonly (readonly Matrix[])[];
  /** Per input linear, to be added to its result: [fused width] each. With `own` norms biases stay where they are. */
  readonly inputBiases: readonly (Weight | null)[];
  /** Per constant of the element-wise part: what takes its place; null where it stays, or is a bias of an input linear. */
  readonly constants: readonly (Weight | null)[];
  readonly down: Matrix;
  readonly downBias: Weight | null;
  readonly width: number;
}

/** Groups of FFNs on one sum that compute the same function of their weights; none with `refused` down projections. */
export function mergeableGroups(layers: readonly Layer[], refused: ReadonlySet<Node>): Member[][] {
  const groups: Member[][] = [];
  const byStage = new Map<Stage, Map<string, Member[]>>();
  for (const layer of layers) {
    const { ffn: branch } = layer;
    if (!branch || branch.stage.branches.length < 2 || refused.has(branch.ffn.down.node)) continue;
    const byKey = byStage.get(branch.stage) ?? new Map<string, Member[]>();
    byStage.set(branch.stage, byKey);
    const key = compatibilityKey(branch.ffn);
    const group = byKey.get(key) ?? [];
    if (group.length === 0) groups.push(group);
    byKey.set(key, group);
    group.push({ layer, branch, ffn: branch.ffn });
  }
  return groups.filter((group) => group.length > 1).map((group) => group.sort((a, b) => a.layer.index - b.layer.index));
}

/**
 * Why FFNs could not become one if they read one input, or null: the question that is asked before anything is changed.
 * What `merge` says of them afterwards is the same. The reason is what the last of them does: "differs from layer 3: ...".
 */
export function canMerge(members: readonly Member[]): Refusal | null {
  const [first, ...others] = members as [Member, ...Member[]];
  for (const { ffn } of others) {
    const difference = keyDifference(first.ffn, ffn);
    if (difference) return new Refusal(`differs from layer ${first.layer.label}: ${difference}`);
  }
  const merged = merge(members);
  if (!(merged instanceof Refusal)) return null;
  const labels = members.slice(0, -1).map(({ layer }) => layer.label);
  const before = `${labels.length > 1 ? 'layers' : 'layer'} ${labels.join(', ')}`;
  return new Refusal(`cannot become one with ${before}: ${merged.message}`, merged.node);
}

/** All merged constants, or why there are none. */
export function merge(group: readonly Member[]): Merged | Refusal {
  return attempt(() => mergeAll(group));
}

function mergeAll(group: readonly Member[]): Merged {
  const [first] = group as [Member];
  const reader = innerReader(first);
  if (reader) throw reader;
  const ffns = group.map(({ ffn }) => ffn);
  const plan = planNorms(ffns);
  const widths = ffns.map(padWidth);
  const isPadded = ffns.some(({ width }, m) => width !== widths[m]);
  const hasVectors = ffns.some(({ constants }) => constants.some(({ scalar }) => scalar === null));
  if (isPadded && (hasVectors || ffns.some(({ keepsZero }) => !keepsZero))) {
    throw new Refusal('their widths would need padding, and padded channels would not stay zero');
  }
  const inputs = first.ffn.linears.map((_, i) => {
    const matrices = ffns.map((ffn, m) => paddedTo(foldedMatrix(ffn, i, plan), 'out', widths[m] as number));
    return plan.norms === 'own' ? matrices : [(matrices[0] as Matrix).join(matrices.slice(1), 'out')];
  });
  // Their results are put together: one that has gone through the activation is none that has not.
  const isHidden = (linear: Linear | undefined): boolean => linear?.activation != null;
  const differs = first.ffn.linears.some((linear, i) =>
    ffns.some(({ linears }) => isHidden(linears[i]) !== isHidden(linear)),
  );
  if (plan.norms === 'own' && differs) {
    throw new Refusal('each keeps its own norm, and one has its activation inside of the operator that multiplies');
  }
  const downs = ffns.map(({ down }, m) => paddedTo(down.matrix, 'in', widths[m] as number));
  const constants = first.ffn.constants.map((_, k) => constantParts(ffns, k, widths, plan));
  for (const [k, { slot, biasOf }] of first.ffn.constants.entries()) {
    if (constants[k] && !biasOf && !isOwn(slot.node, first)) {
      throw new Refusal(`a number that ${describe(slot.node)} reads serves other layers as well`, slot.node);
    }
  }
  return {
    ...plan,
    inputs,
    inputBiases: first.ffn.linears.map((linear, i) => {
      const k = first.ffn.constants.findIndex(({ biasOf }) => biasOf === linear);
      const own = plan.norms === 'own' ? null : constants[k];
      const parts = ffns.map((ffn, m) => [own?.[m], foldedShift(ffn, i, plan)].filter((part) => part != null));
      return parts.every((part) => part.length > 0) ? concat(parts.map(add), 0) : null;
    }),
    constants: first.ffn.constants.map(({ biasOf }, k) => {
      const parts = constants[k];
      return biasOf || !parts ? null : concat(parts, (parts[0] as Weight).dims.length - 1);
    }),
    down: (downs[0] as Matrix).join(downs.slice(1), 'in'),
    downBias: mergedDownBias(ffns),
    width: widths.reduce((sum, width) => sum + width, 0),
  };
}

/** True for a node of a branch, or one that computes from constants, and for the branch alone. */
function isOwn(node: Node, member: Member): boolean {
  if (member.branch.nodes.has(node)) return true;
  // What nobody reads would have to fit, too.
  if (node.outputs.every((value) => !value || value.isUnused)) return false;
  return node.outputs.every(
    (value) => !value || (!value.isGraphOutput && value.uses.every((use) => isOwn(use.node, member))),
  );
}

function padWidth({ width, down }: Ffn): number {
  return Math.ceil(width / down.matrix.inAlignment) * down.matrix.inAlignment;
}

function paddedTo(matrix: Matrix, axis: 'in' | 'out', width: number): Matrix {
  return (axis === 'in' ? matrix.inWidth : matrix.outWidth) === width ? matrix : matrix.pad(axis, width);
}

/** Constant `k` of each member, one number per channel, in as many dimensions as the first; null where one number serves. */
function constantParts(
  ffns: readonly Ffn[],
  k: number,
  widths: readonly number[],
  plan: NormPlan,
): readonly Weight[] | null {
  const all = ffns.map(({ constants }) => constants[k] as ElementConstant);
  const [first] = all as [ElementConstant];
  if (plan.norms === 'own' && all.some(({ biasOf }) => (biasOf === null) !== (first.biasOf === null))) {
    throw new Refusal('their biases stand in different places, and gate and up stay per member');
  }
  if (first.scalar !== null && all.every(({ scalar }) => scalar === first.scalar)) return null;
  const { weight } = (all.find(({ scalar }) => scalar === null) ?? first).slot;
  const parts = all.map(({ scalar, slot }, m) =>
    scalar === null
      ? vectorOf(slot.weight, widths[m] as number)
      : constantVector(scalar, weight.dtype, widths[m] as number),
  );
  if (parts.some(({ dtype }) => dtype !== weight.dtype)) throw new Refusal('their constants are of different types');
  const rank = first.biasOf || first.scalar !== null ? 1 : first.slot.weight.dims.length;
  return parts.map((part) => withRank(part, rank) as Weight);
}

/** The sum of the biases after the down projections, in as many dimensions as the first. */
function mergedDownBias(ffns: readonly Ffn[]): Weight | null {
  const [first] = ffns as [Ffn];
  if (!first.downBias) return null;
  const rank = first.downBias.weight.dims.length;
  const parts = ffns.map(({ downBias, hidden }) => withRank(vectorOf((downBias as Slot).weight, hidden), rank));
  return add(parts as Weight[]);
}

/** Who else reads what the frame computes between its linears and the sum, where everything changes. */
function innerReader({ branch, ffn }: Member): Refusal | null {
  const open = ffn.linears.map((linear) => linear.node.output(0) as Value);
  for (let value = open.pop(); value; value = open.pop()) {
    if (value.isGraphOutput) return new Refusal(`'${value.name}', inside the first of them, is a graph output`);
    if (value === branch.output && value.useCount === 1) continue;
    for (const { node } of value.uses) {
      if (node.op === 'Shape') continue;
      if (value === branch.output || !branch.nodes.has(node)) {
        return new Refusal(`'${value.name}', inside the first of them, has another reader`, node);
      }
      for (const result of node.outputs) if (result) open.push(result);
    }
  }
  return null;
}
