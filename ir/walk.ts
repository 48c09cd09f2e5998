/** Ways through a model. */
import type { Graph, Model, Node, Tensor } from './core.js';

/** The position of every node in its graph's list; subgraphs have positions of their own. */
export function topologicalIndex(graph: Graph): Map<Node, number> {
  const index = new Map<Node, number>();
  for (const node of graph.nodes()) index.set(node, index.size);
  return index;
}

/** `graph`, then the graphs inside its nodes, outer before inner, in node order. */
export function* nestedGraphs(graph: Graph): Generator<Graph> {
  yield graph;
  for (const node of graph.nodes()) for (const subgraph of node.subgraphs) yield* nestedGraphs(subgraph);
}

/** The node of `graph` that `node` is, or that `node` is inside; `node` itself where it is outside of `graph`. */
export function nodeOf(graph: Graph, node: Node): Node {
  for (let at: Node | null = node; at; at = at.graph.parentNode) if (at.graph === graph) return at;
  return node;
}

/** Every graph of a model: the main graph, its nested graphs, then function bodies with theirs. */
export function* allGraphs(model: Model): Generator<Graph> {
  yield* nestedGraphs(model.graph);
  for (const item of model.functions) yield* nestedGraphs(item.body);
}

/** Tensors in the attributes of a node (Constant, for one), not those in its subgraphs. */
export function* attributeTensors(node: Node): Generator<Tensor> {
  for (const attribute of node.attributes.values()) {
    if (attribute.kind === 'tensor') yield attribute.value;
    else if (attribute.kind === 'tensors') yield* attribute.value;
  }
}

/** Every initializer of every graph, in file order. */
export function* allInitializers(model: Model): Generator<Tensor> {
  for (const graph of allGraphs(model)) {
    for (const { initializer } of graph.initializers) if (initializer) yield initializer;
  }
}

/** Every initializer and every tensor in an attribute. */
export function* allTensors(model: Model): Generator<Tensor> {
  yield* allInitializers(model);
  for (const graph of allGraphs(model)) for (const node of graph.nodes()) yield* attributeTensors(node);
}
