/** What ValueInfoProtos say beyond names, types and documentation: see residue.ts. */
import type { Graph, Value } from '../../core.js';
import {
  carry,
  type ExtraInfo,
  type OriginalGraph,
  type OriginalInfo,
  type OriginalValue,
  originalOf,
  type Section,
} from '../carried.js';
import { readFramed, type Shape, writeFramed } from '../frame.js';
import { type Messages, ownString } from '../messages.js';
import { decodeMetadata, decodeType } from '../metadata.js';
import { type Residue, readerOf, residueOfOriginal, restore } from './residue.js';

/** One ValueInfoProto: what it says, and what it carries. */
export interface InfoNote {
  readonly message: Messages['ValueInfoProto'];
  readonly shape: Shape | null;
  /** The one that gives its value doc string and metadata. */
  readonly isFirst: boolean;
}

/** Finds the ValueInfoProtos of one graph, each only once, as the encoder does. */
export class InfoFinder {
  /** What is left of every value's entries in this graph, by section, last first. */
  readonly #left = new Map<Value, Map<Section, InfoNote[]>>();
  constructor(readonly graph: Graph) {}

  find(value: Value, section: Section): InfoNote | null {
    let sections = this.#left.get(value);
    if (!sections) {
      sections = this.#sections(value);
      this.#left.set(value, sections);
    }
    return sections.get(section)?.pop() ?? null;
  }

  #sections(value: Value): Map<Section, InfoNote[]> {
    const sections = new Map<Section, InfoNote[]>();
    const infos = originalOf<OriginalValue>(value.carried)?.infos ?? [];
    for (const info of [...infos].reverse()) {
      if (info.graph !== this.graph) continue;
      const notes = sections.get(info.section) ?? [];
      notes.push({ message: info.message, shape: info.shape, isFirst: info === infos[0] });
      sections.set(info.section, notes);
    }
    return sections;
  }
}

/** What one ValueInfoProto says beyond `canonical`. */
export function infoResidue({ message, shape }: InfoNote, canonical: Messages['ValueInfoProto']): Residue | null {
  return residueOfOriginal('ValueInfoProto', { message, shape, ranges: [] }, canonical);
}

/** The value_info entries for names that nobody defines, with their index among all entries. */
export function extraInfosOf(graph: Graph): { readonly index: number; readonly info: InfoNote }[] {
  // As the encoder: a repetition goes when what it repeats has changed.
  const isStale = ({ repeats }: ExtraInfo) => repeats && (!graph.valueInfo.has(repeats) || !repeats.carried);
  const extraInfos = (originalOf<OriginalGraph>(graph.carried)?.extraInfos ?? []).filter((extra) => !isStale(extra));
  return extraInfos.map(({ index, rope }) => {
    const bytes = rope.chunks[0] instanceof Uint8Array ? rope.chunks[0] : new Uint8Array(0);
    const { message, shape } = readFramed(readerOf(bytes), 'ValueInfoProto', 0, bytes.length);
    return { index, info: { message, shape, isFirst: false } };
  });
}

/** A value_info entry for a name that nobody defines, or a further one for the value `repeats`. */
export function restoreExtraInfo(
  index: number,
  repeats: Value | null,
  canonical: Messages['ValueInfoProto'],
  residue: Residue | null,
): ExtraInfo {
  const { message, shape } = restore('ValueInfoProto', canonical, residue);
  return { index, repeats, rope: writeFramed('ValueInfoProto', message, [], shape) };
}

/** Remembers one ValueInfoProto of a value, as the reader does. */
export function noteInfo(
  value: Value,
  graph: Graph,
  section: Section,
  canonical: Messages['ValueInfoProto'],
  residue: Residue | null,
): void {
  const info: OriginalInfo = { ...restore('ValueInfoProto', canonical, residue), graph, section };
  const old = originalOf<OriginalValue>(value.carried);
  if (old) old.infos.push(info);
  else {
    const carried: OriginalValue = { infos: [info] };
    value.carried = carry(carried);
    value.docString = ownString(info.message, 'docString');
    value.metadata = decodeMetadata(info.message);
  }
  if (!value.type) value.setTypeInternal(decodeType(info.message.type));
}
