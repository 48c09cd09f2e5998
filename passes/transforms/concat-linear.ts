/**
 * Linears that read one input become one matrix:
 *
 *     sum_j n_j(r) W_j + b_j     becomes     n(r) M + b,   M = sum_j diag(gamma_j) W_j,   b = sum_j b_j + W_j^T beta_j
 *
 * Of low rank, W_j = A_j B_j, they are joined along the rank instead: M = [diag(gamma_0) A_0, ...] [B_0; ...].
 *
 * In a run, where linears stand in the places of attentions (linearize), that is one product beside gate and up on the norm
 * that concat-ffn folded, however many attentions went. One linear beside an FFN whose norm was folded reads that norm, too,
 * and its own goes. Results differ by rounding only.
 *
 * What it will not find: linears on different sums (parallelize-ffn puts them on one), whole ones beside ones of low rank,
 * quantised matrices, results that something is done to before the sum.
 */
import type { Node, Value } from '../../ir/core.js';
import type { Weight } from '../../ir/weight.js';
import type { Layer } from '../analysis/layers/layer.js';
import { isPresent, type ResidualStream, type Stage } from '../analysis/layers/residual-stream.js';
import { fusedLabel, fusedName, layerName } from '../analysis/layers/weight-names.js';
import {
  type LinearGroup,
  linearGroups,
  type MergedLinear,
  mergeLinears,
  traitsOf,
} from '../analysis/plans/linear-merge.js';
import { normsText } from '../analysis/plans/norm-plan.js';
import { Refusal } from '../analysis/refusal.js';
import { factsAs, layersText } from '../framework/facts.js';
import { definePass, type PassContext } from '../framework/pass.js';
import { takeOut } from '../removal/branch.js';
import { clearFolded } from '../rewrite/fold-norm.js';

/** Linears that are one product now, or one that reads the norm of the FFN beside it. */
export interface JoinedLinears {
  /** Labels of their layers. */
  readonly layers: readonly string[];
}

export const concatLinear = definePass({
  id: 'concat-linear',
  scope: 'decoder',
  summary: 'add up linears that read one input, on the norm of the FFN beside them where that is folded',
  effect: 'reassociates',
  options: {},
  statistics: { made: 'products made', members: 'linears they replace' },
  facts: factsAs<JoinedLinears>({
    describe: (made) =>
      made.map(({ layers }) =>
        layers.length > 1
          ? `the linears of ${layersText(layers)} became one`
          : `the linear of ${layersText(layers)} reads the norm of the FFN beside it`,
      ),
  }),
  run(context) {
    const { blocks, passed, missed, count, fact } = context;
    const refused = new Set<Node>();
    const find = () =>
      linearGroups(blocks().layers, refused).flatMap((group) => {
        const merged = mergeLinears(group);
        return merged ? [{ group, merged }] : [];
      });
    for (let found = find(); found.length > 0; found = find()) {
      const { stream } = blocks();
      for (const { group, merged } of found) {
        const { stage, members } = group;
        if (!isPresent(stage.end) || !isPresent(stage.start)) continue;
        const labels = members.map(({ layer }) => layer.label);
        if (merged instanceof Refusal) {
          for (const { branch } of members) refused.add(branch.linear.node);
          missed(`the linears of layers ${labels.join(', ')} stay parallel: ${merged.message}`, labels[0]);
          continue;
        }
        join(group, merged, stream, context);
        fact({ layers: labels });
        count('made');
        count('members', labels.length);
        const what =
          labels.length > 1 ? `${labels.length} linears of layers ${labels.join(', ')} became one` : 'its linear';
        const where = merged.isShared
          ? `${labels.length > 1 ? ', which' : ''} reads the norm of the FFN beside it`
          : '';
        passed(`${what}${where}${normsText(merged.plan, 'its matrix')}`, labels[0]);
      }
    }
    for (const [label, reason] of leftParallel(blocks().layers, refused)) missed(reason, label);
  },
});

/** Linears that still share a sum with others because their norms differ by more than weights. */
function* leftParallel(layers: readonly Layer[], refused: ReadonlySet<Node>): Generator<[string, string]> {
  const firsts = new Map<Stage, LinearGroup>();
  for (const group of linearGroups(layers, refused)) {
    const first = firsts.get(group.stage);
    if (!first) firsts.set(group.stage, group);
    const [other, own] = [first?.members[0], group.members[0]];
    if (!other || !own) continue;
    const difference = `${traitsOf(own.branch)} instead of ${traitsOf(other.branch)}`;
    yield [own.layer.label, `its linear stays parallel to that of layer ${other.layer.label}: ${difference}`];
  }
}

function join(
  group: LinearGroup,
  { input, matrices, bias, plan, isShared }: MergedLinear,
  stream: ResidualStream,
  { rewriter, belongs }: Pick<PassContext<object>, 'rewriter' | 'belongs'>,
): void {
  const { stage, members } = group;
  const name = nameOf(group);
  const [{ layer, branch: first }] = members as readonly [LinearGroup['members'][number]];
  const owner = group.ffns[0]?.layer ?? layer;
  const make = (sum: Node): Value => {
    const node = (opType: string, operands: readonly Value[], part = opType): Value => {
      const type = part === 'left' ? null : first.output.type;
      const outputs = [{ name: `${name}.${part.toLowerCase()}`, type }];
      const made = sum.graph.addNode({ opType, name: `${name}/${part}`, inputs: operands, outputs }, { before: sum });
      belongs(made, owner.index);
      return made.output(0) as Value;
    };
    const weight = (part: string, values: Weight): Value => rewriter.addWeight(`${name}.${part}.weight`, values);
    const [left, right] = matrices;
    const product = right
      ? node('MatMul', [node('MatMul', [input, weight('left', left)], 'left'), weight('right', right)], 'right')
      : node('MatMul', [input, rewriter.addWeight(`${name}.weight`, left)]);
    return bias ? node('Add', [product, rewriter.addWeight(`${name}.bias`, bias)]) : product;
  };
  for (const [i, { branch }] of members.entries()) {
    const standIn = i === 0 ? ({ kind: 'term', make } as const) : null;
    takeOut({ stage, output: branch.output, nodes: [] }, stream, standIn, rewriter);
  }
  const { norm, linear, reading } = first;
  if (!isShared)
    clearFolded({ norm, linears: [linear], readings: [reading] }, plan, rewriter, (part) => `${name}.${part}`);
}

/** Named after the layers of the FFN beside it, so that a reader finds both in one layer. */
function nameOf({ members, ffns }: LinearGroup): string {
  const weights = ffns.flatMap(({ branch }) => branch.ffn.down.node.inputs.map((value) => value?.name ?? ''));
  const label = weights.map(fusedLabel).find((found) => found !== null);
  const labels = [...ffns, ...members].map(({ layer }) => layer).sort((a, b) => a.index - b.index);
  const [from, to] = [labels[0]?.label as string, labels.at(-1)?.label as string];
  const isOne = !label && from === to;
  return `${isOne ? layerName(from, 'attention') : fusedName(label ? [label] : [from, to], 'attention')}.linear`;
}
