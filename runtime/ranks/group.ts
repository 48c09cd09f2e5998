/**
 * A tensor-parallel group without its GPUs: the ranks' graphs are cut at their collectives, the segments of all ranks run in
 * step with onnxruntime on the CPU, and between them the results are summed and gathered here. To the outside it is a
 * session of the whole model: it takes whole KV caches and gives whole ones.
 */
import type { Model } from '../../ir/core.js';
import { referenceOf } from '../../ir/disk/model.js';
import type { DataType } from '../../ir/type.js';
import { type Collective, pieceOf, type ShardFacts } from '../../passes/index.js';
import { runtimeErrors } from '../session/errors.js';
import { weightBytes } from '../session/memory.js';
import { type OptimizationLevel, openSession, type Session, type SessionOptions } from '../session/session.js';
import { fillTensor, type HostTensor, joinAlong, rangeAlong, type TensorMap, toFloat32 } from '../session/tensor.js';
import { readSignature, type Signature } from '../signature/signature.js';
import { cutAtCollectives, cutSegment, type Meeting, type RankSegments } from './segments.js';

/** What is known of a group beside its models. */
export interface GroupFacts {
  readonly ranks: number;
  readonly caches: ShardFacts['caches'];
  /** Collectives that are no nodes: between a graph output and a graph input. */
  readonly borders: readonly Collective[];
}

/** A rank's model: read anew for each segment, which takes it apart. */
export interface RankSource {
  readonly open: () => Model;
  readonly place: string;
}

interface OpenSegment {
  /** Null where nothing is computed, as behind the last gather. */
  readonly session: Session | null;
  /** Names of carried values in the segment. */
  readonly names: ReadonlyMap<string, string>;
}

/** What runs like a session of the whole model. */
export interface GroupSession {
  readonly optimizationLevel: OptimizationLevel;
  run(feeds: TensorMap): Promise<Map<string, HostTensor>>;
  release(): Promise<void>;
}

/** Opens the segments of all ranks. @throws Diagnostic OF_RUNTIME, OF_NOT_COMPARABLE where ranks do not meet. */
export async function openGroup(
  sources: readonly RankSource[],
  facts: GroupFacts,
  options: SessionOptions,
): Promise<GroupSession> {
  const divisions = sources.map(({ open }) => cutAtCollectives(open(), facts.borders));
  checkMeetings(divisions, sources);
  const [division] = divisions as [RankSegments];
  const ranks: OpenSegment[][] = sources.map(() => []);
  const release = async (): Promise<void> => {
    for (const { session } of ranks.flat()) await session?.release();
  };
  try {
    for (const [r, { open }] of sources.entries()) {
      const types = new Map<string, DataType>();
      for (const [k, segment] of (divisions[r] as RankSegments).segments.entries()) {
        if (segment.outputs.length === 0) {
          ranks[r]?.push({ session: null, names: new Map() });
          continue;
        }
        const model = open();
        const names = cutSegment(model, segment, types);
        const session = await openSession(referenceOf(model), { ...options, weightBytes: weightBytes(model) });
        ranks[r]?.push({ session, names });
        for (const { name, dtype } of session.outputs) types.set(name, dtype);
        for (const { gives, gets } of division.meetings[k] ?? []) {
          const dtype = types.get(gives);
          if (gets !== null && dtype !== undefined) types.set(gets, dtype);
        }
      }
    }
  } catch (error) {
    await release();
    throw error;
  }
  const signature = readSignature((sources[0] as RankSource).open());
  const levels = ranks.flat().flatMap(({ session }) => session?.optimizationLevel ?? []);
  const optimizationLevel = levels.find((level) => level !== 'disabled') ?? 'disabled';
  return {
    optimizationLevel,
    release,
    run: (feeds) => runGroup(ranks, divisions, sources, facts, signature, feeds),
  };
}

/** All ranks must come to the same collectives in the same order, or a real group would wait for ever. */
function checkMeetings(divisions: readonly RankSegments[], sources: readonly RankSource[]): void {
  const text = ({ meetings }: RankSegments): string =>
    meetings.map((list) => list.map(({ kind, axis }) => `${kind} ${axis}`).join()).join(';');
  for (const [r, division] of divisions.entries()) {
    if (text(division) === text(divisions[0] as RankSegments)) continue;
    throw runtimeErrors.notComparable(sources[r]?.place ?? '', 'its collectives are not those of rank 0');
  }
}

async function runGroup(
  ranks: readonly (readonly OpenSegment[])[],
  divisions: readonly RankSegments[],
  sources: readonly RankSource[],
  { caches, ranks: count, borders }: GroupFacts,
  signature: Signature,
  feeds: TensorMap,
): Promise<Map<string, HostTensor>> {
  const cacheOf = new Map(caches.map((cache) => [cache.name, cache]));
  const known = ranks.map((_, rank) => {
    const own = new Map<string, HostTensor>();
    for (const [name, tensor] of feeds) {
      const cache = cacheOf.get(name);
      const start = cache ? pieceOf(cache, { rank, ranks: count }) * cache.size : 0;
      own.set(name, cache ? rangeAlong(tensor, cache.axis, start, start + cache.size) : tensor);
    }
    return own;
  });
  const whole = new Map<string, HostTensor>();
  for (const [k, meetings] of [...(divisions[0]?.meetings ?? []), []].entries()) {
    for (const [r, values] of known.entries()) {
      const open = ranks[r]?.[k];
      const segment = divisions[r]?.segments[k];
      if (!open?.session || !segment) continue;
      const { session, names } = open;
      const given = new Map<string, HostTensor>();
      for (const name of segment.inputs) given.set(name, heldBy(values, name, sources[r] as RankSource));
      for (const name of segment.carried) {
        given.set(names.get(name) as string, heldBy(values, name, sources[r] as RankSource));
      }
      for (const [name, tensor] of await session.run(given)) values.set(name, tensor);
    }
    for (const [i, meeting] of meetings.entries()) {
      const tensors = known.map((values, r) => {
        const own = divisions[r]?.meetings[k]?.[i] as Meeting;
        return heldBy(values, own.gives, sources[r] as RankSource);
      });
      const result = meeting.kind === 'all-reduce' ? sumOf(tensors) : joinAlong(tensors, meeting.axis);
      if (meeting.gets === null) whole.set(meeting.gives, result);
      for (const [r, values] of known.entries()) {
        const own = divisions[r]?.meetings[k]?.[i]?.gets;
        if (own) values.set(own, result);
      }
    }
  }
  const partial = new Set(borders.flatMap(({ gives, gets }) => (gets === null ? [] : [gives])));
  const names = signature.outputs.map(({ name }) => name).filter((name) => !partial.has(name));
  // Caches of a fixed size hold anything behind what was written.
  const unchecked = new Set(signature.caches.map(({ output }) => output ?? ''));
  return collected(names, unchecked, known, whole, cacheOf, count, sources);
}

function heldBy(values: TensorMap, name: string, { place }: RankSource): HostTensor {
  const found = values.get(name);
  if (!found) throw runtimeErrors.notComparable(name, `nothing gives it to ${place}`);
  return found;
}

/** What the group gives: caches put together, and everything else as all ranks have it. */
function collected(
  names: readonly string[],
  unchecked: ReadonlySet<string>,
  known: readonly TensorMap[],
  whole: ReadonlyMap<string, HostTensor>,
  caches: ReadonlyMap<string, ShardFacts['caches'][number]>,
  ranks: number,
  sources: readonly RankSource[],
): Map<string, HostTensor> {
  const outputs = new Map<string, HostTensor>();
  const [source] = sources as [RankSource];
  for (const name of names) {
    const result = whole.get(name);
    const cache = caches.get(name);
    if (result) outputs.set(name, result);
    else if (cache) {
      const each = ranks / cache.pieces;
      const pieces = Array.from({ length: cache.pieces }, (_, i) => heldBy(known[i * each] as TensorMap, name, source));
      outputs.set(name, joinAlong(pieces, cache.axis));
    } else {
      const own = known.map((values, r) => heldBy(values, name, sources[r] as RankSource));
      if (!unchecked.has(name)) checkEqual(name, own);
      outputs.set(name, own[0] as HostTensor);
    }
  }
  return outputs;
}

/** What is replicated must be the same on all ranks, to the bit. */
function checkEqual(name: string, tensors: readonly HostTensor[]): void {
  const bytes = ({ data }: HostTensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const first = bytes(tensors[0] as HostTensor);
  for (const [r, tensor] of tensors.entries()) {
    if (first.equals(bytes(tensor))) continue;
    throw runtimeErrors.notComparable(name, `rank ${r} has another value than rank 0, but it is not cut`);
  }
}

/** The sum over the ranks: added up in double precision, rounded once. */
function sumOf(tensors: readonly HostTensor[]): HostTensor {
  const [first] = tensors as [HostTensor];
  const sums = new Float64Array(first.data.length);
  for (const tensor of tensors) {
    const values = tensor.dtype === 'double' ? (tensor.data as Float64Array) : toFloat32(tensor);
    for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] as number) + (values[i] as number);
  }
  return fillTensor(first.dtype, first.dims, (i) => sums[i] as number);
}
