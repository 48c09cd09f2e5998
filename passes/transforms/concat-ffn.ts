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
 * Where that would not be exact (block-quantised weights; requantize-ffn is for those) or the norm has another reader,
 * gate and up stay per member, each on its own norm; their outputs are concatenated, and activation and down projection
 * are merged all the same. Per-channel constants concatenate, down biases add. Results differ by rounding only: the order
 * of the sum changes, and folded weights are rounded once.
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
import type { Node, Use, Value } from '../../ir/core.js';
import { tensorType, withWidth } from '../../ir/type.js';
import { type Ffn, keyDifference } from '../analysis/layers/ffn.js';
import type { Layer } from '../analysis/layers/layer.js';
import { isPresent, isSumUpTo, type Point, type Stage } from '../analysis/layers/residual-stream.js';
import { ffnInputName, fusedName } from '../analysis/layers/weight-names.js';
import type { Linear } from '../analysis/matrices/linear.js';
import type { Matrix } from '../analysis/matrices/stored-matrices.js';
import { type Member, type Merged, merge, mergeableGroups } from '../analysis/plans/ffn-merge.js';
import { type FusedRun, widthsText } from '../analysis/plans/fused-run.js';
import { normsText } from '../analysis/plans/norm-plan.js';
import { Refusal } from '../analysis/refusal.js';
import { factsAs, layersText } from '../framework/facts.js';
import { definePass } from '../framework/pass.js';
import { clearFolded } from '../rewrite/fold-norm.js';
import type { Rewriter } from '../rewrite/rewriter.js';

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
  facts: factsAs<FusedRun>({
    describe: (runs) =>
      runs.length === 0
        ? ['no FFNs were fused']
        : runs.map(
            ({ layers, widths, fusedWidth }) =>
              `the FFNs of ${layersText(layers)} became one: ${widthsText(widths)} -> ${fusedWidth}`,
          ),
    settles: ({ layers }) => layers,
  }),
  run({ rewriter, blocks, passed, missed, count, fact }) {
    // FFNs that were refused are not tried again. One analysis serves all groups whose sum is still as it says.
    const refused = new Set<Node>();
    const find = (): Member[][] => mergeableGroups(blocks().layers, refused);
    for (let groups = find(); groups.length > 0; groups = find()) {
      const { position } = blocks().stream;
      for (const group of groups) {
        if (!isPresent((group[0] as Member).branch.stage.end)) continue;
        const labels = group.map(({ layer }) => layer.label);
        const merged = merge(group);
        if (merged instanceof Refusal) {
          for (const { ffn } of group) refused.add(ffn.down.node);
          missed(`the FFNs of layers ${labels.join(', ')} stay parallel: ${merged.message}`, labels[0]);
          continue;
        }
        fuse(group, merged, position, rewriter);
        const widths = group.map(({ ffn }) => ffn.width);
        fact({ layers: labels, widths, fusedWidth: merged.width });
        const text = `${labels.length} FFNs of layers ${labels.join(', ')} (widths ${widths.join('+')})`;
        passed(`${text} became one of ${merged.width}${normsText(merged, 'gate and up')}`, labels[0]);
        count('runs');
        count('members', labels.length);
        if (merged.norms !== 'shared') count(merged.norms);
      }
    }
    for (const [label, reason] of leftParallel(blocks().layers, refused)) missed(reason, label);
  },
});

/** FFNs that still share a sum with others because they compute something else. */
function* leftParallel(layers: readonly Layer[], refused: ReadonlySet<Node>): Generator<[string, string]> {
  const firsts = new Map<Stage, { label: string; ffn: Ffn }>();
  for (const { ffn, label } of layers) {
    const first = ffn && firsts.get(ffn.stage);
    if (ffn && !first) firsts.set(ffn.stage, { label, ffn: ffn.ffn });
    if (!ffn || !first || refused.has(ffn.ffn.down.node)) continue;
    const difference = keyDifference(first.ffn, ffn.ffn);
    if (difference) yield [label, `its FFN stays parallel to that of layer ${first.label}: ${difference}`];
  }
}

function fuse(
  group: readonly Member[],
  merged: Merged,
  position: ReadonlyMap<Point, number>,
  rewriter: Rewriter,
): void {
  const frame = group[0] as Member;
  const { ffn } = frame;
  const prefix = fusedName(
    group.map(({ layer }) => layer.label),
    'ffn',
  );
  const name = (part: string): string => `${prefix}.${part}`;

  const joined = ffn.linears.map((linear, i) => {
    const role = name(ffnInputName(ffn.linears.length, i));
    const matrices = merged.inputs[i] as readonly Matrix[];
    const bias = merged.inputBiases[i] ?? null;
    if (merged.norms !== 'own') return rewriter.installLinear(linear, matrices[0] as Matrix, bias, role);
    // Gate and up of their own: only what is padded changes; the outputs are put side by side. Who reads the first
    // member's is noted before: half of a packed projection that is padded becomes a product of its own.
    const readers = linear.output.uses.filter((use) => use.node.op !== 'Shape');
    const outputs = group.map(({ ffn: own }, m) => {
      const mine = own.linears[i] as Linear;
      const matrix = matrices[m] as Matrix;
      if (matrix === mine.matrix) return mine.output;
      const output = rewriter.installLinear(mine, matrix, null, `${role}.${m}`);
      output.type = withWidth(output.type, matrix.outWidth);
      return output;
    });
    return sideBySide(rewriter, readers, outputs, merged.width, role);
  });
  let areScalars = true;
  for (const [k, { slot, scalar }] of ffn.constants.entries()) {
    const weight = merged.constants[k];
    if (!weight) continue;
    areScalars &&= scalar === null;
    rewriter.replaceOperand(slot.node, slot.index, rewriter.addWeight(name(`vector_${k}`), weight));
  }
  // What stays per member is as wide as it was.
  const own = new Set(merged.norms === 'own' ? ffn.linears.map(({ output }) => output) : []);
  const inner = ffn.hiddenValues.filter((value) => !own.has(value));
  widen([...inner, ...joined], ffn.width, merged.width, areScalars);
  installDown(rewriter, ffn, merged, name);
  clearFolded(ffn, merged, rewriter, name);
  const { start, end } = frame.branch.stage;
  const isSum = isSumUpTo(end, start, position);
  for (const { branch } of group.slice(1)) {
    rewriter.dropTerm(branch.output, isSum);
    rewriter.eraseProducer(branch.output);
  }
}

/** Concatenates the members' outputs along the channels; the readers read the result. */
function sideBySide(
  rewriter: Rewriter,
  readers: readonly Use[],
  outputs: readonly Value[],
  width: number,
  name: string,
): Value {
  const anchor = rewriter.earliest(readers.map((use) => use.node));
  for (const output of outputs) rewriter.hoist(output, anchor);
  const [first] = outputs as [Value];
  const made = first.graph.addNode(
    {
      opType: 'Concat',
      name,
      inputs: outputs,
      outputs: [{ name, type: withWidth(first.type, width) }],
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
    rewriter.replaceOperand(downBias.node, downBias.index, rewriter.addWeight(name('down.bias'), merged.downBias));
  }
}

/**
 * The values between the projections are wider now; sizes stated in the file must not lie. Where a number for all channels
 * became one for each, values that are computed from constants alone have more elements than one.
 */
function widen(values: readonly Value[], from: number, to: number, keepsScalars: boolean): void {
  for (const value of values) {
    const { type, shape } = value;
    if (type?.kind !== 'tensor' || !shape) continue;
    if (shape.at(-1) === from) value.type = tensorType(type.dtype, [...shape.slice(0, -1), to]);
    else if (!keepsScalars && shape.every((dim) => dim === 1)) value.type = tensorType(type.dtype, null);
  }
}
