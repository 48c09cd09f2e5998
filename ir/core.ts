/**
 * Model, Graph, Node, Value: the graph in memory, with use-def chains.
 *
 * - A value knows its producer and its uses; a use is (node, operand index), so `Add(x, x)` uses x twice.
 * - Edges change only through methods; dangerous ones refuse and change nothing.
 * - Values are made only as graph inputs, initializers or results of nodes.
 * - Every mutation bumps `graph.revision` of the graph and of all graphs around it.
 * - `carried` holds whatever the reader found and nobody inspects; only the proto layer looks inside it.
 * - Nothing here knows protobuf, files, transformers or onnxruntime.
 */
import { canonicalDomain, Names } from './names.js';
import { Node, type NodeSpec } from './node.js';
import type { Carried, Metadata, Tensor } from './tensor.js';
import type { ValueType } from './type.js';
import { INTERNAL, Value } from './value.js';

export { Node, type NodeSpec, type ResultSpec } from './node.js';
export { type Attribute, type AttributeValue, type Carried, type Metadata, type Storage, Tensor } from './tensor.js';
export { type Use, Value } from './value.js';

/** Leaves room for about fifty nodes in one place before a graph's nodes are renumbered. */
const RANK_STEP = 2 ** 20;

/**
 * A GraphProto: nodes in a topological order, and values with their producers and readers. It changes only through its
 * methods, which keep these in step.
 */
export class Graph {
  name = '';
  docString: string | undefined;
  metadata: Metadata = [];
  carried: Carried = null;
  readonly names: Names;
  readonly nodeNames: Names;
  /** The node whose attribute this graph is; null for the main graph and for function bodies. */
  parentNode: Node | null = null;
  /** The model whose main graph this is; null for every other one. */
  model: Model | null = null;
  readonly #inputs: Value[] = [];
  readonly #outputs: Value[] = [];
  readonly #initializers = new Set<Value>();
  readonly #values = new Map<string, Value>();
  /** Values whose type the file's value_info lists, in its order. Entries for names nobody defines are in `carried`. */
  readonly valueInfo = new Set<Value>();
  #first: Node | null = null;
  #last: Node | null = null;
  #count = 0;
  #revision = 0;

  /** `parent` is the graph around this one: names are shared with it and its values are visible here. */
  constructor(readonly parent: Graph | null = null) {
    this.names = parent?.names ?? new Names();
    this.nodeNames = parent?.nodeNames ?? new Names();
  }

  /** The main graph, or the function body, that this graph is nested in. */
  get root(): Graph {
    return this.parent ? this.parent.root : this;
  }
  get revision(): number {
    return this.#revision;
  }
  /** @internal */
  touch(): void {
    for (let graph: Graph | null = this; graph; graph = graph.parent) graph.#revision++;
  }
  get inputs(): readonly Value[] {
    return this.#inputs;
  }
  get outputs(): readonly Value[] {
    return this.#outputs;
  }
  /** Initializers in file order. */
  get initializers(): readonly Value[] {
    return [...this.#initializers];
  }
  get nodeCount(): number {
    return this.#count;
  }
  get values(): IterableIterator<Value> {
    return this.#values.values();
  }
  /** Nodes in order. The iteration tolerates removal of the node it stands on. */
  *nodes(): Generator<Node> {
    for (let node = this.#first; node; ) {
      const next: Node | null = node.next;
      yield node;
      node = next;
    }
  }
  /** The value of this name defined in this graph. */
  value(name: string): Value | undefined {
    return this.#values.get(name);
  }
  /** The value of this name visible here: of this graph or of one around it. */
  lookup(name: string): Value | undefined {
    return this.#values.get(name) ?? this.parent?.lookup(name);
  }

  #define(name: string, type: ValueType | null, producer: Node | null, index: number): Value {
    if (this.#values.has(name)) throw new RangeError(`value '${name}' is already defined in graph '${this.name}'`);
    const value = new Value(INTERNAL, this, name, type, producer, index);
    this.#values.set(name, value);
    this.names.claim(name);
    return value;
  }

  /** Adds a graph input under exactly this name. */
  addInput(name: string, type: ValueType | null): Value {
    const value = this.#values.get(name) ?? this.#define(name, type, null, 0);
    if (value.producer || value.inputFlag) throw new RangeError(`value '${name}' is already defined`);
    value.setTypeInternal(type);
    value.inputFlag = true;
    this.#inputs.push(value);
    this.touch();
    return value;
  }
  /** Adds an initializer under exactly this name; it may name an existing graph input (its default). */
  addInitializer(name: string, tensor: Tensor): Value {
    const value = this.#values.get(name) ?? this.#define(name, null, null, 0);
    if (value.producer || value.initializer) throw new RangeError(`value '${name}' is already defined`);
    tensor.name = name;
    value.setInitializerInternal(tensor);
    this.#initializers.add(value);
    this.touch();
    return value;
  }
  /** Declares a value that a sparse_initializer defines, and that has so many bytes once it is dense. */
  addSparse(name: string, bytes = 0): Value {
    const value = this.#values.get(name) ?? this.#define(name, null, null, 0);
    value.isSparse = true;
    value.sparseBytes = bytes;
    return value;
  }
  /** Lists `value` as the next output. */
  addOutput(value: Value): void {
    this.#outputs.push(value);
    value.outputCount++;
    this.touch();
  }
  /** Makes `value` the initializer `tensor` from now on, under its old name. */
  replaceInitializer(value: Value, tensor: Tensor): void {
    if (!value.initializer) throw new RangeError(`'${value.name}' is no initializer`);
    tensor.name = value.name;
    value.setInitializerInternal(tensor);
    this.touch();
  }

  /**
   * A new node after `after`, before `before`, or at the end. Names are wishes unless `exact`, when a name that is taken
   * in this graph throws (the readers use it).
   */
  addNode(spec: NodeSpec, at: { before?: Node; after?: Node; exact?: boolean } = {}): Node {
    const name = at.exact ? (spec.name ?? '') : spec.name ? this.nodeNames.fresh(spec.name) : '';
    if (at.exact && name) this.nodeNames.claim(name);
    const node = new Node(INTERNAL, this, name, canonicalDomain(spec.domain ?? ''), spec.opType);
    for (const [index, result] of spec.outputs.entries()) {
      const wish = typeof result === 'string' ? { name: result, type: null } : result;
      if (!wish || (at.exact && wish.name === '')) node.results.push(null);
      else node.results.push(this.#define(at.exact ? wish.name : this.names.fresh(wish.name), wish.type, node, index));
    }
    for (const [key, attribute] of Object.entries(spec.attributes ?? {})) node.attributeMap.set(key, attribute);
    this.#link(node, at.before ?? at.after?.next ?? null);
    for (const [index, value] of spec.inputs.entries()) node.setInput(index, value);
    this.touch();
    return node;
  }

  #link(node: Node, before: Node | null): void {
    if (before && (before.graph !== this || before.isRemoved)) throw new RangeError('the anchor is not in this graph');
    node.next = before;
    node.prev = before ? before.prev : this.#last;
    if (node.prev) node.prev.next = node;
    else this.#first = node;
    if (before) before.prev = node;
    else this.#last = node;
    this.#count++;
    const low = node.prev?.rank ?? (before?.rank ?? 0) - 2 * RANK_STEP;
    const high = before?.rank ?? low + 2 * RANK_STEP;
    node.rank = (low + high) / 2;
    if (node.rank <= low || node.rank >= high) this.#renumber();
  }
  /** So many nodes were put into one place that there is no number left between two of them. */
  #renumber(): void {
    let rank = 0;
    for (const node of this.nodes()) node.rank = rank += RANK_STEP;
  }
  #unlink(node: Node): void {
    if (node.prev) node.prev.next = node.next;
    else this.#first = node.next;
    if (node.next) node.next.prev = node.prev;
    else this.#last = node.prev;
    this.#count--;
  }

  /** Moves a node in front of `before`, or to the end. */
  moveNode(node: Node, before: Node | null): void {
    if (node === before) return;
    this.#unlink(node);
    this.#link(node, before);
    this.touch();
  }

  /** Removes a node whose results nobody uses. Refuses otherwise. */
  removeNode(node: Node): void {
    if (node.graph !== this || node.isRemoved) throw new RangeError('the node is not in this graph');
    const used = node.results.find((value) => value && !value.isUnused);
    if (used) throw new RangeError(`node '${node.name}' (${node.op}) cannot be removed: '${used.name}' is still used`);
    for (const graph of node.subgraphs) graph.#release();
    for (let i = 0; i < node.slots.length; i++) node.setInput(i, null);
    for (const value of node.results) if (value) this.#forget(value);
    this.#unlink(node);
    node.attached = false;
    this.touch();
  }
  /** Removes result `index` of a node, which nobody uses; the results after it move up. Refuses otherwise. */
  removeResult(node: Node, index: number): void {
    const value = node.results[index];
    if (node.graph !== this || value === undefined || (value && !value.isUnused)) {
      throw new RangeError(`result ${index} of node '${node.name}' cannot be removed`);
    }
    if (value) this.#forget(value);
    node.results.splice(index, 1);
    for (const [i, result] of node.results.entries()) result?.setIndexInternal(i);
    this.touch();
  }
  /** Gives up everything a dying subgraph reads from outside. */
  #release(): void {
    for (const value of this.#outputs) value.outputCount--;
    this.#outputs.length = 0;
    for (const node of this.nodes()) {
      for (const graph of node.subgraphs) graph.#release();
      for (let i = 0; i < node.slots.length; i++) node.setInput(i, null);
    }
  }
  #forget(value: Value): void {
    this.#values.delete(value.name);
    this.valueInfo.delete(value);
  }

  /** Removes a graph input that nobody uses. Refuses otherwise. */
  removeInput(value: Value): void {
    const index = this.#inputs.indexOf(value);
    if (index < 0 || !value.isUnused) throw new RangeError(`graph input '${value.name}' cannot be removed`);
    this.#inputs.splice(index, 1);
    value.inputFlag = false;
    if (!value.initializer) this.#forget(value);
    this.touch();
  }
  /** No longer lists `value` as an output of this graph, however often it did. */
  removeOutput(value: Value): void {
    const left = this.#outputs.filter((output) => output !== value);
    if (left.length === this.#outputs.length) throw new RangeError(`'${value.name}' is no output of this graph`);
    this.#outputs.splice(0, this.#outputs.length, ...left);
    value.outputCount = 0;
    this.touch();
  }
  /** Removes an initializer that nobody uses and that is no graph input. Refuses otherwise. */
  removeInitializer(value: Value): void {
    if (!this.#initializers.has(value) || !value.isUnused || value.inputFlag) {
      throw new RangeError(`initializer '${value.name}' cannot be removed`);
    }
    this.#initializers.delete(value);
    this.#forget(value);
    this.touch();
  }
  /** Makes every node that reads `from` read `to`. Outputs keep their names, so a graph output is refused. */
  replaceUses(from: Value, to: Value): void {
    if (from.isGraphOutput) throw new RangeError(`'${from.name}' is a graph output and cannot be replaced`);
    for (const use of from.uses) use.node.setInput(use.index, to);
  }
  /**
   * `to` takes the place of the graph output `from`: its readers, its place among the outputs and its name. `from` is
   * renamed. Refuses when `to` is itself part of the interface, whose name must stay.
   */
  takeOver(from: Value, to: Value): void {
    if (to.graph !== this || from.graph !== this || to.isInput || to.isGraphOutput || to.initializer) {
      throw new RangeError(`'${to.name}' cannot take the place of the output '${from.name}'`);
    }
    const { name } = from;
    this.#values.delete(name);
    this.#values.delete(to.name);
    from.setNameInternal(this.names.fresh(name));
    to.setNameInternal(name);
    this.#values.set(from.name, from);
    this.#values.set(name, to);
    from.carried = null;
    to.carried = null;
    for (const [i, value] of this.#outputs.entries()) {
      if (value !== from) continue;
      this.#outputs[i] = to;
      from.outputCount--;
      to.outputCount++;
    }
    if (from.type) to.setTypeInternal(from.type);
    this.touch();
    this.replaceUses(from, to);
  }
  /** Gives a value another name, exactly this one. */
  renameValue(value: Value, name: string): void {
    if (value.graph !== this || this.names.has(name))
      throw new RangeError(`cannot rename '${value.name}' to '${name}'`);
    this.#values.delete(value.name);
    value.setNameInternal(name);
    this.#values.set(name, value);
    this.names.claim(name);
    if (value.initializer) value.initializer.name = name;
    value.carried = null;
    this.touch();
  }
  /**
   * Gives several values of this graph other names, all at once: names may change places. A name that nothing has any
   * more may be used again. Refuses, and changes nothing, when two values would have one name, or a value here, in a
   * graph around this one or in one inside it has it and keeps it.
   */
  renameValues(names: ReadonlyMap<Value, string>): void {
    const wanted = new Set(names.values());
    if (wanted.size !== names.size || wanted.has('')) throw new RangeError('the new names are not one for each value');
    for (const value of names.keys()) {
      if (value.graph !== this || this.#values.get(value.name) !== value) {
        throw new RangeError(`'${value.name}' is no value of graph '${this.name}'`);
      }
    }
    for (const value of this.#visible()) {
      if (wanted.has(value.name) && !names.has(value)) throw new RangeError(`the name '${value.name}' is taken`);
    }
    for (const value of names.keys()) this.#values.delete(value.name);
    for (const [value, name] of names) {
      value.setNameInternal(name);
      this.#values.set(name, value);
      this.names.claim(name);
      if (value.initializer) value.initializer.name = name;
      value.carried = null;
    }
    this.touch();
  }
  /** Every value of this graph, of those around it and of those inside it: names must differ among them. */
  *#visible(): Generator<Value> {
    for (let graph = this.parent; graph; graph = graph.parent) yield* graph.#values.values();
    const open: Graph[] = [this];
    for (let graph = open.pop(); graph; graph = open.pop()) {
      yield* graph.#values.values();
      for (const node of graph.nodes()) open.push(...node.subgraphs);
    }
  }
}

/** OperatorSetIdProto. */
export interface OpsetImport {
  /** The default domain is ''. */
  domain: string;
  version: number;
  carried?: Carried;
}

/** FunctionProto: the body's inputs and outputs are the function's. */
export class LocalFunction {
  docString: string | undefined;
  metadata: Metadata = [];
  carried: Carried = null;
  readonly domain: string;
  constructor(
    domain: string,
    readonly name: string,
    readonly overload: string,
    readonly body: Graph,
    /** Attribute names without a default; those with one are carried. */
    readonly attributeNames: readonly string[],
    readonly opsets: readonly OpsetImport[],
  ) {
    this.domain = canonicalDomain(domain);
  }
}

/** ModelProto. A field that the file does not set is undefined. */
export class Model {
  producerName: string | undefined;
  producerVersion: string | undefined;
  domain: string | undefined;
  modelVersion: bigint | undefined;
  docString: string | undefined;
  metadata: Metadata = [];
  carried: Carried = null;
  readonly functions: LocalFunction[] = [];
  constructor(
    public irVersion: number,
    readonly opsets: OpsetImport[],
    readonly graph: Graph,
  ) {
    graph.model = this;
  }
  /** Imported version of a domain; undefined when it is not imported. */
  opset(domain: string): number | undefined {
    return this.opsets.find((opset) => opset.domain === domain)?.version;
  }
  /** Imports a domain unless it is imported already. */
  requireDomain(domain: string, version: number): void {
    if (this.opset(domain) === undefined) this.opsets.push({ domain, version });
  }
}
