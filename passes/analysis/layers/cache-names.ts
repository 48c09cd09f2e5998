/**
 * What the names of caches say: `past_key_values.7.key`, `past_7`, `key_cache.7`, `past_key_values_key_cache_7`,
 * `past_key_values_7_0`... Which number in them tells the layer, what they hold, which present continues which past.
 */
import type { Graph, Value } from '../../../ir/core.js';
import type { Layer } from './layer.js';

/** A name taken apart at the number that tells the layer. */
export interface CacheName {
  readonly value: Value;
  readonly prefix: string;
  readonly number: number;
  readonly suffix: string;
}

/** The KV caches of a graph, by name and number. */
export interface CacheNames {
  readonly inputs: readonly CacheName[];
  readonly outputs: readonly CacheName[];
  /** Caches of recognised attentions that carry no number. */
  readonly unnumbered: readonly Value[];
}

const CACHE_WORD = /past|present|cache|(?:^|[^a-z])kv(?:[^a-z]|$)|(?:conv|ssm|recurrent)_?state/i;

/**
 * The caches of `graph`: what the attentions of `layers` read and write, and inputs and outputs that are named like
 * caches (of layers that were not recognised, of convolutions).
 */
export function cacheNames(graph: Graph, layers: readonly Layer[]): CacheNames {
  const owner = new Map<Value, number>();
  for (const { attention, index } of layers) {
    for (const value of attention?.attention.kvInputs ?? []) owner.set(value, index);
    for (const value of attention?.attention.kvOutputs ?? []) owner.set(value, index);
  }
  const isCache = (value: Value): boolean => owner.has(value) || (CACHE_WORD.test(value.name) && isState(value));
  const inputs = graph.inputs.filter((value) => !value.initializer && isCache(value));
  const outputs = graph.outputs.filter(isCache);
  const all = [...inputs, ...outputs];
  return {
    inputs: split(inputs, owner),
    outputs: split(outputs, owner),
    unnumbered: all.filter((value) => owner.has(value) && !/\d/.test(value.name)),
  };
}

/** Caches are data of rank 3 or more; masks, positions and lengths are integers of rank 2 at most. */
function isState({ type }: Value): boolean {
  if (type?.kind !== 'tensor' || ['int64', 'int32', 'bool', 'string'].includes(type.dtype)) return false;
  return type.shape === null || type.shape.length >= 3;
}

function split(values: readonly Value[], owner: ReadonlyMap<Value, number>): CacheName[] {
  const families = new Map<string, Value[]>();
  for (const value of values) {
    if (!/\d/.test(value.name)) continue;
    const family = value.name.replace(/\d+/g, '#');
    families.set(family, [...(families.get(family) ?? []), value]);
  }
  const found = new Map<Value, CacheName>();
  for (const family of families.values()) {
    const place = layerPlace(family, owner);
    for (const value of family) {
      const match = [...value.name.matchAll(/\d+/g)][place] as RegExpExecArray;
      const end = match.index + match[0].length;
      found.set(value, {
        value,
        prefix: value.name.slice(0, match.index),
        number: Number(match[0]),
        suffix: value.name.slice(end),
      });
    }
  }
  return values.flatMap((value) => found.get(value) ?? []);
}

/** Which of the numbers in names of one form is the layer's: the one that equals it, else the first that varies. */
function layerPlace(family: readonly Value[], owner: ReadonlyMap<Value, number>): number {
  const numbers = family.map(({ name }) => [...name.matchAll(/\d+/g)].map((match) => Number(match[0])));
  const places = (numbers[0] ?? []).map((_, place) => place);
  const owned = family.flatMap((value, i) => (owner.has(value) ? [[owner.get(value), numbers[i]] as const] : []));
  const equal = places.find((place) => owned.length > 0 && owned.every(([layer, own]) => own?.[place] === layer));
  const varying = places.find((place) => new Set(numbers.map((own) => own[place])).size > 1);
  return equal ?? varying ?? 0;
}

/** What a cache holds; `both` is keys and values stacked, `state` anything recurrent that does not grow. */
export type CachePart = 'key' | 'value' | 'both' | 'state';

/** True for names of what goes in; lengths and masks of a past are none. */
export function isNamedPast(name: string): boolean {
  return /past|cache/i.test(name) && !/(mask|length|len|ids)$/i.test(name);
}

/** What caches of one layer have in common in their names: the first number, or the whole name. */
export function layerNamed(name: string): string {
  return /\d+/.exec(name)?.[0] ?? name;
}

/** What the name of a cache says that it holds; null when it does not say. */
export function partNamed(name: string): CachePart | null {
  if (/(conv|ssm|recurrent|state)/i.test(name) && !/key|value/i.test(name)) return 'state';
  // The last mention decides: `past_key_values.0.value` holds values.
  const words = name.toLowerCase().match(/key(?!_?values?)|value(?!s)|(?<=[._])[kv](?=$|[._])/g);
  const last = words?.[words.length - 1];
  if (!last) return null;
  return last.startsWith('k') ? 'key' : 'value';
}

/** Equal for a past and the present that continues it: `past_key_values.3.key`, `present.3.key`. */
export function portKey(name: string): string {
  return name
    .toLowerCase()
    .replace(
      /past_key_values|past_key_value|past_kv|past|present_key_values|present_kv|present|updated_|new_|_out$|_in$/g,
      '',
    )
    .replace(/[^a-z0-9]+/g, '.')
    .replace(/^\.|\.$/g, '');
}
