/**
 * FFNs that read the same input become one wide FFN (arXiv 2503.18908, theorem 3.1; method.md, 1.3 and 1.4):
 *
 *     sum_i f_i(n_i(r)) = f(n(r)),   gate and up concatenated along the hidden axis, down along its input axis
 *
 * Before and after, for SwiGLU members i with weights [in, out]:
 *
 *     Wg = [diag(gamma_1) Wg_1 | diag(gamma_2) Wg_2 | ...]     Wu likewise     Wd = [Wd_1; Wd_2; ...]     gamma = 1
 *
 * Norms that differ are folded: gamma into the rows of gate and up, a LayerNorm's beta into their biases (beta^T W).
 * Where that would not be exact (block-quantised weights) or the norm has another reader, gate and up stay per member,
 * each on its own norm; their outputs are concatenated, and activation and down projection are merged all the same.
 * Per-channel constants concatenate, down biases add. Results differ by rounding only: the order of the sum changes,
 * and folded weights are rounded once.
 *
 * Quantised members whose widths are no multiple of the block are padded with channels that are zero.
 *
 * Phases: group the FFN branches of one sum by what they compute; build all merged matrices (nothing is changed if one
 * cannot be); take the first member's nodes as the frame; give it the matrices; take the others out of the sum.
 * Element-wise nodes are reused as they are, so any activation that the analysis recognises works.
 *
 * What it will not find: FFNs on different sums (parallelize-ffn puts them on one), FFNs whose output is normalised
 * before the sum (post-norm), weights whose scales run along the hidden axis.
 */
import type { Node, Value } from '../ir/core.js';
import { tensorType } from '../ir/type.js';
import { add, concat, contract, reshape, type Weight } from '../ir/weight.js';
import type { FfnBranch, Layer } from './analysis/blocks.js';
import { compatibilityKey, type Ffn, keyDifference } from './analysis/ffn.js';
import type { Linear } from './analysis/linear.js';
import { type Matrix, NotExact } from './analysis/matrix.js';
import type { Slot } from './analysis/norm.js';
import type { Point } from './analysis/residual-stream.js';
import { filled, gammaOf, vectorOf } from './analysis/vectors.js';
import { definePass } from './pass.js';
import { isSumUpTo, type Rewriter } from './rewriter.js';

interface Member {
  readonly layer: Layer;
  readonly branch: FfnBranch;
  readonly ffn: Ffn;
}

/** What becomes of the members' norms: one is as good as the other, all are folded into the weights, or each stays. */
type NormPlan = 'shared' | 'folded' | 'own';

/** Everything that replaces the frame's constants, made before anything is changed. */
interface Merged {
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

export const concatFfn = definePass({
  id: 'concat-ffn',
  scope: 'decoder',
  summary: 'concatenate the weights of FFNs that read one input into one wide FFN',
  effect: 'reassociates',
  options: {},
  statistics: {
    runs: 'wide FFNs made',
    members: 'FFNs they replace',
    folded: 'runs whose norms were folded into their weights',
    own: 'runs whose members keep norm, gate and up of their own',
  },
  run({ rewriter, blocks, outcome, passed, missed, count }) {
    // Each fusion changes the graph and so the analysis; FFNs that were refused are not tried again.
    const refused = new Set<Node>();
    for (let group = nextGroup(blocks().layers, refused); group; group = nextGroup(blocks().layers, refused)) {
      const labels = group.map(({ layer }) => layer.label);
      const merged = merge(group);
      if (typeof merged === 'string') {
        for (const { ffn } of group) refused.add(ffn.down.node);
        missed(`layers ${labels.join(', ')} stay parallel: ${merged}`, labels[0]);
        continue;
      }
      fuse(group, merged, blocks().stream.position, rewriter);
      const widths = group.map(({ ffn }) => ffn.width);
      outcome.fusedRuns.push({ layers: labels, widths, fusedWidth: merged.width });
      const how = {
        shared: '',
        folded: ', norms folded into gate and up',
        own: ', norms, gate and up kept per member',
      };
      const text = `${labels.length} FFNs of layers ${labels.join(', ')} (widths ${widths.join('+')})`;
      passed(`${text} became one of ${merged.width}${how[merged.norms]}`, labels[0]);
      count('runs');
      count('members', labels.length);
      if (merged.norms !== 'shared') count(merged.norms);
    }
    for (const [label, reason] of leftParallel(blocks().layers, refused)) missed(reason, label);
  },
});

/** The next group of FFNs on one sum that compute the same function of their weights. */
function nextGroup(layers: readonly Layer[], refused: ReadonlySet<Node>): Member[] | null {
  for (const layer of layers) {
    if (!layer.ffn || refused.has(layer.ffn.ffn.down.node)) continue;
    const { stage, ffn } = layer.ffn;
    if (stage.branches.length < 2) continue;
    const key = compatibilityKey(ffn);
    const group: Member[] = [];
    for (const other of layers) {
      const { ffn: branch } = other;
      if (branch?.stage !== stage || refused.has(branch.ffn.down.node)) continue;
      if (compatibilityKey(branch.ffn) === key) group.push({ layer: other, branch, ffn: branch.ffn });
    }
    if (group.length > 1) return group.sort((a, b) => a.layer.index - b.layer.index);
  }
  return null;
}

/** FFNs that still share a sum with others because they compute something else. */
function* leftParallel(layers: readonly Layer[], refused: ReadonlySet<Node>): Generator<[string, string]> {
  for (const [i, { ffn, label }] of layers.entries()) {
    const first = layers.slice(0, i).find((other) => ffn && other.ffn?.stage === ffn.stage);
    if (!ffn || !first?.ffn || refused.has(ffn.ffn.down.node)) continue;
    const difference = keyDifference(first.ffn.ffn, ffn.ffn);
    if (difference) yield [label, `stays parallel to layer ${first.label}: ${difference}`];
  }
}

/** All merged constants, or why there are none. */
function merge(group: readonly Member[]): Merged | string {
  try {
    const [first] = group as [Member];
    const reader = innerReader(first);
    if (reader) throw new NotExact(reader);
    const norms = planNorms(group);
    const target = group.map(({ ffn }) => padWidth(ffn));
    const isPadded = group.some(({ ffn }, m) => ffn.width !== target[m]);
    if (
      isPadded &&
      group.some(({ ffn }) => !ffn.keepsZero || ffn.vectors.length > 0 || ffn.linears.some((l) => l.bias))
    ) {
      throw new NotExact('their widths would need padding, and padded channels would not stay zero');
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
  } catch (error) {
    if (error instanceof NotExact) return error.message;
    throw error;
  }
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

/** True when something other than the FFN's own linears reads its norm. Shape queries do not count. */
function hasOutsideReader({ norm, linears }: Ffn): boolean {
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

function fuse(
  group: readonly Member[],
  merged: Merged,
  position: ReadonlyMap<Point, number>,
  rewriter: Rewriter,
): void {
  const frame = group[0] as Member;
  const { ffn } = frame;
  const from = frame.layer.label.split('-')[0];
  const to = (group.at(-1) as Member).layer.label.split('-').at(-1);
  const prefix = `fused.layers.${from}-${to}.ffn`;
  const name = (part: string): string => `${prefix}.${part}`;

  const joined = ffn.linears.map((linear, i) => {
    const role = name(roleName(ffn, i));
    const matrices = merged.inputs[i] as readonly Matrix[];
    const bias = merged.inputBiases[i] ?? null;
    if (merged.norms !== 'own') return rewriter.installLinear(linear, matrices[0] as Matrix, bias, role);
    // Gate and up of their own: only what is padded changes; the outputs are put side by side.
    const outputs = group.map(({ ffn: own }, m) => {
      const mine = own.linears[i] as Linear;
      const matrix = matrices[m] as Matrix;
      return matrix === mine.matrix ? mine.output : rewriter.installLinear(mine, matrix, null, `${role}.${m}`);
    });
    return sideBySide(rewriter, linear.output, outputs, role);
  });
  for (const [i, vector] of ffn.vectors.entries()) {
    const value = rewriter.addWeight(name(`vector_${i}`), merged.vectors[i] as Weight);
    rewriter.replaceOperand(vector.node, vector.index, value);
  }
  widen([...ffn.hiddenValues, ...joined], ffn.width, merged.width);
  installDown(rewriter, ffn, merged, name);
  if (merged.norms === 'folded') {
    for (const [slot, value] of [
      [ffn.norm.gamma, 1],
      [ffn.norm.beta, 0],
    ] as const) {
      if (!slot) continue;
      const weight = filled(slot.weight, value);
      const part = value === 1 ? 'norm.weight' : 'norm.bias';
      rewriter.replaceOperand(slot.node, slot.index, rewriter.addWeight(name(part), weight));
    }
  }
  const { start, end } = frame.branch.stage;
  const isSum = isSumUpTo(end, start, position);
  for (const { branch } of group.slice(1)) {
    rewriter.dropTerm(branch.output, isSum);
    rewriter.eraseProducer(branch.output);
  }
}

/** Concatenates the members' outputs along the channels; the frame's element-wise part reads the result. */
function sideBySide(rewriter: Rewriter, frame: Value, outputs: readonly Value[], name: string): Value {
  const readers = frame.uses.filter((use) => use.node.op !== 'Shape');
  const anchor = rewriter.earliest(readers.map((use) => use.node));
  for (const output of outputs) rewriter.hoist(output, anchor);
  const made = frame.graph.addNode(
    {
      opType: 'Concat',
      name,
      inputs: outputs,
      outputs: [{ name, type: frame.type }],
      attributes: { axis: { kind: 'int', value: -1n } },
    },
    { before: anchor },
  );
  const result = made.output(0) as Value;
  for (const use of readers) use.node.setInput(use.index, result);
  return result;
}

function installDown(rewriter: Rewriter, ffn: Ffn, merged: Merged, name: (part: string) => string): void {
  const { down, downBias } = ffn;
  const isInside = downBias !== null && downBias.node === down.node;
  rewriter.installLinear(down, merged.down, isInside ? merged.downBias : null, name('down'));
  if (downBias && !isInside && merged.downBias) {
    const weight = reshape(merged.downBias, downBias.weight.dims) ?? merged.downBias;
    rewriter.replaceOperand(downBias.node, downBias.index, rewriter.addWeight(name('down.bias'), weight));
  }
}

function roleName(ffn: Ffn, index: number): string {
  if (ffn.linears.length === 1) return 'up';
  if (ffn.linears.length === 2) return index === 0 ? 'gate' : 'up';
  return `input_${index}`;
}

/** The values between the projections are wider now; sizes stated in the file must not lie. */
function widen(values: readonly Value[], from: number, to: number): void {
  for (const value of values) {
    if (value.type?.kind !== 'tensor' || !value.type.shape) continue;
    const shape = [...value.type.shape];
    if (shape.at(-1) === from) value.type = tensorType(value.type.dtype, [...shape.slice(0, -1), to]);
  }
}
