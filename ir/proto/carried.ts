/** What `carried` holds on each class of the core: the original, as it was read. Only this folder looks inside. */
import type { Attribute, Carried, Graph, Node, Storage, Value } from '../core.js';
import type { ByteSource } from '../weight.js';
import type { Range, Shape } from './frame.js';
import type { MessageName, Messages } from './messages.js';
import type { Rope } from './rope.js';

/** A message as it was decoded: unknown fields, presence, everything the core has no room for. */
export interface Original<N extends MessageName> {
  readonly message: Messages[N];
  readonly shape: Shape | null;
  readonly ranges: readonly Range[];
}
/** The original of a model. */
export interface OriginalModel extends Original<'ModelProto'> {
  /** The file itself and its external data files: never to be overwritten, also when no weight points there any more. */
  readonly sources: readonly ByteSource[];
}
/** The original of a tensor. */
export interface OriginalTensor extends Original<'TensorProto'> {
  /** Where the data were; a tensor moved elsewhere since then is written anew. */
  readonly storage: Storage;
}
/** The original of an attribute; it counts only while the attribute has a value of that kind. */
export interface OriginalAttribute extends Original<'AttributeProto'> {
  readonly kind: Attribute['kind'];
}
/** A value_info entry for a name that nobody defines, or a second one for a value; how many entries came before it. */
export interface ExtraInfo {
  readonly index: number;
  /** The value that has an entry already. Exporters' tools (OnnxSlim) write every entry twice. */
  readonly repeats?: Value | null;
  readonly rope: Rope;
}
/** The original of a graph. */
export interface OriginalGraph extends Original<'GraphProto'> {
  readonly extraInfos: readonly ExtraInfo[];
  /** Only where the file's order was no topological one: the nodes as they stood there, and as they were sorted. */
  readonly unsorted?: { readonly file: readonly Node[]; readonly sorted: readonly Node[] } | null | undefined;
}
/** The list of a graph that a ValueInfoProto stands in. */
export type Section = 'input' | 'output' | 'info';
/** One ValueInfoProto of a value. A value can have several: as an output of two graphs, as output and in value_info. */
export interface OriginalInfo extends Original<'ValueInfoProto'> {
  readonly graph: Graph;
  readonly section: Section;
}
/** The originals of a value: all of its ValueInfoProtos. */
export interface OriginalValue {
  /** The first one gave the value its doc string and metadata. */
  readonly infos: OriginalInfo[];
}

/** Seals an original, so that only this folder can look inside. */
export function carry(original: object): Carried {
  return original as unknown as Carried;
}

/** The original that is carried, or null. The caller names the type that belongs to the class whose field it reads. */
export function originalOf<T>(carried: Carried | undefined): T | null {
  return (carried ?? null) as unknown as T | null;
}
