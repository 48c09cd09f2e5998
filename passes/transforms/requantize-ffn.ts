/**
 * Lets block-quantised FFNs that read one input take up their norms: gamma is multiplied into gate and up, which are then
 * rounded to the same bits in the same blocks again.
 *
 *     Wg = quantise(diag(gamma) dequantise(Wg))     Wu likewise     gamma = 1
 *
 * All norms of such a group are equal afterwards, so that concat-ffn makes one gate and one up of theirs as well. Blocks
 * cannot hold the products exactly: this changes the function, by about as much as quantising did in the first place,
 * and runs only when it is asked for. Without it concat-ffn keeps norm, gate and up of each.
 *
 * Left alone: FFNs whose norms are equal or that fold exactly, norms that something else reads, LayerNorms with a shift,
 * DequantizeLinear weights.
 */
import type { Weight } from '../../ir/weight.js';
import { ffnInputName, layerName } from '../analysis/layers/weight-names.js';
import type { Matrix } from '../analysis/matrices/stored-matrices.js';
import { filled, vectorOf } from '../analysis/matrices/vectors.js';
import { type Member, merge, mergeableGroups } from '../analysis/plans/ffn-merge.js';
import { gammaOf, hasOutsideReader } from '../analysis/plans/norm-plan.js';
import { Refusal } from '../analysis/refusal.js';
import { factsAs } from '../framework/facts.js';
import { definePass } from '../framework/pass.js';
import type { Rewriter } from '../rewrite/rewriter.js';

/** FFNs on one input that took up their norms, by the labels of their layers. */
export interface Requantized {
  readonly layers: readonly string[];
}

export const requantizeFfn = definePass({
  id: 'requantize-ffn',
  scope: 'decoder',
  summary: 'fold unequal norms into block-quantised gate and up, rounding them to the same bits again',
  effect: 'changes-function',
  isAuxiliary: true,
  options: {},
  statistics: { members: 'FFNs that took up their norms' },
  facts: factsAs<Requantized>({
    describe: (groups) =>
      groups.map(
        ({ layers }) =>
          `gate and up of layers ${layers.join(', ')} took up their norms and were QUANTISED AGAIN: their numbers have` +
          ' changed beyond rounding',
      ),
  }),
  run({ rewriter, blocks, passed, missed, count, fact }) {
    for (const group of mergeableGroups(blocks().layers, new Set())) {
      const merged = merge(group);
      const hasBlocks = group.some(({ ffn }) => ffn.linears.some(({ matrix }) => matrix.kind !== 'dense'));
      if (merged instanceof Refusal || merged.norms !== 'own' || !hasBlocks) continue;
      const labels = group.map(({ layer }) => layer.label);
      const plans = group.map(planOf);
      const refusal = plans.find((plan) => plan instanceof Refusal);
      if (refusal instanceof Refusal) {
        missed(
          `the FFNs of layers ${labels.join(', ')} keep their own norm, gate and up: ${refusal.message}`,
          labels[0],
        );
        continue;
      }
      for (const [m, member] of group.entries()) install(member, plans[m] as readonly Matrix[], rewriter);
      fact({ layers: labels });
      passed(`gate and up of layers ${labels.join(', ')} took up their norms and were quantised again`, labels[0]);
      count('members', labels.length);
    }
  },
});

/** The input matrices with the norm in them, or why there are none. */
function planOf({ ffn }: Member): readonly Matrix[] | Refusal {
  const gamma = gammaOf(ffn.norm, ffn.hidden);
  if (!gamma || ffn.norm.beta) return new Refusal('a shift cannot be folded into blocks of bits');
  if (ffn.readings.some(({ factor }) => factor))
    return new Refusal('a factor stands between a norm and its projections');
  if (hasOutsideReader(ffn)) return new Refusal('something else reads one of the norms');
  const matrices = ffn.linears.map(({ matrix }) => matrix.scaleRows(gamma) ?? matrix.requantizeRows(gamma));
  if (matrices.some((matrix) => matrix === null)) {
    return new Refusal('weights of DequantizeLinear are not quantised again');
  }
  return matrices as readonly Matrix[];
}

function install({ ffn, layer }: Member, matrices: readonly Matrix[], rewriter: Rewriter): void {
  for (const [i, linear] of ffn.linears.entries()) {
    const name = `${layerName(layer.label, 'ffn')}.${ffnInputName(ffn.linears.length, i)}`;
    const matrix = matrices[i] as Matrix;
    // A bias is added after the product and stays as it is.
    if (linear.isPlain) matrix.install(linear.node, rewriter, `${name}.weight`);
    else {
      const bias: Weight | null = linear.bias && vectorOf(linear.bias.weight, linear.outWidth);
      rewriter.installLinear(linear, matrix, bias, name);
    }
  }
  const slot = ffn.norm.gamma;
  if (!slot) return;
  const ones = rewriter.addWeight(`${layerName(layer.label, 'ffn')}.norm.weight`, filled(slot.weight, 1));
  rewriter.replaceOperand(slot.node, slot.index, ones);
}
