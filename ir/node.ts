/** A node: one application of an operator. */
import type { Graph } from './core.js';
import type { Attribute, Carried, Metadata, Tensor } from './tensor.js';
import type { ValueType } from './type.js';
import { INTERNAL, type Use, type Value } from './value.js';

/** A NodeProto in its graph. Operands and results are values; an operand that is left out is null. */
export class Node {
  /** @internal */ prev: Node | null = null;
  /** @internal */ next: Node | null = null;
  /** @internal grows along the graph's order; `isBefore` compares it */ rank = 0;
  docString: string | undefined;
  metadata: Metadata = [];
  carried: Carried = null;
  overload = '';
  /** @internal */ readonly attributeMap = new Map<string, Attribute>();
  /** @internal the use of each operand, so that an edge is dropped in constant time */ readonly useOf: (Use | null)[] =
    [];
  /** @internal */ readonly slots: (Value | null)[] = [];
  /** @internal */ readonly results: (Value | null)[] = [];
  /** @internal */ attached = true;

  constructor(
    token: symbol,
    readonly graph: Graph,
    readonly name: string,
    /** The default domain is '', however the file spells it. */
    readonly domain: string,
    readonly opType: string,
  ) {
    if (token !== INTERNAL) throw new TypeError('nodes are made by their graph');
  }

  /** Attributes in file order; `setAttribute` changes them. */
  get attributes(): ReadonlyMap<string, Attribute> {
    return this.attributeMap;
  }
  /** Operands; null where an optional one is absent (an empty name in the file). */
  get inputs(): readonly (Value | null)[] {
    return this.slots;
  }
  /** Results; null where an optional one is absent. */
  get outputs(): readonly (Value | null)[] {
    return this.results;
  }
  get isRemoved(): boolean {
    return !this.attached;
  }
  /** True when this node comes before `other`, a node of the same graph, in the graph's order. */
  isBefore(other: Node): boolean {
    return this.rank < other.rank;
  }
  input(index: number): Value | null {
    return this.slots[index] ?? null;
  }
  output(index: number): Value | null {
    return this.results[index] ?? null;
  }
  /** `domain.opType`, the default domain being silent: `MatMul`, `com.microsoft.MatMulNBits`. */
  get op(): string {
    return this.domain === '' ? this.opType : `${this.domain}.${this.opType}`;
  }
  intAttribute(name: string): number | undefined {
    const attribute = this.attributes.get(name);
    return attribute?.kind === 'int' ? Number(attribute.value) : undefined;
  }
  floatAttribute(name: string): number | undefined {
    const attribute = this.attributes.get(name);
    return attribute?.kind === 'float' ? attribute.value : undefined;
  }
  intsAttribute(name: string): number[] | undefined {
    const attribute = this.attributes.get(name);
    return attribute?.kind === 'ints' ? attribute.value.map(Number) : undefined;
  }
  stringAttribute(name: string): string | undefined {
    const attribute = this.attributes.get(name);
    return attribute?.kind === 'string' ? new TextDecoder().decode(attribute.value) : undefined;
  }
  tensorAttribute(name: string): Tensor | undefined {
    const attribute = this.attributes.get(name);
    return attribute?.kind === 'tensor' ? attribute.value : undefined;
  }
  /** Graphs among the attributes (If, Loop, Scan), in attribute order. */
  get subgraphs(): readonly Graph[] {
    const found: Graph[] = [];
    for (const attribute of this.attributes.values()) {
      if (attribute.kind === 'graph') found.push(attribute.value);
      else if (attribute.kind === 'graphs') found.push(...attribute.value);
    }
    return found;
  }
  setAttribute(name: string, attribute: Attribute): void {
    this.attributeMap.set(name, attribute);
    this.graph.touch();
  }

  /** Makes operand `index` read `value`; grows the operand list with absent ones where needed. */
  setInput(index: number, value: Value | null): void {
    const use = this.useOf[index];
    if (use) this.slots[index]?.useSet.delete(use);
    while (this.slots.length < index) this.slots.push(null);
    this.slots[index] = value;
    this.useOf[index] = value ? { node: this, index } : null;
    if (value) value.useSet.add(this.useOf[index] as Use);
    this.graph.touch();
  }
  /** Drops operands from `length` on (trailing optional ones). */
  truncateInputs(length: number): void {
    for (let i = length; i < this.slots.length; i++) this.setInput(i, null);
    this.slots.length = Math.min(this.slots.length, length);
    this.graph.touch();
  }
}

/** What a new result is called and what type it has. A string is a name wish, made unique. */
export type ResultSpec = string | { readonly name: string; readonly type: ValueType | null } | null;

/** What a new node is made of. */
export interface NodeSpec {
  readonly opType: string;
  readonly domain?: string;
  /** A wish, made unique. */
  readonly name?: string;
  readonly inputs: readonly (Value | null)[];
  readonly outputs: readonly ResultSpec[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}
