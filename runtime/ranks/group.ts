/**
 * A tensor-parallel group without its GPUs: the ranks' graphs are cut at their collectives, the segments of all ranks run in
 * step with onnxruntime on the CPU, and between them the results are summed and gathered here. To the outside it is a
 * session of the whole model: it takes whole KV caches and gives whole ones.
 */
import { referenceOf } from '../../ir/disk/model.js';
import { pieceOf, type ShardFacts } from '../../passes/index.js';
import { runtimeErrors } from '../session/errors.js';
import { weightBytes } from '../session/memory.js';
import { type OptimizationLevel, openSession, type Session, type SessionOptions } from '../session/session.js';
import { fillTensor, type HostTensor, joinAlong, rangeAlong, type TensorMap, toFloat32 } from '../session/tensor.js';
import type { Meeting, RankChain } from './segments.js';

/** What is known of a group beside its models. */
export interface GroupFacts {
  readonly caches: ShardFacts['caches'];
}

/** What runs like a session of the whole model. */
export interface GroupSession {
  readonly optimizationLevel: OptimizationLevel;
  run(feeds: TensorMap): Promise<Map<string, HostTensor>>;
  release(): Promise<void>;
}

/** Opens the segments of all ranks. @throws Diagnostic OF_RUNTIME, OF_NOT_COMPARABLE where ranks do not meet. */
export async function openGroup(
  chains: readonly RankChain[],
  facts: GroupFacts,
  options: SessionOptions,
): Promise<GroupSession> {
  checkMeetings(chains);
  // Null where nothing is computed, as behind the last gather.
  const sessions: (Session | null)[][] = chains.map(() => []);
  const release = async (): Promise<void> => {
    for (const session of sessions.flat()) await session?.release();
  };
  try {
    for (const [r, chain] of chains.entries()) {
      for (const [k, { outputs }] of chain.segments.entries()) {
        const model = outputs.length === 0 ? null : chain.open(k);
        const bytes = model && weightBytes(model);
        sessions[r]?.push(model && (await openSession(referenceOf(model), { ...options, weightBytes: bytes ?? 0 })));
      }
    }
  } catch (error) {
    await release();
    throw error;
  }
  const levels = sessions.flat().flatMap((session) => session?.optimizationLevel ?? []);
  const optimizationLevel = levels.find((level) => level !== 'disabled') ?? 'disabled';
  return { optimizationLevel, release, run: (feeds) => runGroup(sessions, chains, facts, feeds) };
}

/** All ranks must come to the same collectives in the same order, or a real group would wait for ever. */
function checkMeetings(chains: readonly RankChain[]): void {
  const text = ({ meetings }: RankChain): string =>
    meetings.map((list) => list.map(({ kind, axis }) => `${kind} ${axis}`).join()).join(';');
  for (const chain of chains) {
    if (text(chain) === text(chains[0] as RankChain)) continue;
    throw runtimeErrors.notComparable(chain.place, 'its collectives are not those of rank 0');
  }
}

async function runGroup(
  sessions: readonly (readonly (Session | null)[])[],
  chains: readonly RankChain[],
  { caches }: GroupFacts,
  feeds: TensorMap,
): Promise<Map<string, HostTensor>> {
  const ranks = chains.length;
  const cacheOf = new Map(caches.map((cache) => [cache.name, cache]));
  const known = chains.map((_, rank) => {
    const own = new Map<string, HostTensor>();
    for (const [name, tensor] of feeds) {
      const cache = cacheOf.get(name);
      const start = cache ? pieceOf(cache, { rank, ranks }) * cache.size : 0;
      own.set(name, cache ? rangeAlong(tensor, cache.axis, start, start + cache.size) : tensor);
    }
    return own;
  });
  const whole = new Map<string, HostTensor>();
  for (const [k, meetings] of [...(chains[0]?.meetings ?? []), []].entries()) {
    for (const [r, values] of known.entries()) {
      const session = sessions[r]?.[k];
      const chain = chains[r] as RankChain;
      if (!session) continue;
      const { inputs, carried } = chain.segments[k] as RankChain['segments'][number];
      const given = new Map([...inputs, ...carried].map((name) => [name, heldBy(values, name, chain)] as const));
      for (const [name, tensor] of await session.run(given)) values.set(name, tensor);
    }
    for (const [i, meeting] of meetings.entries()) {
      const tensors = known.map((values, r) => {
        const own = chains[r]?.meetings[k]?.[i] as Meeting;
        return heldBy(values, own.gives, chains[r] as RankChain);
      });
      const result = meeting.kind === 'all-reduce' ? sumOf(tensors) : joinAlong(tensors, meeting.axis);
      if (meeting.gets === null) whole.set(meeting.gives, result);
      for (const [r, values] of known.entries()) {
        const own = chains[r]?.meetings[k]?.[i]?.gets;
        if (own) values.set(own, result);
      }
    }
  }
  return collected(chains, known, whole, cacheOf);
}

function heldBy(values: TensorMap, name: string, { place }: RankChain): HostTensor {
  const found = values.get(name);
  if (!found) throw runtimeErrors.notComparable(name, `nothing gives it to ${place}`);
  return found;
}

/** What the group gives: caches put together, and everything else as all ranks have it. */
function collected(
  chains: readonly RankChain[],
  known: readonly TensorMap[],
  whole: ReadonlyMap<string, HostTensor>,
  caches: ReadonlyMap<string, ShardFacts['caches'][number]>,
): Map<string, HostTensor> {
  const results = new Map<string, HostTensor>();
  const [chain] = chains as [RankChain];
  const unchecked = new Set(chain.caches);
  for (const name of chain.outputs) {
    const result = whole.get(name);
    const cache = caches.get(name);
    if (result) results.set(name, result);
    else if (cache) {
      const each = chains.length / cache.pieces;
      const pieces = Array.from({ length: cache.pieces }, (_, i) => heldBy(known[i * each] as TensorMap, name, chain));
      results.set(name, joinAlong(pieces, cache.axis));
    } else {
      const own = known.map((values, r) => heldBy(values, name, chains[r] as RankChain));
      if (!unchecked.has(name)) checkEqual(name, own);
      results.set(name, own[0] as HostTensor);
    }
  }
  return results;
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
