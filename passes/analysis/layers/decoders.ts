/**
 * The graphs that hold a decoder. Usually the main graph; in merged decoders (optimum) both branches of an If, one
 * without and one with a KV cache, over the same weights.
 */
import type { Graph, Node } from '../../../ir/core.js';
import { findBlocks } from './blocks.js';
import { findResidualStream } from './find-stream.js';
import type { Blocks } from './layer.js';

/** The graphs of a model that hold a decoder. */
export interface Decoders {
  /** The one that reads caches comes first. */
  readonly graphs: readonly Graph[];
  /** The If whose branches the graphs are; null when the decoder is the main graph. */
  readonly choice: Node | null;
}

/** Finds the decoder graphs of a model's main graph. */
export function findDecoders(graph: Graph): Decoders {
  const main: Decoders = { graphs: [graph], choice: null };
  const choice = [...graph.nodes()].find((node) => node.op === 'If');
  if (!choice || hasStages(graph)) return main;
  const graphs = choice.subgraphs.filter(hasStages);
  if (graphs.length === 0 || graphs.length !== choice.subgraphs.length) return main;
  // A file may say that it gives another number of results than its branches do.
  if (graphs.some(({ outputs }) => outputs.length !== choice.outputs.length)) return main;
  return { graphs: [...graphs].sort((a, b) => cacheReads(b) - cacheReads(a)), choice };
}

/** The layers of a model: those of its decoder, or of the branch with caches of a merged one. */
export function findLayers(graph: Graph): Blocks {
  return findBlocks(findDecoders(graph).graphs[0] as Graph);
}

function hasStages(graph: Graph): boolean {
  return findResidualStream(graph).stages.some((stage) => stage.isResidual);
}

/** How many inputs of the main graph of rank 4 or more a branch reads. */
function cacheReads(graph: Graph): number {
  const read = new Set<string>();
  for (const node of graph.nodes()) {
    for (const value of node.inputs) {
      const shape = value?.isInput ? value.shape : null;
      if (value && shape && shape.length >= 4) read.add(value.name);
    }
  }
  return read.size;
}
