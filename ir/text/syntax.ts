/** What the parser found, before names are linked: link.ts makes the graph of it. */
import type { AttributeValue, OpsetImport, Tensor } from '../core.js';
import type { ValueType } from '../type.js';
import type { Notes } from './notes.js';

export interface NameSyntax {
  readonly name: string;
  /** Offset in the text. */
  readonly at: number;
}

/** An entry of inputs, outputs or value_info. */
export interface InfoSyntax extends NameSyntax {
  readonly type: ValueType | null;
  readonly notes: Notes;
}

export interface InitializerSyntax extends NameSyntax {
  readonly tensor: Tensor;
}

export type ValueSyntax =
  | Exclude<AttributeValue, { readonly kind: 'graph' | 'graphs' }>
  | { readonly kind: 'graph'; readonly graphs: readonly GraphSyntax[] }
  | { readonly kind: 'graphs'; readonly graphs: readonly GraphSyntax[] };

export interface AttributeSyntax extends NameSyntax {
  readonly value: ValueSyntax;
  /** The types of a type_proto attribute, whose value is opaque. */
  readonly types: readonly ValueType[];
  readonly notes: Notes;
}

export interface NodeSyntax extends NameSyntax {
  readonly domain: string;
  readonly opType: string;
  readonly overload: string;
  readonly inputs: readonly NameSyntax[];
  readonly outputs: readonly NameSyntax[];
  readonly attributes: readonly AttributeSyntax[];
  readonly notes: Notes;
}

export interface GraphSyntax extends NameSyntax {
  readonly inputs: readonly InfoSyntax[];
  readonly outputs: readonly InfoSyntax[];
  readonly initializers: readonly InitializerSyntax[];
  readonly infos: readonly InfoSyntax[];
  readonly nodes: readonly NodeSyntax[];
  readonly notes: Notes;
}

/** What stands between angle brackets in front of a model or function. */
export interface HeaderSyntax {
  irVersion?: number;
  opsets?: OpsetImport[];
  producerName?: string;
  producerVersion?: string;
  domain?: string;
  overload?: string;
  modelVersion?: bigint;
  docString?: string;
  metadata?: [string, string][];
}

export interface FunctionSyntax {
  readonly header: HeaderSyntax;
  readonly attributeNames: readonly string[];
  readonly defaults: readonly AttributeSyntax[];
  readonly body: GraphSyntax;
  readonly notes: Notes;
}

export interface ModelSyntax {
  readonly header: HeaderSyntax;
  readonly graph: GraphSyntax;
  readonly functions: readonly FunctionSyntax[];
  readonly notes: Notes;
}
