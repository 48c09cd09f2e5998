/** The ranks of a model, evaluated in step, against the whole. */
import { openModelBytes, referenceBytes } from '../../../ir/disk/model.js';
import { factsOf, parsePipeline, registry, runPipeline, shardTensorParallel } from '../../../passes/index.js';
import { evaluateRanks, loadProgram, type Values } from '../evaluate.js';
import { Wrong } from '../failure.js';
import { joined, rangeOf } from '../operators/shapes.js';
import type { Tensor } from '../operators/tensor.js';
import { compare, REORDERED } from './compare.js';
import { type ShardRequest, shardPipeline } from './request.js';

/** Throws Wrong where the ranks together do not give what the whole gives, or not the same each. */
export function checkRanks(
  shard: ShardRequest,
  bytes: Uint8Array,
  feeds: Values,
  whole: Values,
): { branches: number; worst: number } {
  const made = Array.from({ length: shard.ranks }, (_, rank) => {
    const model = openModelBytes(bytes, '.');
    const result = runPipeline(model, parsePipeline(shardPipeline(shard, rank), registry));
    const [facts] = factsOf(result, shardTensorParallel);
    return { program: loadProgram(referenceBytes(model, '.')), facts };
  });
  const facts = made[0]?.facts;
  if (!facts) return { branches: 0, worst: 0 };
  const caches = new Map(facts.caches.map((cache) => [cache.name, cache]));
  const shares = made.map((_, rank) => {
    const own = new Map(feeds);
    for (const { name, axis, size, pieces } of caches.values()) {
      const cache = feeds.get(name);
      const start = Math.floor((rank * pieces) / shard.ranks) * size;
      if (cache) own.set(name, rangeOf(cache, axis, start, start + size));
    }
    return own;
  });
  const borders = made.map(({ facts: own }) => (shard.style === 'none' ? (own?.collectives ?? []) : []));
  const results = evaluateRanks(
    made.map(({ program }) => program),
    shares,
    borders,
  );
  const given = new Set(borders.flatMap((list) => list.flatMap(({ gives, gets }) => (gets === null ? [] : [gives]))));
  const together = new Map<string, Tensor>();
  for (const name of whole.keys()) {
    const cache = caches.get(name);
    const own = results.map((each) => each.get(name));
    if (own.some((value) => !value)) continue;
    const step = cache ? shard.ranks / cache.pieces : 1;
    if (cache) together.set(name, joined(own.filter((_, r) => r % step === 0) as Tensor[], cache.axis));
    else for (const value of own) together.set(name, equal(name, value as Tensor, own[0] as Tensor));
  }
  for (const name of results[0]?.keys() ?? []) {
    if (!whole.has(name) && !given.has(name)) throw new Wrong('ranks', `an output '${name}' that the whole has not`);
  }
  return {
    branches: facts.branches.filter(({ reason }) => reason === null).length,
    worst: compare(together, whole, REORDERED, 'ranks', 'the whole model'),
  };
}

function equal(name: string, value: Tensor, first: Tensor): Tensor {
  if (value.data.some((x, i) => x !== first.data[i]))
    throw new Wrong('ranks', `'${name}' is not the same on all ranks`);
  return value;
}
