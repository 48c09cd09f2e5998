/** Layers that must stay as they are for a reason that lies outside them. */
import type { Graph, Value } from '../../../ir/core.js';
import type { Branch } from './layer.js';
import { isNormOperator } from './norm.js';
import { capturesOf, type Point, type ResidualStream, type Stage } from './residual-stream.js';

/** One entry per layer (a group of branches): the reason, or null. */
export function findFixed(stream: ResidualStream, groups: readonly (readonly Branch[])[]): (string | null)[] {
  const normalised = new Set(normalisedStages(stream));
  const live = liveValues(stream.graph, groups);
  return groups.map((branches) => {
    if (branches.some(({ stage }) => normalised.has(stage))) {
      return 'post-norm: the residual stream itself is normalised after each sum, so no two FFNs read one stream';
    }
    if (branches.every(({ output }) => !live.has(output))) {
      return 'no output but caches depends on it (the exporter wired the head to an earlier layer)';
    }
    return null;
  });
}

/** Residual stages after which, and before the next one, the stream is normalised: post-norm networks such as BERT. */
function normalisedStages({ stages, position }: ResidualStream): Stage[] {
  const found: Stage[] = [];
  const points = [...position.keys()];
  const residual = stages.filter((stage) => stage.isResidual);
  for (const [i, next] of residual.slice(1).entries()) {
    const stage = residual[i] as Stage;
    if (next.index === stage.index + 1) continue;
    const from = (position.get(stage.end) as number) + 1;
    const to = position.get(next.start) as number;
    if (points.slice(from, to + 1).some(isNormalising)) found.push(stage, next);
  }
  return found;
}

function isNormalising(point: Point): boolean {
  const node = 'opType' in point ? null : point.producer;
  return node !== null && (isNormOperator(node) || node.opType === 'ReduceMean');
}

/** Everything that an output other than the layers' own caches depends on. */
function liveValues(graph: Graph, groups: readonly (readonly Branch[])[]): Set<Value> {
  const caches = new Set(
    groups.flat().flatMap((branch) => (branch.role === 'attention' ? branch.attention.kvOutputs : [])),
  );
  const live = new Set<Value>();
  const open = graph.outputs.filter((value) => !caches.has(value));
  for (let value = open.pop(); value; value = open.pop()) {
    if (live.has(value)) continue;
    live.add(value);
    const node = value.producer;
    if (!node) continue;
    for (const operand of node.inputs) if (operand) open.push(operand);
    for (const inner of node.subgraphs) open.push(...capturesOf(inner));
  }
  return live;
}
