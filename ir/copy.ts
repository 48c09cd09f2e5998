/** Copies of graphs, to be changed or taken apart without touching the original. Tensors and weights are shared. */
import { type Attribute, Graph, Model, type Node, Tensor, type Value } from './core.js';

/** What a copy replaces. */
export interface CopyOptions {
  /** A graph of this node that takes its place in the copy: the branch of an If. Null, or undefined, copies the node. */
  readonly inPlaceOf?: (node: Node) => Graph | null;
}

/**
 * The same model once more, under the same names: graph, functions, opsets and metadata. What the reader kept beside them
 * for the writer is left out, and so are sparse initializers: a copy is for analyses and for running, not for writing.
 */
export function copyModel(model: Model, options: CopyOptions = {}): Model {
  const graph = copyGraph(model.graph, null, new Map(), options);
  const opsets = model.opsets.map(({ domain, version }) => ({ domain, version }));
  const copy = new Model(model.irVersion, opsets, graph);
  copy.functions.push(...model.functions);
  copy.metadata = model.metadata;
  copy.producerName = model.producerName;
  copy.producerVersion = model.producerVersion;
  return copy;
}

/** `known`: values of the graphs around, and what they are in the copy. */
function copyGraph(from: Graph, parent: Graph | null, known: ReadonlyMap<Value, Value>, options: CopyOptions): Graph {
  const graph = new Graph(parent);
  graph.name = from.name;
  graph.metadata = from.metadata;
  const values = new Map(known);
  copyContent(from, graph, values, options);
  for (const output of from.outputs) graph.addOutput(values.get(output) as Value);
  return graph;
}

/**
 * Everything but the outputs, into `graph`. `isMoved`: it was in a graph of its own, where names of the graph around it may
 * stand for other values; where they do, it gets new ones.
 */
function copyContent(
  from: Graph,
  graph: Graph,
  values: Map<Value, Value>,
  options: CopyOptions,
  isMoved = false,
): void {
  if (options.inPlaceOf && !isMoved) for (const value of from.values) graph.names.claim(value.name);
  for (const input of from.inputs) values.set(input, graph.addInput(input.name, input.type));
  for (const value of from.initializers) {
    const tensor = value.initializer;
    if (!tensor) continue;
    const name = isMoved ? graph.names.fresh(value.name) : value.name;
    values.set(value, graph.addInitializer(name, name === value.name ? tensor : named(tensor, name)));
  }
  for (const value of from.values)
    if (value.isSparse) values.set(value, graph.addSparse(value.name, value.sparseBytes));
  for (const node of from.nodes()) {
    const instead = options.inPlaceOf?.(node) ?? null;
    if (instead) copyBranch(node, instead, graph, values, options);
    else copyNode(node, graph, values, options, !isMoved);
  }
  for (const value of from.valueInfo) {
    const copy = values.get(value);
    if (copy?.graph === graph) graph.valueInfo.add(copy);
  }
}

/** The same tensor under another name: a tensor knows its own, and this one is shared. */
function named({ dtype, dims, weight, storage, strings }: Tensor, name: string): Tensor {
  return new Tensor(name, dtype, dims, weight, storage, strings);
}

/** The nodes of `branch` where `node` stood; its results keep their names. */
function copyBranch(node: Node, branch: Graph, graph: Graph, values: Map<Value, Value>, options: CopyOptions): void {
  copyContent(branch, graph, values, options, true);
  for (const [i, result] of node.outputs.entries()) {
    const source = values.get(branch.outputs[i] as Value);
    if (!result || !source) continue;
    const outputs = [{ name: result.name, type: result.type }];
    const copy = graph.addNode({ opType: 'Identity', inputs: [source], outputs }, { exact: true });
    values.set(result, copy.output(0) as Value);
  }
}

function copyNode(node: Node, graph: Graph, values: Map<Value, Value>, options: CopyOptions, exact: boolean): void {
  const attribute = (each: Attribute): Attribute => {
    if (each.kind === 'graph') return { kind: 'graph', value: copyGraph(each.value, graph, values, options) };
    if (each.kind !== 'graphs') return each;
    return { kind: 'graphs', value: each.value.map((inner) => copyGraph(inner, graph, values, options)) };
  };
  const copy = graph.addNode(
    {
      opType: node.opType,
      domain: node.domain,
      name: node.name,
      inputs: node.inputs.map((value) => value && (values.get(value) as Value)),
      outputs: node.outputs.map((value) => value && { name: value.name, type: value.type }),
      attributes: Object.fromEntries([...node.attributes].map(([name, each]) => [name, attribute(each)])),
    },
    { exact },
  );
  copy.overload = node.overload;
  copy.metadata = node.metadata;
  for (const [i, value] of node.outputs.entries()) if (value) values.set(value, copy.output(i) as Value);
}
