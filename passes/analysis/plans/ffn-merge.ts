/**
 * What FFNs on one sum would become as one FFN: which ones belong together, what happens to their norms, and all merged
 * constants, or the reason why there are none. Nothing is changed here (concat-ffn does that).
 */

import type { Node, Value } from '../../../ir/core.js';
import { add, concat, contract, type Weight } from '../../../ir/weight.js';
import { compatibilityKey, type Ffn, gammaOf, keyDifference } from '../layers/ffn.js';
import type { FfnBranch, Layer } from '../layers/layer.js';
import type { Stage } from '../layers/residual-stream.js';
import type { Linear } from '../matrices/linear.js';
import type { Matrix } from '../matrices/stored-matrices.js';
import { vectorOf } from '../matrices/vectors.js';
import { attempt, Refusal } from '../refusal.js';
import type { Slot } from '../values/constants.js';

/** An FFN of a group that is to become one. */
export interface Member {
  readonly layer: Layer;
  readonly branch: FfnBranch;
  readonly ffn: Ffn;
}

/** What becomes of the members' norms: one is as good as the other, all are folded into the weights, or each stays. */
export type NormPlan = 'shared' | 'folded' | 'own';

/** Everything that replaces the frame's constants, made before anything is changed. */
export interface Merged {
  readonly norms: NormPlan;
  /** Per input linear: one matrix, or, with `own` norms, one per member. */
  readonly inputs: readonly (readonly Matrix[])[];
  /** Per input linear, to be added after it: [fused width] each. */
  readonly inputBiases: readonly (Weight | null)[];
  readonly vectors: readonly Weight[];
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
 * What `merge` says of them afterwards is the same.
 */
export function canMerge(members: readonly Member[]): Refusal | null {
  const [first, ...others] = members as [Member, ...Member[]];
  for (const { ffn } of others) {
    const difference = keyDifference(first.ffn, ffn);
    if (difference) return new Refusal(`it differs from layer ${first.layer.label}: ${difference}`);
  }
  const merged = merge(members);
  if (!(merged instanceof Refusal)) return null;
  const labels = members.slice(0, -1).map(({ layer }) => layer.label);
  const before = `${labels.length > 1 ? 'layers' : 'layer'} ${labels.join(', ')}`;
  return new Refusal(`it cannot become one with ${before}: ${merged.message}`, merged.node);
}

/** All merged constants, or why there are none. */
export function merge(group: readonly Member[]): Merged | Refusal {
  return attempt(() => mergeAll(group));
}

function mergeAll(group: readonly Member[]): Merged {
  const [first] = group as [Member];
  const reader = innerReader(first);
  if (reader) throw new Refusal(reader);
  const norms = planNorms(group);
  const target = group.map(({ ffn }) => padWidth(ffn));
  const isPadded = group.some(({ ffn }, m) => ffn.width !== target[m]);
  if (
    isPadded &&
    group.some(({ ffn }) => !ffn.keepsZero || ffn.vectors.length > 0 || ffn.linears.some((l) => l.bias))
  ) {
    throw new Refusal('their widths would need padding, and padded channels would not stay zero');
  }
  const scaled = (member: Member, matrix: Matrix): Matrix => {
    const gamma = norms === 'folded' ? gammaOf(member.ffn) : null;
    return gamma ? (matrix.scaleRows(gamma) as Matrix) : matrix;
  };
  const inputs = first.ffn.linears.map((_, i) => {
    const matrices = group.map((member, m) => {
      const { matrix } = member.ffn.linears[i] as Linear;
      return scaled(member, member.ffn.width === target[m] ? matrix : matrix.pad('out', target[m] as number));
    });
    return norms === 'own' ? matrices : [(matrices[0] as Matrix).join(matrices.slice(1), 'out')];
  });
  const downs = group.map(({ ffn }, m) =>
    ffn.width === target[m] ? ffn.down.matrix : ffn.down.matrix.pad('in', target[m] as number),
  );
  return {
    norms,
    inputs,
    inputBiases: first.ffn.linears.map((_, i) => inputBias(group, i, norms)),
    vectors: first.ffn.vectors.map((vector, i) => {
      const parts = group.map(({ ffn }) => (ffn.vectors[i] as Slot).weight);
      return concat(parts, vector.weight.dims.length - 1);
    }),
    down: (downs[0] as Matrix).join(downs.slice(1), 'in'),
    downBias: first.ffn.downBias && add(group.map(({ ffn }) => vectorOf((ffn.downBias as Slot).weight, ffn.hidden))),
    width: target.reduce((sum, width) => sum + width, 0),
  };
}

function padWidth({ width, down }: Ffn): number {
  return Math.ceil(width / down.matrix.inAlignment) * down.matrix.inAlignment;
}

function planNorms(group: readonly Member[]): NormPlan {
  const [first] = group as [Member];
  const { norm } = first.ffn;
  const isEqual = group.every(
    ({ ffn }) => ffn.norm.gamma?.weight === norm.gamma?.weight && ffn.norm.beta?.weight === norm.beta?.weight,
  );
  if (isEqual) return 'shared';
  const canScale = group.every(({ ffn }) => gammaOf(ffn) && ffn.linears.every((linear) => linear.matrix.dense));
  return canScale && !hasOutsideReader(first.ffn) ? 'folded' : 'own';
}

/** True when something other than its own linears reads a branch's norm. Shape queries do not count. */
export function hasOutsideReader({ norm, linears }: Pick<Ffn, 'norm' | 'linears'>): boolean {
  const own = new Set(linears.map((linear) => linear.node));
  const open: Value[] = [norm.output];
  for (let value = open.pop(); value; value = open.pop()) {
    if (value.isGraphOutput) return true;
    for (const { node } of value.uses) {
      if (own.has(node) || node.op === 'Shape') continue;
      // Copies, and the Reshape that flattens the input of a Gemm.
      if (!['Cast', 'Identity', 'Reshape'].includes(node.op)) return true;
      for (const copy of node.outputs) if (copy) open.push(copy);
    }
  }
  return false;
}

/** Who else reads what the frame computes between its linears and the sum, where everything changes. */
function innerReader({ branch, ffn }: Member): string | null {
  const open = ffn.linears.map((linear) => linear.node.output(0) as Value);
  for (let value = open.pop(); value; value = open.pop()) {
    if (value.isGraphOutput) return `'${value.name}', inside the first of them, is a graph output`;
    if (value === branch.output && value.useCount === 1) continue;
    for (const { node } of value.uses) {
      if (node.op === 'Shape') continue;
      if (value === branch.output || !branch.nodes.has(node)) {
        return `'${value.name}', inside the first of them, has another reader`;
      }
      for (const result of node.outputs) if (result) open.push(result);
    }
  }
  return null;
}

/** The fused bias of input linear `i`: the members' own biases and, when folded, beta^T W. Null when there is none. */
function inputBias(group: readonly Member[], i: number, norms: NormPlan): Weight | null {
  const parts = group.map(({ ffn }) => {
    const linear = ffn.linears[i] as Linear;
    const own = linear.bias ? [vectorOf(linear.bias.weight, linear.outWidth)] : [];
    const beta = norms === 'folded' && ffn.norm.beta ? vectorOf(ffn.norm.beta.weight, ffn.hidden) : null;
    return beta ? [...own, contract(linear.matrix.dense as Weight, beta)] : own;
  });
  if (parts.every((part) => part.length === 0) || norms === 'own') return null;
  return concat(parts.map(add), 0);
}
