/**
 * What a file says beside what it computes: doc strings and metadata_props of every message that has some, also of those
 * that the core has no room for (a second ValueInfoProto of a value, one for a name that nobody defines).
 */
import { MemorySource } from '../bytes.js';
import type { Attribute, Graph, Metadata, Model, Node, Tensor, Value } from '../core.js';
import { allGraphs } from '../walk.js';
import {
  carry,
  type ExtraInfo,
  type OriginalGraph,
  type OriginalInfo,
  type OriginalValue,
  originalOf,
} from './carried.js';
import { readFramed, writeFramed } from './frame.js';
import { copyMessage, type Messages, ownString, setOptional } from './messages.js';
import { decodeMetadata, encodeMetadata } from './metadata.js';
import { WireReader } from './wire.js';

/** One text of a model; `key` is that of a metadata entry, null for a doc string. */
export interface DocumentedText {
  readonly key: string | null;
  readonly text: string;
}

/**
 * Takes every doc string and every metadata entry out of `model` for which `isKept` says no. Not looked into are sparse
 * initializers, training graphs and the types inside of attributes, which are carried unread.
 */
export function filterDocumentation(model: Model, isKept: (text: DocumentedText) => boolean): void {
  const filter = new Filter(isKept);
  if (filter.clean(model)) model.graph.touch();
  for (const item of model.functions) if (filter.clean(item)) item.body.touch();
  for (const graph of allGraphs(model)) filter.graph(graph);
}

interface Documented {
  docString: string | undefined;
  metadata: Metadata;
}

class Filter {
  constructor(readonly isKept: (text: DocumentedText) => boolean) {}

  /** True when something was taken out. */
  clean(part: Documented): boolean {
    const { docString, metadata } = part;
    const isGone = docString !== undefined && docString !== '' && !this.isKept({ key: null, text: docString });
    const left = metadata.filter(([key, text]) => this.isKept({ key, text }));
    if (isGone) part.docString = undefined;
    if (left.length < metadata.length) part.metadata = left;
    return isGone || left.length < metadata.length;
  }

  graph(graph: Graph): void {
    let isChanged = this.clean(graph);
    for (const value of graph.values) {
      if (this.clean(value)) isChanged = true;
      if (value.initializer && this.clean(value.initializer)) isChanged = true;
      if (this.#furtherInfos(value)) isChanged = true;
    }
    for (const node of graph.nodes()) {
      if (this.clean(node)) isChanged = true;
      for (const [name, attribute] of [...node.attributes]) this.#attribute(node, name, attribute);
    }
    if (this.#extraInfos(graph)) isChanged = true;
    if (isChanged) graph.touch();
  }

  #attribute(node: Node, name: string, attribute: Attribute): void {
    const tensors: readonly Tensor[] =
      attribute.kind === 'tensor' ? [attribute.value] : attribute.kind === 'tensors' ? attribute.value : [];
    for (const tensor of tensors) if (this.clean(tensor)) node.graph.touch();
    const documented: Documented = { docString: attribute.docString, metadata: [] };
    if (this.clean(documented)) node.setAttribute(name, { ...attribute, docString: undefined });
  }

  /** The first entry of a value says what the value itself says; the others have documentation of their own. */
  #furtherInfos(value: Value): boolean {
    const carried = originalOf<OriginalValue>(value.carried);
    const [first, ...others] = carried?.infos ?? [];
    if (!carried || !first || others.length === 0) return false;
    let isChanged = false;
    const infos = others.map((info): OriginalInfo => {
      const message = this.#message(info.message);
      if (message) isChanged = true;
      return message ? { ...info, message } : info;
    });
    if (isChanged) value.carried = carry({ ...carried, infos: [first, ...infos] });
    return isChanged;
  }

  #extraInfos(graph: Graph): boolean {
    const carried = originalOf<OriginalGraph>(graph.carried);
    let isChanged = false;
    const extraInfos = (carried?.extraInfos ?? []).map((info): ExtraInfo => {
      const [bytes] = info.rope.chunks;
      if (!(bytes instanceof Uint8Array)) return info;
      const reader = new WireReader(new MemorySource(bytes), 'value_info');
      const { message, shape } = readFramed(reader, 'ValueInfoProto', 0, bytes.length);
      const left = this.#message(message);
      if (left) isChanged = true;
      return left ? { ...info, rope: writeFramed('ValueInfoProto', left, [], shape) } : info;
    });
    if (carried && isChanged) graph.carried = carry({ ...carried, extraInfos });
    return isChanged;
  }

  /** The message without what goes; null when nothing does. */
  #message(message: Messages['ValueInfoProto']): Messages['ValueInfoProto'] | null {
    const documented: Documented = { docString: ownString(message, 'docString'), metadata: decodeMetadata(message) };
    if (!this.clean(documented)) return null;
    const copy = copyMessage('ValueInfoProto', message);
    setOptional(copy, 'docString', documented.docString);
    encodeMetadata(copy, documented.metadata);
    return copy;
  }
}
