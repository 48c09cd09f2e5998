/** What `carried` holds on each class of the core. Only this folder looks inside. */
import type { Attribute, Carried, Graph, Node, Storage, Value } from '../core.js';
import type { ByteSource } from '../weight.js';
import type { Range, Shape } from './frame.js';
import type { MessageName, Messages } from './messages.js';
import type { Rope } from './rope.js';

/** The message as decoded: unknown fields, presence, everything the core has no room for. */
export interface Kept<N extends MessageName> {
  readonly message: Messages[N];
  readonly shape: Shape | null;
  readonly ranges: readonly Range[];
}
export interface KeptModel extends Kept<'ModelProto'> {
  /** The file itself and its external data files: never to be overwritten, also when no weight points there any more. */
  readonly sources: readonly ByteSource[];
}
export interface KeptTensor extends Kept<'TensorProto'> {
  /** Where the data were; a tensor moved elsewhere since then is written anew. */
  readonly storage: Storage;
}
export interface KeptAttribute extends Kept<'AttributeProto'> {
  readonly kind: Attribute['kind'];
}
/** A value_info entry for a name that nobody defines, or a second one for a value; how many entries came before it. */
export interface Stray {
  readonly index: number;
  /** The value that has an entry already. Exporters' tools (OnnxSlim) write every entry twice. */
  readonly repeats?: Value | null;
  readonly rope: Rope;
}
export interface KeptGraph extends Kept<'GraphProto'> {
  readonly strays: readonly Stray[];
  /** Only where the file's order was no topological one: the nodes as they stood there, and as they were sorted. */
  readonly unsorted?: { readonly file: readonly Node[]; readonly sorted: readonly Node[] } | null | undefined;
}
export type Section = 'input' | 'output' | 'info';
/** One ValueInfoProto of a value. A value can have several: as an output of two graphs, as output and in value_info. */
export interface KeptInfo extends Kept<'ValueInfoProto'> {
  readonly graph: Graph;
  readonly section: Section;
}
export interface KeptValue {
  /** The first one gave the value its doc string and metadata. */
  readonly infos: KeptInfo[];
}

export function keep(kept: object): Carried {
  return kept as unknown as Carried;
}

/** The caller names the type that belongs to the class whose field it reads. */
export function kept<T>(carried: Carried | undefined): T | null {
  return (carried ?? null) as unknown as T | null;
}
