/**
 * FFNs that read the same input become one wide FFN (arXiv 2503.18908, theorem 3.1; method.md, 1.3 and 1.4):
 *
 *     sum_i f_i(n_i(r)) = f(n(r)),   gate and up concatenated along the hidden axis, down along its input axis
 *
 * Before and after, for SwiGLU members i with MatMul weights [in, out]:
 *
 *     Wg = [diag(gamma_1) Wg_1 | diag(gamma_2) Wg_2 | ...]     Wu likewise     Wd = [Wd_1; Wd_2; ...]     gamma = 1
 *
 * Gammas are folded only when members differ in them. Per-channel constants (biases of gate and up) concatenate, down
 * biases add. The algebra is exact; results differ by rounding only, because the order of the sum changes and folded
 * weights are rounded once.
 *
 * Phases: group the FFN branches of one sum by what they compute; take the first member's nodes as the frame; give them
 * the concatenated weights; take the other members out of the sum. Element-wise nodes are reused as they are, so any
 * activation that blocks.ts recognises works here.
 *
 * What it will not find: FFNs on different sums (parallelize-ffn puts them on one), FFNs whose output is normalised
 * before the sum (post-norm), quantised weights.
 */
import type { Node, Value } from '../ir/core.js';
import { type DataType, elementCount, tensorType } from '../ir/type.js';
import { add, concat, inlineWeight, reshape, scale, type Weight } from '../ir/weight.js';
import type { FfnBranch, Layer } from './analysis/blocks.js';
import { compatibilityKey, type Ffn } from './analysis/ffn.js';
import type { Slot } from './analysis/norm.js';
import type { Point } from './analysis/residual-stream.js';
import { definePass } from './pass.js';
import { isSumUpTo, type Rewriter } from './rewriter.js';

interface Member {
  readonly layer: Layer;
  readonly branch: FfnBranch;
  readonly ffn: Ffn;
}

export const concatFfn = definePass({
  id: 'concat-ffn',
  summary: 'concatenate the weights of FFNs that read one input into one wide FFN',
  effect: 'reassociates',
  options: {},
  statistics: { runs: 'wide FFNs made', members: 'FFNs they replace', folded: 'runs whose gammas were folded' },
  run({ rewriter, blocks, outcome, passed, missed, count }) {
    // Each fusion changes the graph and so the analysis; FFNs that were refused are not tried again.
    const refused = new Set<Node>();
    for (;;) {
      const group = nextGroup(blocks().layers, refused);
      if (!group) return;
      const first = group[0] as Member;
      const reason = whyNot(group);
      if (reason) {
        for (const { ffn } of group) refused.add(ffn.down.node);
        missed(reason, first.layer.label);
        continue;
      }
      const { position } = blocks().stream;
      const isFolded = needsFold(group);
      const labels = group.map(({ layer }) => layer.label);
      const widths = group.map(({ ffn }) => ffn.width);
      fuse(group, isFolded, position, rewriter);
      const fusedWidth = widths.reduce((sum, width) => sum + width, 0);
      outcome.fusedRuns.push({ layers: labels, widths, fusedWidth });
      passed(
        `${labels.length} FFNs of layers ${labels.join(', ')} (widths ${widths.join('+')}) became one of ${fusedWidth}` +
          (isFolded ? ', their gammas folded into gate and up' : ''),
        labels[0],
      );
      count('runs');
      count('members', labels.length);
      if (isFolded) count('folded');
    }
  },
});

/** The next group of FFNs on one sum that compute the same function of their weights. */
function nextGroup(layers: readonly Layer[], refused: ReadonlySet<Node>): Member[] | null {
  for (const layer of layers) {
    if (!layer.ffn || refused.has(layer.ffn.ffn.down.node)) continue;
    const { stage, ffn } = layer.ffn;
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

function needsFold(group: readonly Member[]): boolean {
  const gamma = group[0]?.ffn.norm.gamma?.weight;
  return group.some(({ ffn }) => ffn.norm.gamma?.weight !== gamma);
}

function whyNot(group: readonly Member[]): string | null {
  const first = (group[0] as Member).ffn;
  const labels = group.map(({ layer }) => layer.label).join(', ');
  const betas = new Set(group.map(({ ffn }) => ffn.norm.beta?.weight));
  if (needsFold(group) || betas.size > 1) {
    if (betas.size > 1) return `layers ${labels} stay parallel: their LayerNorm shifts (beta) differ`;
    if (first.norm.beta)
      return `layers ${labels} stay parallel: folding gamma under a LayerNorm shift is not supported`;
    const outsider = outsideReader(first);
    if (outsider) return `layers ${labels} stay parallel: the norm of the first is also read by ${outsider}`;
    for (const { ffn } of group) {
      if (!gammaVector(ffn)) return `layers ${labels} stay parallel: a gamma is not one number per channel`;
    }
  }
  const fused = group.reduce((sum, { ffn }) => sum + ffn.width, 0);
  if (!Number.isSafeInteger(fused * first.hidden * 8))
    return `layers ${labels} stay parallel: the fused weight is too large`;
  return null;
}

/** A reader of the first member's norm other than its own linears. */
function outsideReader(ffn: Ffn): string | null {
  const own = new Set(ffn.linears.map((linear) => linear.node));
  const open: Value[] = [ffn.norm.output];
  for (let value = open.pop(); value; value = open.pop()) {
    if (value.isGraphOutput) return `the graph output '${value.name}'`;
    for (const { node } of value.uses) {
      if (own.has(node)) continue;
      const copy = node.op === 'Cast' || node.op === 'Identity' ? node.output(0) : null;
      if (!copy) return `${node.op}${node.name ? ` '${node.name}'` : ''}`;
      open.push(copy);
    }
  }
  return null;
}

function gammaVector({ norm, hidden }: Ffn): Weight | null {
  return norm.gamma && elementCount(norm.gamma.weight.dims) === hidden ? reshape(norm.gamma.weight, [hidden]) : null;
}

function fuse(
  group: readonly Member[],
  isFolded: boolean,
  position: ReadonlyMap<Point, number>,
  rewriter: Rewriter,
): void {
  const frame = group[0] as Member;
  const { ffn } = frame;
  const from = frame.layer.label.split('-')[0];
  const to = (group.at(-1) as Member).layer.label.split('-').at(-1);
  const prefix = `fused.layers.${from}-${to}.ffn`;
  const set = (slot: Slot, name: string, weight: Weight): void =>
    rewriter.replaceOperand(slot.node, slot.index, rewriter.addWeight(`${prefix}.${name}`, weight));

  for (const [i, linear] of ffn.linears.entries()) {
    const parts = group.map((member) => {
      const own = member.ffn.linears[i] as Ffn['linears'][number];
      const gamma = isFolded ? gammaVector(member.ffn) : null;
      return gamma ? scale(own.weight, own.inAxis, gamma) : own.weight;
    });
    set(linear, `${roleName(ffn, i)}.weight`, concat(parts, linear.outAxis));
  }
  for (const [i, vector] of ffn.vectors.entries()) {
    const parts = group.map((member) => (member.ffn.vectors[i] as Slot).weight);
    set(vector, `vector_${i}`, concat(parts, vector.weight.dims.length - 1));
  }
  set(
    ffn.down,
    'down.weight',
    concat(
      group.map((member) => member.ffn.down.weight),
      ffn.down.inAxis,
    ),
  );
  mergeDownBias(group, set);
  if (isFolded && ffn.norm.gamma) set(ffn.norm.gamma, 'norm.weight', onesLike(ffn.norm.gamma.weight));

  const width = group.reduce((sum, member) => sum + member.ffn.width, 0);
  widen(ffn, width);
  const { start, end } = frame.branch.stage;
  const isSum = isSumUpTo(end, start, position);
  for (const { branch } of group.slice(1)) {
    rewriter.dropTerm(branch.output, isSum);
    rewriter.eraseProducer(branch.output);
  }
}

/** The wide FFN's bias is the sum of its members' biases; it needs a place, which any biased member offers. */
function mergeDownBias(group: readonly Member[], set: (slot: Slot, name: string, weight: Weight) => void): void {
  const biases = group.flatMap(({ ffn }) => ffn.downBias ?? []);
  const own = group[0]?.ffn.downBias;
  if (own && biases.length > 1)
    set(own, 'down.bias', add(biases.map((slot) => reshape(slot.weight, own.weight.dims) ?? slot.weight)));
}

function roleName(ffn: Ffn, index: number): string {
  if (ffn.linears.length === 1) return 'up';
  if (ffn.linears.length === 2) return index === 0 ? 'gate' : 'up';
  return `input_${index}`;
}

/** The values between the projections are wider now; sizes stated in the file must not lie. */
function widen(ffn: Ffn, width: number): void {
  for (const value of ffn.hiddenValues) {
    if (value.type?.kind !== 'tensor' || !value.type.shape) continue;
    const shape = [...value.type.shape];
    if (shape.at(-1) === ffn.width) value.type = tensorType(value.type.dtype, [...shape.slice(0, -1), width]);
  }
}

/** Little-endian 1.0 of each floating-point type. */
const ONE: Partial<Record<DataType, readonly number[]>> = {
  float: [0, 0, 0x80, 0x3f],
  float16: [0, 0x3c],
  bfloat16: [0x80, 0x3f],
  double: [0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
};

function onesLike(weight: Weight): Weight {
  const one = ONE[weight.dtype];
  if (!one) throw new TypeError(`no ones of type ${weight.dtype}`);
  const bytes = new Uint8Array(weight.byteLength);
  for (let i = 0; i < bytes.length; i++) bytes[i] = one[i % one.length] as number;
  return inlineWeight(bytes, weight.dtype, weight.dims);
}
