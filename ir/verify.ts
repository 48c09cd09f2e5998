/**
 * The verifier: what holds for every model between two passes, and for every file that onnxruntime loads.
 *
 * Values
 *   V1  a graph knows a value by its name, and the value knows its graph; its name is not empty and is claimed
 *   V2  a value is a graph input, an initializer, a sparse initializer, or a result that its producer lists at its index
 *   V3  every graph input is marked as one, and is listed once
 *   V4  an initializer's tensor has the value's name, and a weight of the tensor's type, shape and size in bytes
 *   V5  the type of an initializer is not declared to be another one; value_info lists only values of its own graph
 *   V6  a result has no name that a value visible around its graph has; siblings may share names
 * Edges
 *   E1  every operand is defined: a value of this graph or of one around it, and the one that its name finds from here
 *   E2  every operand is defined before: by an earlier node, or by one before the node that holds this graph (no cycles)
 *   E3  an operand's value counts exactly this use, and every use is an operand of a node that is still there
 *   E4  graph outputs exist and are found by their names; a value's outputCount is how often graphs list it
 * Nodes
 *   N1  a graph's list of nodes is consistent: both directions, the count, all attached and of this graph
 *   N2  node names are unique in their graph (empty ones aside)
 *   N3  attribute names are not empty; an attribute refers to another one only inside a function
 *   N4  the graphs in a node's attributes have it as their parent node, and its graph as their parent
 *   N5  the domain of every operator is imported, by the model or by the function it stands in; outside of functions
 *       onnxruntime imports its own domains by itself, and exporters rely on that
 * Model
 *   M1  functions are unique by domain, name and overload
 *   M2  ir_version is at least 4 for initializers that are no inputs, 8 for functions, 10 for overloads
 *
 * Not reported, because onnxruntime loads such files: nodes of the same name in different graphs; types, metadata_props
 * and device configurations newer than ir_version; value_info for names that nobody defines.
 */
import type { Graph, LocalFunction, Model, Node, Tensor, Value } from './core.js';
import { byteSize } from './type.js';
import { allGraphs, attributeTensors } from './walk.js';

/** Every violated invariant, one line each with its place; empty when all is well. Linear in the size of the model. */
export function verifyModel(model: Model): string[] {
  return new Verifier(model).run();
}

/**
 * The violations that are of another kind than those in `known`, which the model came with: a copy of a node that was
 * invalid before is invalid under another name.
 */
export function newViolations(model: Model, known: readonly string[]): string[] {
  const kinds = new Set(known.map(kindOf));
  return verifyModel(model).filter((violation) => !kinds.has(kindOf(violation)));
}

/** A violation without the names that it mentions, and of a version that is too low without the reason: another may be left. */
function kindOf(violation: string): string {
  return violation.replace(/'[^']*'/g, "''").replace(/^(M2 .* is \d+),.*/, '$1');
}

/** What onnxruntime adds to the imports of a model. */
const RUNTIME_DOMAINS = [
  '',
  'ai.onnx.ml',
  'ai.onnx.training',
  'ai.onnx.preview.training',
  'com.microsoft',
  'com.microsoft.nchwc',
  'com.microsoft.experimental',
  'com.ms.internal.nhwc',
  'org.pytorch.aten',
];

class Verifier {
  readonly #found: string[] = [];
  /** Position of every node in its graph. */
  readonly #position = new Map<Node, number>();
  readonly #outputCounts = new Map<Value, number>();
  /** The least ir_version, and what asks for it. */
  #irVersion = 1;
  #irReason = '';

  constructor(readonly model: Model) {}

  run(): string[] {
    const { model } = this;
    for (const graph of allGraphs(model)) this.#structure(graph);
    this.#scopes(model.graph, new Set([...RUNTIME_DOMAINS, ...model.opsets.map(({ domain }) => domain)]), null);
    const known = new Set<string>();
    for (const item of model.functions) {
      const place = functionPlace(item);
      const key = JSON.stringify([item.domain, item.name, item.overload]);
      if (known.has(key)) this.#report('M1', place, 'is defined twice');
      known.add(key);
      this.#needs(item.overload === '' ? 8 : 10, place);
      this.#scopes(item.body, new Set(item.opsets.map(({ domain }) => domain)), item);
    }
    for (const graph of allGraphs(model)) this.#outputCounting(graph);
    if (model.irVersion < this.#irVersion) {
      this.#report('M2', 'model', `ir_version is ${model.irVersion}, ${this.#irReason} needs ${this.#irVersion}`);
    }
    return this.#found;
  }

  #report(rule: string, place: string, what: string): void {
    this.#found.push(`${rule} ${place}: ${what}`);
  }

  #needs(version: number, reason: string): void {
    if (version <= this.#irVersion) return;
    this.#irVersion = version;
    this.#irReason = reason;
  }

  /** The list of nodes, positions, and the outputs of every graph, before anything that looks across graphs. */
  #structure(graph: Graph): void {
    const place = graphPlace(graph);
    let previous: Node | null = null;
    let count = 0;
    for (const node of graph.nodes()) {
      if (node.prev !== previous || (previous && !previous.isBefore(node)))
        this.#report('N1', nodePlace(node), 'the list of nodes is torn before it');
      if (node.isRemoved || node.graph !== graph) this.#report('N1', nodePlace(node), `is not a node of ${place}`);
      this.#position.set(node, count++);
      previous = node;
    }
    if (count !== graph.nodeCount) this.#report('N1', place, `lists ${count} nodes, counts ${graph.nodeCount}`);
    for (const value of graph.outputs) this.#outputCounts.set(value, (this.#outputCounts.get(value) ?? 0) + 1);
  }

  /** A graph and the graphs in its nodes. `domains` are those imported here. */
  #scopes(graph: Graph, domains: ReadonlySet<string>, item: LocalFunction | null): void {
    const place = graphPlace(graph);
    for (const value of graph.values) this.#value(graph, value);
    this.#inputs(graph, place);
    for (const value of graph.valueInfo) {
      if (graph.value(value.name) !== value)
        this.#report('V5', place, `value_info lists the foreign value '${value.name}'`);
    }
    const names = new Set<string>();
    for (const node of graph.nodes()) {
      if (node.name !== '' && names.has(node.name)) this.#report('N2', nodePlace(node), 'another node has this name');
      names.add(node.name);
      this.#node(graph, node, domains, item);
    }
    for (const value of graph.outputs) {
      if (graph.lookup(value.name) !== value) {
        this.#report('E4', place, `the output '${value.name}' is not the value of that name`);
      }
      this.#isDefinedBefore(value, graph, null, `${place}, output '${value.name}'`);
    }
  }

  #inputs(graph: Graph, place: string): void {
    const inputs = new Set(graph.inputs);
    if (inputs.size !== graph.inputs.length) this.#report('V3', place, 'an input is listed twice');
    for (const value of inputs) {
      if (!value.isInput || graph.value(value.name) !== value) {
        this.#report('V3', place, `the input '${value.name}' is not marked as one`);
      }
    }
    for (const value of graph.values) {
      if (value.isInput && !inputs.has(value))
        this.#report('V3', place, `'${value.name}' is marked as an input, not listed`);
    }
  }

  #value(graph: Graph, value: Value): void {
    const place = `${graphPlace(graph)}, value '${value.name}'`;
    if (value.name === '') this.#report('V1', place, 'has no name');
    if (graph.value(value.name) !== value || value.graph !== graph) {
      this.#report('V1', place, 'is not what its graph knows by this name');
    }
    if (!graph.names.has(value.name)) this.#report('V1', place, 'has a name that could be given away again');
    const { producer, initializer } = value;
    if (producer) {
      if (producer.isRemoved || producer.graph !== graph || producer.output(value.index) !== value) {
        this.#report('V2', place, 'its producer does not list it');
      }
    } else if (!value.isInput && !initializer && !value.isSparse) this.#report('V2', place, 'nothing defines it');
    if (initializer) this.#initializer(graph, value, initializer, place);
    for (const use of value.useSet) {
      if (!this.#position.has(use.node) || use.node.input(use.index) !== value || use.node.useOf[use.index] !== use) {
        this.#report('E3', place, `counts a use by ${nodePlace(use.node)}, operand ${use.index}, which is none`);
      }
    }
  }

  #initializer(graph: Graph, value: Value, tensor: Tensor, place: string): void {
    if (tensor.name !== value.name) this.#report('V4', place, `its tensor is named '${tensor.name}'`);
    this.#tensor(tensor, place);
    const { type } = value;
    if (type && (type.kind !== 'tensor' || (type.dtype !== 'undefined' && type.dtype !== tensor.dtype))) {
      this.#report(
        'V5',
        place,
        `is declared ${type.kind === 'tensor' ? type.dtype : 'no tensor'}, holds ${tensor.dtype}`,
      );
    }
    if (!value.isInput && graph === this.model.graph) this.#needs(4, `initializer '${value.name}', which is no input,`);
  }

  #tensor(tensor: Tensor, place: string): void {
    const { weight, dtype, dims, strings } = tensor;
    if (strings) {
      if (dtype !== 'string') this.#report('V4', place, `holds strings, its type is ${dtype}`);
      return;
    }
    if (!weight) return;
    const size = byteSize(dtype, dims);
    const stored = weight.op === 'inline' ? weight.bytes.length : weight.byteLength;
    if (weight.dtype !== dtype || weight.dims.join() !== dims.join() || stored !== size) {
      const found = `${weight.dtype}[${weight.dims}] of ${stored} bytes`;
      this.#report('V4', place, `its weight is ${found}, not ${dtype}[${dims}] of ${size}`);
    }
  }

  #node(graph: Graph, node: Node, domains: ReadonlySet<string>, item: LocalFunction | null): void {
    const place = nodePlace(node);
    for (const [index, value] of node.inputs.entries()) {
      const use = node.useOf[index];
      if (!value) {
        if (use) this.#report('E3', place, `operand ${index} is absent, yet counted as a use`);
        continue;
      }
      const operand = `${place}, operand ${index} ('${value.name}')`;
      if (!use || use.node !== node || use.index !== index || !value.useSet.has(use)) {
        this.#report('E3', operand, 'the value does not count this use');
      }
      if (graph.lookup(value.name) !== value) this.#report('E1', operand, 'is not the value that this name finds here');
      this.#isDefinedBefore(value, graph, node, operand);
    }
    for (const [index, value] of node.outputs.entries()) {
      if (value && (value.producer !== node || value.index !== index || graph.value(value.name) !== value)) {
        this.#report('V2', place, `its result ${index} ('${value.name}') is not a value of its graph`);
      }
      if (value && this.#isShadow(value)) {
        this.#report('V6', place, `its result '${value.name}' has the name of a value around its graph`);
      }
    }
    if (!domains.has(node.domain)) {
      this.#report('N5', place, `the domain '${node.domain}' is not imported`);
    }
    if (node.overload !== '') this.#needs(10, `overload of ${place}`);
    for (const [name, attribute] of node.attributes) {
      if (name === '') this.#report('N3', place, 'an attribute has no name');
      if (attribute.kind === 'ref' && !item) {
        this.#report('N3', place, `attribute '${name}' refers to a function's, and this is no function`);
      }
    }
    for (const tensor of attributeTensors(node)) this.#tensor(tensor, `${place}, tensor '${tensor.name}'`);
    for (const subgraph of node.subgraphs) {
      if (subgraph.parentNode !== node || subgraph.parent !== graph) {
        this.#report('N4', place, `its ${graphPlace(subgraph)} belongs elsewhere`);
      } else this.#scopes(subgraph, domains, item);
    }
  }

  /** `reader` is null for a graph output, which comes after all nodes. */
  #isDefinedBefore(value: Value, graph: Graph, reader: Node | null, place: string): void {
    let before = reader;
    let scope: Graph | null = graph;
    while (scope && scope !== value.graph) {
      before = scope.parentNode;
      scope = scope.parent;
    }
    if (!scope) {
      this.#report('E1', place, 'is a value of a graph that is not around this one');
      return;
    }
    const { producer } = value;
    if (!producer || (!before && scope === graph)) return;
    const defined = this.#position.get(producer);
    const read = before ? this.#position.get(before) : undefined;
    if (defined === undefined) this.#report('E1', place, 'comes from a node that is not in its graph');
    else if (read === undefined || defined >= read) this.#report('E2', place, 'is read before it is defined');
  }

  /** True when the name means something else in front of the node that holds this graph. */
  #isShadow(value: Value): boolean {
    for (let graph = value.graph; graph.parent; graph = graph.parent) {
      const other = graph.parent.value(value.name);
      if (!other) continue;
      const holder = graph.parentNode && this.#position.get(graph.parentNode);
      const defined = other.producer ? this.#position.get(other.producer) : -1;
      // A value that comes later is not visible in here.
      if (defined !== undefined && defined < (holder ?? 0)) return true;
    }
    return false;
  }

  #outputCounting(graph: Graph): void {
    for (const value of graph.values) {
      const count = this.#outputCounts.get(value) ?? 0;
      if (value.outputCount === count) continue;
      const place = `${graphPlace(graph)}, value '${value.name}'`;
      this.#report('E4', place, `is ${count} times an output, counts ${value.outputCount}`);
    }
  }
}

function graphPlace(graph: Graph): string {
  const { parentNode } = graph;
  const name = graph.name === '' ? '' : ` '${graph.name}'`;
  return parentNode ? `graph${name} in ${nodePlace(parentNode)}` : `graph${name}`;
}

function nodePlace(node: Node): string {
  const name = node.name || node.outputs.find((value) => value)?.name || '';
  return `node '${name}' (${node.op})`;
}

function functionPlace(item: LocalFunction): string {
  return `function '${item.domain}.${item.name}${item.overload === '' ? '' : `:${item.overload}`}'`;
}
