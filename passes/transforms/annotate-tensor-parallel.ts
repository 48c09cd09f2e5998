/**
 * Says in the model's own words how shard-tensor-parallel would cut it, and cuts nothing: the sharding annotations of ONNX
 * IR 11 (onnx.proto3, NodeDeviceConfigurationProto) on every projection, for a runtime that shards by itself.
 *
 *     q, k, v, gate, up   weight and result sharded along the columns      o, down   input and weight along the rows
 *
 * What it will not find: packed projections (a shard of [q|k|v] is no range of it), weights stored in blocks, and whatever
 * shard-tensor-parallel leaves replicated.
 */

import type { Node, Value } from '../../ir/core.js';
import {
  annotateNode,
  annotationsOf,
  declareDeviceConfiguration,
  type ShardingSpec,
} from '../../ir/proto/device-configuration.js';
import { counted } from '../../ir/visible.js';
import { type CutBranch, cutBranch } from '../analysis/heads/cut/branch.js';
import type { Cut } from '../analysis/heads/spread.js';
import { branchesOf, slotOf } from '../analysis/layers/layer.js';
import type { Linear } from '../analysis/matrices/linear.js';
import { standardOpset } from '../analysis/opset.js';
import { attempt, describe, Refusal } from '../analysis/refusal.js';
import { integerOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';

/** Name of the group of devices. */
const GROUP = 'tensor-parallel';

export const annotateTensorParallel = definePass({
  id: 'annotate-tensor-parallel',
  summary: 'say in ONNX IR 11 annotations how projections may be cut over ranks; nothing is cut',
  effect: 'exact',
  options: { ranks: integerOption('how many ranks there are', 2, 2) },
  statistics: { projections: 'projections annotated' },
  run({ model, graph, options, blocks, passed, missed, count }) {
    const { ranks } = options;
    const { stream, layers, reason } = blocks();
    if (reason !== null || stream.graph !== graph) {
      missed(`nothing is annotated: ${reason ?? 'the decoder lies inside an If'}`);
      return;
    }
    if ([...graph.nodes()].some((node) => annotationsOf(node).some(({ name }) => name === GROUP))) {
      missed('the model has annotations already');
      return;
    }
    const opset = standardOpset(model);
    const annotated = new Set<Node>();
    for (const layer of layers) {
      for (const branch of branchesOf(layer)) {
        const what = slotOf(branch) === 'attention' ? 'attention' : 'FFN';
        const specs = attempt(() =>
          specsOf(cutBranch(branch, layer.label, stream, opset, { ranks, pads: false }), ranks),
        );
        if (specs instanceof Refusal) {
          missed(`its ${what} has no annotations: ${specs.message}`, layer.label);
          continue;
        }
        for (const [{ node }, own] of specs) {
          // Layers may share what they compute.
          if (annotated.has(node)) continue;
          annotated.add(node);
          annotateNode(node, GROUP, own);
        }
        passed(`its ${what} has annotations on ${counted(specs.size, 'projection')}`, layer.label);
      }
    }
    count('projections', annotated.size);
    if (annotated.size > 0)
      declareDeviceConfiguration(
        model,
        GROUP,
        Array.from({ length: ranks }, (_, rank) => `rank ${rank}`),
      );
  },
});

/** What is sharded at each projection. Throws Refusal where one cannot be said. */
function specsOf({ region, last, input }: CutBranch, ranks: number): Map<Linear, ShardingSpec[]> {
  const specs = new Map<Linear, ShardingSpec[]>();
  const sharded = (tensor: Value | null, axis: number, cut: Cut): ShardingSpec => {
    if (!tensor) throw new Refusal('one of its projections has no weight');
    const each = ranks / cut.pieces;
    const devices = Array.from({ length: cut.pieces }, (_, i) => Array.from({ length: each }, (_, d) => i * each + d));
    return { tensor: tensor.name, axis, shards: cut.pieces, devices };
  };
  const oneCut = (linear: Linear, cuts: readonly Cut[] | undefined): Cut => {
    const [cut, other] = cuts ?? [];
    if (!cut || other || !linear.isPlain) throw new Refusal(`${describe(linear.node)} is packed or flattened`);
    if (!linear.matrix.dense) throw new Refusal(`the weight of ${describe(linear.node)} is stored in blocks`);
    return cut;
  };
  const axisOf = ({ node }: Linear, axis: 0 | 1): number => (node.intAttribute('transB') === 1 ? 1 - axis : axis);
  for (const { linears, cuts } of region.linears) {
    const [linear] = linears as [Linear];
    const cut = oneCut(linear, cuts);
    const bias = linear.bias ? [sharded(linear.node.input(linear.bias.index), -1, cut)] : [];
    const { node } = linear;
    specs.set(linear, [sharded(node.input(1), axisOf(linear, 1), cut), ...bias, sharded(node.output(0), -1, cut)]);
  }
  const cut = oneCut(last, input.cuts);
  specs.set(last, [sharded(last.node.input(0), -1, cut), sharded(last.node.input(1), axisOf(last, 0), cut)]);
  return specs;
}
