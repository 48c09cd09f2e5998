import * as assert from 'uvu/assert';
import { type Model, openModel, type Value } from '../../../ir/index.js';
import { factsOf, parsePipeline, registry, renameKv, runPipeline } from '../../../passes/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { assertSameFunction, renamedBy } from './renamed-caches.js';

const naming = suite('rename-kv');
const LEFT = [0, 3, 4, 5, 6, 7, 8, 9, 10, 11];

type Scheme = (side: 'past' | 'present', layer: number, part: 'key' | 'value') => string;

/** How exporters call caches. */
const SCHEMES: Readonly<Record<string, Scheme>> = {
  'past_key_values.7.key': (side, layer, part) => `${side === 'past' ? 'past_key_values' : side}.${layer}.${part}`,
  key_cache_7: (side, layer, part) => `${side}_key_values_${part}_cache_${layer}`,
  'updated_key_cache.7': (side, layer, part) => `${side === 'past' ? '' : 'updated_'}${part}_cache.${layer}`,
  past_key_values_7_0: (side, layer, part) => `${side}_key_values_${layer}_${part === 'key' ? 0 : 1}`,
  'one number for each tensor': (side, layer, part) => `${side}_${2 * layer + (part === 'key' ? 0 : 1)}`,
  'a number before the layer': (side, layer, part) => `v2.kv.${side}.${layer}.${part}`,
};

/** Our own model, its caches called by a scheme. */
function called(scheme: Scheme): Model {
  const model = openModel(TALES12);
  const names = new Map<Value, string>();
  for (const value of [...model.graph.inputs, ...model.graph.outputs]) {
    const match = /^(past|present)(?:_key_values)?\.(\d+)\.(key|value)$/.exec(value.name);
    const [, side, layer, part] = match ?? [];
    if (match) names.set(value, scheme(side as 'past', Number(layer), part as 'key'));
  }
  assert.is(names.size, 48);
  model.graph.renameValues(names);
  return model;
}

const portsOf = ({ graph }: Model): string[] => [...graph.inputs, ...graph.outputs].map((value) => value.name);

for (const [name, scheme] of Object.entries(SCHEMES)) {
  naming(`caches called like ${name} are numbered from 0 in pairs`, () => {
    const model = called(scheme);
    const renamed = renamedBy(model, 'remove-attention{layers=1-2},rename-kv{naming=compact}');
    const expected = (['past', 'present'] as const).flatMap((side) =>
      LEFT.flatMap((layer, i) =>
        (['key', 'value'] as const).map((part) => ({ from: scheme(side, layer, part), to: scheme(side, i, part) })),
      ),
    );
    const changed = expected.filter(({ from, to }) => from !== to);
    assert.equal(
      [...renamed].sort((a, b) => (a.from < b.from ? -1 : 1)),
      changed.sort((a, b) => (a.from < b.from ? -1 : 1)),
    );
    const ports = portsOf(model);
    assert.is(new Set(ports).size, ports.length);
    for (const { to } of expected) assert.ok(ports.includes(to), `${to} is missing`);
    assert.not(ports.includes(scheme('past', 11, 'value')), 'an old name is left');
  });
}

naming('nothing happens without a gap, without being asked, and without numbers', () => {
  const scheme = SCHEMES['past_key_values.7.key'] as Scheme;
  for (const pipeline of ['rename-kv{naming=compact}', 'remove-attention{layers=1},rename-kv']) {
    assert.equal(renamedBy(called(scheme), pipeline), []);
  }
  const letters = called((side, layer, part) => `${side}_${'abcdefghijkl'[layer]}_${part}`);
  const result = runPipeline(letters, parsePipeline('remove-attention{layers=1},rename-kv{naming=compact}', registry));
  assert.equal(factsOf(result, renameKv), []);
  assert.match(result.remarks.at(-1)?.message ?? '', /carries no layer number/);
});

naming('outputs that are numbered in their own way keep their names', () => {
  const model = called((side, layer, part) =>
    side === 'past' ? `past.${layer}.${part}` : `present_${900 + layer}_${part}`,
  );
  const renamed = renamedBy(model, 'remove-attention{layers=0},rename-kv{naming=compact}');
  assert.ok(renamed.length > 0 && renamed.every(({ from }) => from.startsWith('past.')));
});

naming('a renamed model gives the same results, its caches carried on', () => assertSameFunction(TALES12));

naming.run();
