/** Tensors, attributes and the odds and ends that every part of a model carries. */
import type { Graph } from './core.js';
import type { DataType } from './type.js';
import type { Weight } from './weight.js';

/** Key and value of a metadata_props entry, in file order. */
export type Metadata = readonly (readonly [key: string, value: string])[];

/** The original message, for the writer. Opaque to everybody else. */
export type Carried = { readonly carried: unique symbol } | null;

/** How the bytes of a tensor are stored in the file. `typed` is float_data, int64_data, string_data and so on. */
export type Storage = 'raw' | 'typed' | 'external';

/** A TensorProto. `weight` is null only for types without fixed-width elements (strings). */
export class Tensor {
  docString: string | undefined;
  metadata: Metadata = [];
  carried: Carried = null;
  constructor(
    public name: string,
    readonly dtype: DataType,
    readonly dims: readonly number[],
    readonly weight: Weight | null,
    public storage: Storage = 'raw',
    /** Elements of a string tensor, as bytes. */
    readonly strings: readonly Uint8Array[] | null = null,
  ) {}
}

/** The value of a node attribute. `ref` names an attribute of the enclosing function; `opaque` is carried as wire. */
export type AttributeValue =
  | { readonly kind: 'float'; readonly value: number }
  | { readonly kind: 'int'; readonly value: bigint }
  | { readonly kind: 'string'; readonly value: Uint8Array }
  | { readonly kind: 'tensor'; readonly value: Tensor }
  | { readonly kind: 'graph'; readonly value: Graph }
  | { readonly kind: 'floats'; readonly value: readonly number[] }
  | { readonly kind: 'ints'; readonly value: readonly bigint[] }
  | { readonly kind: 'strings'; readonly value: readonly Uint8Array[] }
  | { readonly kind: 'tensors'; readonly value: readonly Tensor[] }
  | { readonly kind: 'graphs'; readonly value: readonly Graph[] }
  | { readonly kind: 'ref'; readonly value: string; readonly type: number }
  | { readonly kind: 'opaque'; readonly type: number };

/** An attribute of a node: its value, documentation, and what the file says beyond them. */
export type Attribute = AttributeValue & { readonly docString?: string | undefined; readonly carried?: Carried };
