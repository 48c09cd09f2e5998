/** ranks.json: what a folder of rank models holds, and what each rank needs. Written by `shard`, read by `verify`. */
import { join } from 'node:path';
import {
  COLLECTIVES,
  type Collective,
  type CollectiveStyle,
  type CutFact,
  type ShardFacts,
} from '../../passes/index.js';
import { apiErrors } from '../basics/errors.js';
import { readJson } from '../basics/small-file.js';
import { type Chain, checkChain } from './chain-file.js';

/** The file beside the rank models that describes them. */
export const RANKS_FILE = 'ranks.json';

/** One rank's files and bytes. */
export interface RankFiles {
  readonly rank: number;
  /** With external collectives the folder of its segments. */
  readonly model: string;
  /** Data files beside the model; empty where the weights are inside. */
  readonly data: readonly string[];
  /** Of external collectives: every file of the rank, so that those of two runs are not mixed. */
  readonly sums?: readonly FileSum[];
  readonly weights: RankBytes;
}

/** A file, and what is in it. */
export interface FileSum {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** Bytes of the weights of a rank. */
export interface RankBytes {
  /** Of shares: no other rank, or only some, have them. */
  readonly sharded: number;
  /** Of what every rank has. */
  readonly replicated: number;
  /** Zeros that fill up what does not divide; among the shares. */
  readonly padding: number;
}

/** The content of ranks.json. */
export interface RanksFile {
  readonly kind: 'onnx-fuse ranks';
  readonly version: 1;
  readonly onnx_fuse: { readonly version: string; readonly files: readonly string[] };
  readonly original: { readonly file: string; readonly weightBytes: number };
  readonly ranks: number;
  readonly style: CollectiveStyle;
  readonly rankFiles: readonly RankFiles[];
  /** Graph inputs and outputs that hold a rank's share: all heads, a rank's heads, and how many different shares. */
  readonly caches: ShardFacts['caches'];
  /** In the order in which every rank comes to them. */
  readonly collectives: readonly Collective[];
  readonly branches: readonly CutFact[];
  readonly cutsVocabulary: boolean;
  /** Why not. */
  readonly vocabularyReason: string | null;
  /** How a rank runs, with external collectives: the files are the segments of its model. */
  readonly chain?: Chain;
}

/** Name of a rank's model, as onnxruntime's tensor-parallel examples have it. */
export function rankModelName(rank: number): string {
  return `rank_${rank}_model.onnx`;
}

/** The path of ranks.json in a folder. */
export function ranksFileIn(folder: string): string {
  return join(folder, RANKS_FILE);
}

/** Reads ranks.json; what is acted upon is checked field by field. @throws Diagnostic OF_NO_SUCH_FILE, OF_READ, OF_RANKS. */
export function readRanks(folder: string): RanksFile {
  const path = ranksFileIn(folder);
  const value = readJson(path, (place, why) => apiErrors.ranks(place, why));
  const wrong = (field: string, found: unknown, expected: string): never => {
    throw apiErrors.ranks(
      path,
      `${field} is ${(JSON.stringify(found) ?? 'absent').slice(0, 60)}, expected ${expected}`,
    );
  };
  const object = (found: unknown, field: string): Record<string, unknown> =>
    typeof found === 'object' && found !== null ? (found as Record<string, unknown>) : wrong(field, found, 'an object');
  const list = (found: unknown, field: string): unknown[] =>
    Array.isArray(found) ? found : wrong(field, found, 'a list');
  const count = (found: unknown, field: string, least: number): number =>
    Number.isSafeInteger(found) && (found as number) >= least
      ? (found as number)
      : wrong(field, found, `a number from ${least}`);
  const file = object(value, 'the file');
  if (file['kind'] !== 'onnx-fuse ranks') wrong('kind', file['kind'], '"onnx-fuse ranks"');
  if (file['version'] !== 1) wrong('version', file['version'], '1');
  const ranks = count(file['ranks'], 'ranks', 2);
  if (ranks > MOST_RANKS) wrong('ranks', ranks, `at most ${MOST_RANKS}`);
  if (!COLLECTIVES.includes(file['style'] as CollectiveStyle)) wrong('style', file['style'], COLLECTIVES.join(' or '));
  for (const each of list(file['caches'], 'caches')) {
    const cache = object(each, 'caches');
    if (typeof cache['name'] !== 'string') wrong('caches.name', cache['name'], 'a name');
    count(cache['axis'], 'caches.axis', 0);
    const [heads, size] = [count(cache['heads'], 'caches.heads', 1), count(cache['size'], 'caches.size', 1)];
    const pieces = count(cache['pieces'], 'caches.pieces', 1);
    if (size * pieces !== heads || ranks % pieces !== 0) wrong('caches', cache, 'shares that make up all heads');
  }
  if (list(file['rankFiles'], 'rankFiles').length !== ranks) wrong('rankFiles', file['rankFiles'], `${ranks} ranks`);
  if ((file['style'] === 'external') !== (file['chain'] !== undefined)) wrong('chain', file['chain'], 'segments');
  if (file['chain'] !== undefined) checkChain(file['chain'], wrong);
  for (const each of list(file['collectives'], 'collectives')) {
    const { kind, gives, gets, axis } = object(each, 'collectives');
    if (kind !== 'all-reduce' && kind !== 'all-gather') wrong('collectives.kind', kind, 'all-reduce or all-gather');
    if (typeof gives !== 'string') wrong('collectives.gives', gives, 'a name');
    if (typeof gets !== 'string' && gets !== null) wrong('collectives.gets', gets, 'a name or null');
    if (axis !== null) count(axis, 'collectives.axis', 0);
  }
  return value as RanksFile;
}

/** More are in no group that shares one model. */
const MOST_RANKS = 1024;
