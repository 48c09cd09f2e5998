/** What ValueInfoProtos say beyond names, types and documentation: see leftover.ts. */
import type { Graph, Value } from '../../core.js';
import { type KeptGraph, type KeptInfo, type KeptValue, keep, kept, type Section, type Stray } from '../carried.js';
import { readHollow, type Shape, writeHollow } from '../frame.js';
import { type Messages, ownString } from '../messages.js';
import { decodeMetadata, decodeType } from '../metadata.js';
import { type Leftover, leftoverOfKept, readerOf, restore } from './residue.js';

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
    const infos = kept<KeptValue>(value.carried)?.infos ?? [];
    for (const info of [...infos].reverse()) {
      if (info.graph !== this.graph) continue;
      const notes = sections.get(info.section) ?? [];
      notes.push({ message: info.message, shape: info.shape, isFirst: info === infos[0] });
      sections.set(info.section, notes);
    }
    return sections;
  }
}

/** What one ValueInfoProto says beyond `said`. */
export function infoLeftover({ message, shape }: InfoNote, said: Messages['ValueInfoProto']): Leftover | null {
  return leftoverOfKept('ValueInfoProto', { message, shape, ranges: [] }, said);
}

/** The value_info entries for names that nobody defines, with their index among all entries. */
export function strayInfos(graph: Graph): { readonly index: number; readonly info: InfoNote }[] {
  // As the encoder: a repetition goes when what it repeats has changed.
  const isStale = ({ repeats }: Stray) => repeats && (!graph.valueInfo.has(repeats) || !repeats.carried);
  const strays = (kept<KeptGraph>(graph.carried)?.strays ?? []).filter((stray) => !isStale(stray));
  return strays.map(({ index, rope }) => {
    const bytes = rope.chunks[0] instanceof Uint8Array ? rope.chunks[0] : new Uint8Array(0);
    const { message, shape } = readHollow(readerOf(bytes), 'ValueInfoProto', 0, bytes.length);
    return { index, info: { message, shape, isFirst: false } };
  });
}

/** A value_info entry for a name that nobody defines, or a further one for the value `repeats`. */
export function strayOf(
  index: number,
  repeats: Value | null,
  said: Messages['ValueInfoProto'],
  leftover: Leftover | null,
): Stray {
  const { message, shape } = restore('ValueInfoProto', said, leftover);
  return { index, repeats, rope: writeHollow('ValueInfoProto', message, [], shape) };
}

/** Remembers one ValueInfoProto of a value, as the reader does. */
export function noteInfo(
  value: Value,
  graph: Graph,
  section: Section,
  said: Messages['ValueInfoProto'],
  leftover: Leftover | null,
): void {
  const info: KeptInfo = { ...restore('ValueInfoProto', said, leftover), graph, section };
  const old = kept<KeptValue>(value.carried);
  if (old) old.infos.push(info);
  else {
    const carried: KeptValue = { infos: [info] };
    value.carried = keep(carried);
    value.docString = ownString(info.message, 'docString');
    value.metadata = decodeMetadata(info.message);
  }
  if (!value.type) value.setTypeInternal(decodeType(info.message.type));
}
