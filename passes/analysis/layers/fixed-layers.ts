/** Layers that must stay as they are for a reason that lies outside them. */
import type { Graph, Node, Value } from '../../../ir/core.js';
import { branchNodes, hasMixer } from './attention.js';
import { branchesOf, type Layer } from './layer.js';
import { isNormOperator } from './norm.js';
import { capturesOf, type ResidualStream, type Stage } from './residual-stream.js';

/** One entry per layer: the reason, or null. */
export function findFixed(stream: ResidualStream, layers: readonly Layer[]): (string | null)[] {
  const normalised = new Set(normalisedStages(stream));
  const caches = layers.flatMap(({ attention }) => attention?.attention.kvOutputs ?? []);
  const live = liveValues(stream.graph, new Set(caches));
  return layers.map((layer) => {
    const branches = branchesOf(layer);
    if (branches.some(({ stage }) => normalised.has(stage))) {
      return 'post-norm: the residual stream itself is normalised after each sum, so no two FFNs read one stream';
    }
    if (branches.length > 0 && branches.every(({ output }) => !live.has(output))) {
      return 'no output but caches depends on it (the exporter wired the head to an earlier layer)';
    }
    return null;
  });
}

/** Residual stages after which, and before the next one, the stream is normalised: post-norm networks such as BERT. */
function normalisedStages(stream: ResidualStream): Stage[] {
  const { stages } = stream;
  const found: Stage[] = [];
  const residual = stages.filter((stage) => stage.isResidual);
  for (const [i, next] of residual.slice(1).entries()) {
    const stage = residual[i] as Stage;
    const between = stages.slice(stage.index + 1, next.index).map((each) => branchNodes(stream, each, each.end));
    // A stretch that was not recognised may hold norms of its own.
    if (between.some(hasMixer)) continue;
    if (between.some((nodes) => [...nodes].some(isNormalising))) found.push(stage, next);
  }
  return found;
}

function isNormalising(node: Node): boolean {
  return isNormOperator(node) || node.opType === 'ReduceMean';
}

/** Everything that an output depends on; those in `except` are left out. */
export function liveValues(graph: Graph, except: ReadonlySet<Value> = new Set()): Set<Value> {
  const live = new Set<Value>();
  const open = graph.outputs.filter((value) => !except.has(value));
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
