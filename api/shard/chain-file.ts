/**
 * The part of `ranks.json` that says how ranks run that were cut at their collectives: which segments follow one another, what
 * they take and give, what is reduced or gathered behind each, and which caches go round. `run_ranks.py` reads it, and `verify`.
 */
import { join } from 'node:path';
import { type Model, openModel } from '../../ir/index.js';
import {
  type InputRole,
  type Meeting,
  type RankChain,
  readSignature,
  type Signature,
  type SizeWord,
  sizeWords,
} from '../../runtime/index.js';
import { runtimeErrors } from '../../runtime/session/errors.js';

/** A segment of a rank, and the collectives that follow it. */
export interface ChainSegment {
  /** In the folder of each rank; null where nothing is computed. */
  readonly file: string | null;
  /** Graph inputs, values of segments before, results of collectives. */
  readonly reads: readonly string[];
  readonly gives: readonly string[];
  readonly meets: readonly Meeting[];
  /** What nobody reads any more behind it. */
  readonly drops: readonly string[];
}

/** A graph input that is no cache: what it is for, and what sizes its dimensions. */
export interface ChainInput {
  readonly name: string;
  readonly role: InputRole;
  /** As numpy calls it. */
  readonly dtype: string;
  readonly dims: readonly (SizeWord | number)[];
}

/** A KV cache of a rank: what comes out as `present` goes in as `past` with the next tokens. */
export interface ChainCache {
  readonly past: string;
  readonly present: string;
  readonly dtype: string;
  /** Of a rank. */
  readonly dims: readonly (SizeWord | number)[];
  /** Whether the operator writes behind the past where both are one buffer, in which there is room. */
  readonly in_place: boolean;
}

/** How a rank runs; the same for all of them. */
export interface Chain {
  readonly inputs: readonly ChainInput[];
  readonly caches: readonly ChainCache[];
  readonly segments: readonly ChainSegment[];
  readonly outputs: readonly string[];
  readonly logits: string;
  /** Null where it is not known. */
  readonly vocabulary: number | null;
  /** A tokenizer in the folder, or `bytes`; null where there is neither, and only ids can be given. */
  readonly text: string | null;
  /** Tokens that end a text. */
  readonly ends: readonly number[];
}

/** The folder of a rank's segments. */
export function rankFolder(rank: number): string {
  return `rank_${rank}`;
}

/** The name of a segment in it. */
export function segmentName(index: number): string {
  return `segment_${String(index).padStart(3, '0')}.onnx`;
}

/** Roles that `run_ranks.py` can fill. */
const FILLED = new Set<InputRole>([
  'tokens',
  'mask',
  'bias',
  'positions',
  'use-cache',
  'past-length',
  'new-length',
  'total-length',
  'last-index',
  'segments',
]);

/** How the rank `model`, cut into `division`, runs. @throws Diagnostic OF_CANNOT_FEED where nobody could run it by token ids. */
export function chainFor(
  model: Model,
  { segments, meetings, outputs }: RankChain,
  { text, ends }: Pick<Chain, 'text' | 'ends'>,
): Chain {
  const signature = readSignature(model);
  const { driver, sequence, logits, vocabulary } = signature;
  if (logits === null) throw runtimeErrors.notComparable('the outputs', 'none of them gives next-token scores');
  if (sequence !== null && driver)
    throw runtimeErrors.cannotFeed(driver.name, `it takes ${sequence} tokens at a time, generation takes any number`);
  const inputs = signature.inputs
    .filter(({ role }) => role !== 'cache')
    .map((input): ChainInput => {
      const { name, role, dtype } = input;
      if (!FILLED.has(role)) throw runtimeErrors.cannotFeed(name, `a runner has token ids, and this is '${role}'`);
      return { name, role, dtype: numpyType(name, dtype), dims: sizeWords(signature, input) };
    });
  const caches = cachesOf(model, signature);
  const known = new Set([...inputs.map(({ name }) => name), ...caches.map(({ past }) => past)]);
  const kept = new Set([logits, ...caches.map(({ present }) => present)]);
  const steps = segments.map(({ inputs: given, carried, outputs: gives }, k): ChainSegment => {
    const meets = meetings[k] ?? [];
    for (const name of [...gives, ...meets.map(({ gets }) => gets as string)]) known.add(name);
    const later = new Set(segments.slice(k + 1).flatMap((each) => [...each.inputs, ...each.carried]));
    const drops = [...known].filter((name) => !later.has(name) && !kept.has(name));
    for (const name of drops) known.delete(name);
    return { file: gives.length === 0 ? null : segmentName(k), reads: [...given, ...carried], gives, meets, drops };
  });
  return { inputs, caches, segments: steps, outputs, logits, vocabulary, text, ends };
}

/** Types that numpy has, and what it calls them where that is not ONNX's name. */
const NUMPY: ReadonlyMap<string, string> = new Map([
  ['float', 'float32'],
  ['double', 'float64'],
  ...['float16', 'bool', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64'].map(
    (name) => [name, name] as const,
  ),
]);

function numpyType(name: string, dtype: string): string {
  const found = NUMPY.get(dtype);
  if (found === undefined) throw runtimeErrors.cannotFeed(name, `numpy has no ${dtype}`);
  return found;
}

function cachesOf({ graph }: Model, { inputs, caches }: Signature): ChainCache[] {
  return caches.map((port): ChainCache => {
    const { input, output, batchAxis, sequenceAxis, capacity, fixedPast } = port;
    if (output === null || fixedPast !== null)
      throw runtimeErrors.cannotFeed(input, 'no run of the model continues this cache');
    const dims = port.dims.map((dim, axis) => {
      if (axis === batchAxis) return dim ?? 'batch';
      if (axis === sequenceAxis) return capacity ?? 'past';
      if (dim !== null) return dim;
      throw runtimeErrors.cannotFeed(input, `nothing tells the size of its dimension ${axis}`);
    });
    const { dtype } = inputs.find(({ name }) => name === input) as Signature['inputs'][number];
    const reader = graph.value(input)?.uses[0]?.node;
    const isInPlace =
      reader?.op === 'com.microsoft.GroupQueryAttention' && reader.outputs.some((value) => value?.name === output);
    const in_place = isInPlace && capacity === null;
    return { past: input, present: output, dtype: numpyType(input, dtype), dims, in_place };
  });
}

/** The chain of a rank in `folder`, as the simulator runs it. */
export function chainIn(folder: string, rank: number, chain: Chain): RankChain {
  const fed = new Set([...chain.inputs.map(({ name }) => name), ...chain.caches.map(({ past }) => past)]);
  return {
    place: join(folder, rankFolder(rank)),
    segments: chain.segments.map(({ reads, gives }) => ({
      inputs: reads.filter((name) => fed.has(name)),
      carried: reads.filter((name) => !fed.has(name)),
      outputs: gives,
    })),
    meetings: chain.segments.slice(0, -1).map(({ meets }) => meets),
    outputs: chain.outputs,
    caches: chain.caches.map(({ present }) => present),
    open: (index) => openModel(join(folder, rankFolder(rank), segmentName(index))),
  };
}

/** Checks what a `chain` says, of which everything is acted upon; `wrong` throws. */
export function checkChain(value: unknown, wrong: (field: string, found: unknown, expected: string) => never): void {
  const object = (found: unknown, field: string): Record<string, unknown> =>
    typeof found === 'object' && found !== null ? (found as Record<string, unknown>) : wrong(field, found, 'an object');
  const list = (found: unknown, field: string): unknown[] =>
    Array.isArray(found) ? found : wrong(field, found, 'a list');
  const names = (found: unknown, field: string): void => {
    for (const name of list(found, field)) if (typeof name !== 'string') wrong(field, name, 'a name');
  };
  const chain = object(value, 'chain');
  for (const [i, each] of list(chain['segments'], 'chain.segments').entries()) {
    const { file, reads, gives, meets } = object(each, 'chain.segments');
    if (file !== null && file !== segmentName(i)) wrong('chain.segments.file', file, `${segmentName(i)} or null`);
    names(reads, 'chain.segments.reads');
    names(gives, 'chain.segments.gives');
    for (const meeting of list(meets, 'chain.segments.meets')) {
      const { kind, axis, gives: given, gets } = object(meeting, 'chain.segments.meets');
      if (kind !== 'all-reduce' && kind !== 'all-gather') wrong('meets.kind', kind, 'all-reduce or all-gather');
      if (!Number.isSafeInteger(axis)) wrong('meets.axis', axis, 'a number');
      names([given, gets], 'meets.gives and meets.gets');
    }
  }
  for (const each of list(chain['inputs'], 'chain.inputs'))
    names([object(each, 'chain.inputs')['name']], 'inputs.name');
  for (const each of list(chain['caches'], 'chain.caches')) {
    const { past, present } = object(each, 'chain.caches');
    names([past, present], 'chain.caches');
  }
  names(chain['outputs'], 'chain.outputs');
}
