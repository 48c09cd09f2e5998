/**
 * Attentions that read the same input become one with the heads of all (method.md, 1.7; arXiv 2503.18908 leaves this out):
 *
 *     sum_i attention_i(n_i(r)) = attention(n(r)),   heads of q, k and v side by side, the output projection along its input
 *
 * A head never looks at another head, so the result is the same up to rounding: only the sum over members moves into the
 * output projection, and folded weights are rounded once. For members with weights [in, out]:
 *
 *     Wq = [diag(gamma_1) Wq_1 | diag(gamma_2) Wq_2 | ...]   Wk, Wv likewise   Wo = [Wo_1; Wo_2; ...]   gamma = 1
 *
 * A packed projection keeps its order: [q_1 q_2 .. | k_1 k_2 .. | v_1 v_2 ..]. Query heads keep their key-value heads,
 * because all groups are of one size. Norms are treated as concat-ffn does: folded, or, where that would not be exact,
 * left to each member, and only the projections' results are put side by side.
 *
 * Caches: one input and one output hold the heads of all members one after another along the heads axis, under the names
 * of the first member: past_key_values.38.key of [batch, 8, past, 128] becomes [batch, 32, past, 128] for four members,
 * and those of 39 to 41 go. `caches=separate` keeps the interface instead, and joins and splits at its border, which
 * copies all caches in each step.
 *
 * How the members' graphs are read, whatever operators they are made of: analysis/head-region.ts. The frame is the first
 * member; it gets the weights, counts, shapes and constants of all, and the others are taken out of the sum.
 *
 * What it will not find: heads of different sizes or groups, other masks, scales or positions per layer, norms across
 * all heads (OLMo 2), weights inside the attention operator (com.microsoft.Attention), quantised caches.
 */

import type { Node } from '../../../ir/core.js';
import { matchAttentions } from '../../analysis/heads/merge/match.js';
import { mergeAttentions } from '../../analysis/heads/merge/weights.js';
import type { AttentionMember } from '../../analysis/heads/region.js';
import type { AttentionBranch, Layer } from '../../analysis/layers/layer.js';
import type { ResidualStream } from '../../analysis/layers/residual-stream.js';
import { standardOpset } from '../../analysis/opset.js';
import { normsText } from '../../analysis/plans/norm-plan.js';
import { attempt, Refusal } from '../../analysis/refusal.js';
import { factsAs } from '../../framework/facts.js';
import { choiceOption } from '../../framework/options.js';
import { definePass } from '../../framework/pass.js';
import { type AttentionPlan, fuseAttentions, type MergedAttention } from './fuse.js';

export type { MergedAttention } from './fuse.js';

interface Candidate extends AttentionMember {
  /** Number in the original model. */
  readonly index: number;
}

export const concatAttention = definePass({
  id: 'concat-attention',
  summary: 'put the heads of attentions that read one input into one attention',
  effect: 'reassociates',
  scope: 'decoder',
  options: {
    caches: choiceOption('KV caches of the members: one for all, or each its own', ['merged', 'separate'], 'merged'),
  },
  statistics: {
    runs: 'attentions made',
    members: 'attentions they replace',
    folded: 'runs whose norms were folded into their weights',
    own: 'runs whose members keep norm and projections of their own',
  },
  facts: factsAs<MergedAttention>({
    describe: (merged) =>
      merged.map(({ layers, heads }) => {
        const total = heads.length > 0 ? ` of ${heads.reduce((sum, count) => sum + count, 0)} heads` : '';
        return `the attentions of layers ${layers.join(', ')} became one${total}`;
      }),
    // Only one branch of a merged decoder reads caches.
    comparable: ({ layers, heads, kvHeads }) => ({ layers, heads, kvHeads }),
  }),
  run({ model, options, rewriter, blocks, passed, missed, count, fact }) {
    const opset = standardOpset(model);
    // Each fusion changes the graph and so the analysis. What was made or refused is not tried again.
    const done = new Set<Node>();
    const settle = (branch: AttentionBranch | null | undefined): void => {
      if (branch?.output.producer) done.add(branch.output.producer);
    };
    const reasons = new Map<number, Refusal>();
    for (;;) {
      const { stream, layers } = blocks();
      const group = nextGroup(layers, done);
      if (!group) return;
      const [first, ...others] = group as [Candidate, ...Candidate[]];
      const { plan, refusals } = planFor(first, others, stream, opset);
      for (const [index, reason] of refusals) if (plan || !reasons.has(index)) reasons.set(index, reason);
      if (!plan) {
        settle(first.branch);
        const reason = reasons.get(first.index) ?? [...refusals.values()][0];
        if (reason) missed(`its attention stays parallel: ${reason.message}`, first.label);
        continue;
      }
      const fused = fuseAttentions(plan, rewriter, stream, { opset, keepsCaches: options.caches === 'separate' });
      settle(blocks().layers.find(({ index, attention }) => attention && index === first.index)?.attention);
      fact(fused);
      const { norms } = plan.merged;
      const heads = fused.heads.length > 0 ? ` (${fused.heads.join('+')} heads)` : '';
      const text = `${fused.layers.length} attentions of layers ${fused.layers.join(', ')}${heads} became one`;
      passed(`${text}${normsText(plan.merged, 'q, k and v')}${cachesText(fused)}`, fused.layers[0]);
      count('runs');
      count('members', fused.layers.length);
      if (norms !== 'shared') count(norms);
    }
  },
});

function cachesText({ caches }: MergedAttention): string {
  return caches.length > 0 ? `; ${caches.map(({ members }) => members[0]).join(', ')} hold the caches of all` : '';
}

/** The next attentions on one sum that has several, without those that are `done`. */
function nextGroup(layers: readonly Layer[], done: ReadonlySet<Node>): Candidate[] | null {
  const isOpen = (branch: AttentionBranch | null): branch is AttentionBranch =>
    branch !== null && !(branch.output.producer && done.has(branch.output.producer));
  const stages = new Set(layers.flatMap(({ attention }) => (isOpen(attention) ? [attention.stage] : [])));
  for (const stage of stages) {
    const members = layers.flatMap(({ attention, label, index }) =>
      isOpen(attention) && attention.stage === stage ? [{ branch: attention, label, index }] : [],
    );
    const isParallel = layers.filter(({ attention }) => attention?.stage === stage).length > 1;
    if (isParallel) return members.sort((a, b) => a.index - b.index);
  }
  return null;
}

/** The first with all others that merge with it, or null; and why the rest does not, by layer number. */
function planFor(
  first: Candidate,
  others: readonly Candidate[],
  stream: ResidualStream,
  opset: number,
): { plan: AttentionPlan | null; refusals: ReadonlyMap<number, Refusal> } {
  const members = [first];
  const refusals = new Map<number, Refusal>();
  for (const other of others) {
    const found = tryPlan([first, other], stream, opset);
    if (found instanceof Refusal) refusals.set(other.index, found);
    else members.push(other);
  }
  const all = members.length > 1 ? tryPlan(members, stream, opset) : null;
  if (all instanceof Refusal) refusals.set(first.index, all);
  return { plan: all instanceof Refusal ? null : all, refusals };
}

function tryPlan(members: readonly AttentionMember[], stream: ResidualStream, opset: number): AttentionPlan | Refusal {
  return attempt(() => {
    const found = matchAttentions(members, stream, opset);
    return { ...found, merged: mergeAttentions(found) };
  });
}
