/** Clears what was folded into the projections of a branch: a norm's scale and shift, and factors behind it. */

import { filled } from '../analysis/matrices/vectors.js';
import type { NormPlan, NormReader } from '../analysis/plans/norm-plan.js';
import type { Rewriter } from './rewriter.js';

/** `name` names the new constants of the norm. */
export function clearFolded(
  { norm, linears, readings }: NormReader,
  plan: NormPlan,
  rewriter: Rewriter,
  name: (part: string) => string,
): void {
  if (plan.foldsFactors) {
    for (const [i, { factor, reads }] of readings.entries()) {
      const at = linears[i]?.reads;
      const plain = reads.node.input(reads.index);
      if (factor && at && plain && !at.node.isRemoved) rewriter.replaceOperand(at.node, at.index, plain);
    }
  }
  if (plan.norms !== 'folded') return;
  for (const [slot, value, part] of [
    [norm.gamma, 1, 'norm.weight'],
    [norm.beta, 0, 'norm.bias'],
  ] as const) {
    if (!slot) continue;
    rewriter.replaceOperand(slot.node, slot.index, rewriter.addWeight(name(part), filled(slot.weight, value)));
  }
}
