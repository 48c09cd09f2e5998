/** A value: a graph input, an initializer, or a result of a node, with its uses. */
import type { Graph } from './core.js';
import type { Node } from './node.js';
import type { Carried, Metadata, Tensor } from './tensor.js';
import type { DataType, Dim, ValueType } from './type.js';

/** Operand `index` of `node`. */
export interface Use {
  readonly node: Node;
  readonly index: number;
}

/** @internal */
export const INTERNAL = Symbol('only the graph makes values and nodes');

/** What a node computes, a graph input, or an initializer: its name, type, producer and readers. */
export class Value {
  /** Results: the node that computes it. Inputs and initializers: null. */
  readonly producer: Node | null;
  #index: number;
  readonly graph: Graph;
  /** @internal */ readonly useSet = new Set<Use>();
  /** @internal how often this value is listed as an output, of any graph */ outputCount = 0;
  docString: string | undefined;
  metadata: Metadata = [];
  carried: Carried = null;
  #name: string;
  #type: ValueType | null;
  #initializer: Tensor | null = null;
  /** @internal */ inputFlag = false;
  /** Defined by a sparse_initializer, which is carried as it came. */
  isSparse = false;
  /** Bytes of such a value once it is dense; 0 when nothing says its size. */
  sparseBytes = 0;

  constructor(token: symbol, graph: Graph, name: string, type: ValueType | null, producer: Node | null, index: number) {
    if (token !== INTERNAL) throw new TypeError('values are made by their graph');
    this.graph = graph;
    this.#name = name;
    this.#type = type;
    this.producer = producer;
    this.#index = index;
  }

  get name(): string {
    return this.#name;
  }
  /** Results: which output of the node; 0 otherwise. */
  get index(): number {
    return this.#index;
  }
  /** Uses, as a snapshot in the order they were made. */
  get uses(): readonly Use[] {
    return [...this.useSet];
  }
  get useCount(): number {
    return this.useSet.size;
  }
  get isInput(): boolean {
    return this.inputFlag;
  }
  get isGraphOutput(): boolean {
    return this.outputCount > 0;
  }
  /** Neither read by a node nor an output. */
  get isUnused(): boolean {
    return this.useSet.size === 0 && this.outputCount === 0;
  }
  get initializer(): Tensor | null {
    return this.#initializer;
  }
  /** The initializer of a value that is not also a graph input (which a caller could override). */
  get constant(): Tensor | null {
    return this.inputFlag ? null : this.#initializer;
  }
  get type(): ValueType | null {
    return this.#type;
  }
  set type(type: ValueType | null) {
    this.#type = type;
    this.carried = null;
    this.graph.touch();
  }
  /** Of an initializer what it holds, whatever the file declares besides. */
  get dtype(): DataType | null {
    if (this.#initializer) return this.#initializer.dtype;
    return this.#type?.kind === 'tensor' ? this.#type.dtype : null;
  }
  /** Dimensions as the file states them; null where it does not, or where this is no tensor. */
  get shape(): readonly Dim[] | null {
    return this.#type?.kind === 'tensor' ? this.#type.shape : null;
  }
  /** @internal */
  setNameInternal(name: string): void {
    this.#name = name;
  }
  /** @internal */
  setIndexInternal(index: number): void {
    this.#index = index;
  }
  /** @internal */
  setTypeInternal(type: ValueType | null): void {
    this.#type = type;
  }
  /** @internal */
  setInitializerInternal(tensor: Tensor | null): void {
    this.#initializer = tensor;
  }
}
