/** The projection to the vocabulary, cut by columns. */

import type { Graph, Value } from '../../../ir/core.js';
import { tensorType } from '../../../ir/type.js';
import { type Rank, shareOfMatrix, shareOfWeight } from '../../analysis/heads/cut/shares.js';
import type { Portions } from '../../analysis/heads/spread.js';
import { indivisible } from '../../analysis/heads/spread.js';
import { isElementwise } from '../../analysis/layers/elementwise.js';
import { branchesOf, type Layer } from '../../analysis/layers/layer.js';
import type { ResidualStream } from '../../analysis/layers/residual-stream.js';
import { SHARD_PREFIX } from '../../analysis/layers/weight-names.js';
import { type Linear, matchLinear } from '../../analysis/matrices/linear.js';
import { vectorOf } from '../../analysis/matrices/vectors.js';
import { Refusal } from '../../analysis/refusal.js';
import { constantOf } from '../../analysis/values/constants.js';
import type { Rewriter } from '../../rewrite/rewriter.js';
import type { CollectiveWriter } from './collectives.js';

/** The projection that makes the logits. Throws Refusal where there is none that can be cut. */
export function vocabularyProjection(graph: Graph, layers: readonly Layer[]): Linear {
  const branches = layers.flatMap(branchesOf);
  const caches = new Set(branches.flatMap((branch) => (branch.role === 'attention' ? branch.attention.kvOutputs : [])));
  for (const output of graph.outputs) {
    if (caches.has(output)) continue;
    let at: Value | undefined = output;
    while (at?.producer) {
      const { producer }: Value = at;
      const linear = matchLinear(at);
      if (linear && branches.some(({ nodes }) => nodes.has(producer))) throw new Refusal('it was not found');
      if (linear) return linear;
      const inputs = producer.inputs.filter((value) => value !== null && constantOf(value) === null) as Value[];
      // A soft cap, a factor or a cast may follow.
      at = isElementwise(producer) && inputs.length === 1 ? inputs[0] : undefined;
    }
  }
  throw new Refusal('no output is the result of a projection');
}

/** Cuts the projection to the vocabulary by columns and gathers the logits. Throws Refusal before anything is changed. */
export function cutVocabulary(
  linear: Linear,
  rank: Rank,
  { types }: ResidualStream,
  writer: CollectiveWriter,
  rewriter: Rewriter,
): void {
  const { outWidth, output } = linear;
  const size = outWidth / rank.ranks;
  if (!Number.isInteger(size)) throw indivisible(outWidth, 'token', rank.ranks);
  const portions: Portions = { parts: [[outWidth]], cuts: [{ size, pieces: rank.ranks }] };
  const dtype = types.get(output) ?? linear.matrix.dtype;
  const matrix = shareOfMatrix(linear.matrix, 'out', portions, rank);
  const bias = linear.bias && shareOfWeight(vectorOf(linear.bias.weight, outWidth), 0, portions, rank);
  const share = rewriter.installLinear(linear, matrix, bias, `${SHARD_PREFIX}lm_head`);
  const { shape } = share;
  writer.allGather(share, shape?.length ?? 3, dtype, size, 'lm_head', `${SHARD_PREFIX}lm_head.all_gather`);
  if (shape) share.type = tensorType(dtype, [...shape.slice(0, -1), size]);
}
