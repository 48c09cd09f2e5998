/**
 * Renumbers the caches of the layers that are left, so that runtimes which count layers from 0 find them:
 *
 *     past_key_values.0.key, past_key_values.3.key     becomes     past_key_values.0.key, past_key_values.1.key
 *
 * Each file keeps its own form of name; inputs and the outputs that continue them get the same number. Nothing but names
 * changes.
 */

import type { Graph, Value } from '../../ir/core.js';
import { counted } from '../../ir/visible.js';
import { nestedGraphs } from '../../ir/walk.js';
import { type CacheName, cacheNames } from '../analysis/layers/cache-names.js';
import { factsAs } from '../framework/facts.js';
import { choiceOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';

/** A graph input or output that has another name now. */
export interface RenamedCache {
  readonly from: string;
  readonly to: string;
}

export const renameKv = definePass({
  id: 'rename-kv',
  summary: 'renumber the KV-cache inputs and outputs of the layers that are left to 0..n-1',
  effect: 'exact',
  options: { naming: choiceOption('numbers of the caches', ['preserve', 'compact'], 'preserve') },
  statistics: { renamed: 'inputs and outputs renamed' },
  facts: factsAs<RenamedCache>({
    describe: (renamed) => (renamed.length > 0 ? [`${counted(renamed.length, 'cache')} renumbered`] : []),
  }),
  run({ graph, options, blocks, passed, missed, count, fact }) {
    if (options.naming === 'preserve') return;
    const { inputs, outputs, unnumbered } = cacheNames(graph, blocks().layers);
    const [first] = unnumbered;
    if (first && inputs.length === 0) missed(`the caches keep their names: '${first.name}' carries no layer number`);
    const numbers = [...new Set(inputs.map(({ number }) => number))].sort((a, b) => a - b);
    const compact = new Map(numbers.map((number, i) => [number, i]));
    if (numbers.every((number) => compact.get(number) === number)) return;
    // Outputs that are numbered in another way (val_1234) have names that mean nothing.
    const isPaired = outputs.every(({ number }) => compact.has(number));
    if (!isPaired) missed('the cache outputs keep their names: their numbers are not those of the inputs');
    const names = new Map<Value, string>();
    for (const cache of isPaired ? [...inputs, ...outputs] : inputs) {
      const name = renumbered(cache, compact);
      if (name !== cache.value.name) names.set(cache.value, name);
    }
    const taken = namesIn(graph, names);
    const clash = [...names.values()].find((name) => taken.has(name));
    if (clash !== undefined) {
      missed(`the caches keep their names: something else is called '${clash}'`);
      return;
    }
    for (const [value, to] of names) fact({ from: value.name, to });
    graph.renameValues(names);
    count('renamed', names.size);
    const range = numbers.length === 1 ? 'number 0' : `numbers 0 to ${numbers.length - 1}`;
    passed(`the caches of layer${numbers.length === 1 ? '' : 's'} ${numbers.join(', ')} have the ${range} now`);
  },
});

/** Names of all values in the graph, and in those inside it, that keep theirs. */
function namesIn(graph: Graph, changing: ReadonlyMap<Value, string>): Set<string> {
  const names = new Set<string>();
  for (const inner of nestedGraphs(graph)) {
    for (const value of inner.values) if (!changing.has(value)) names.add(value.name);
  }
  return names;
}

function renumbered({ prefix, number, suffix }: CacheName, compact: ReadonlyMap<number, number>): string {
  return `${prefix}${compact.get(number)}${suffix}`;
}
