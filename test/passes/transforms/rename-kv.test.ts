/** Renumbering caches, whatever the exporter called them: names only, in pairs, and the function stays as it was. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Model, openModel, referenceBytes, type Value } from '../../../ir/index.js';
import { findLayers, parsePipeline, registry, runPipeline } from '../../../passes/index.js';
import { type Candidate, verifyPair } from '../../../runtime/index.js';
import { GOLDEN_ROOT, TALES12 } from '../../helpers/paths.js';
import { needSharedModels } from '../../helpers/shared-models.js';
import { suite } from '../../helpers/suite.js';

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

function run(model: Model, pipeline: string): readonly { from: string; to: string }[] {
  return runPipeline(model, parsePipeline(pipeline, registry)).outcome.renamedCaches;
}

const portsOf = ({ graph }: Model): string[] => [...graph.inputs, ...graph.outputs].map((value) => value.name);

for (const [name, scheme] of Object.entries(SCHEMES)) {
  naming(`caches called like ${name} are numbered from 0 in pairs`, () => {
    const model = called(scheme);
    const renamed = run(model, 'remove-attention{layers=1-2},rename-kv{naming=compact}');
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
    assert.equal(run(called(scheme), pipeline), []);
  }
  const letters = called((side, layer, part) => `${side}_${'abcdefghijkl'[layer]}_${part}`);
  const { outcome, remarks } = runPipeline(
    letters,
    parsePipeline('remove-attention{layers=1},rename-kv{naming=compact}', registry),
  );
  assert.equal(outcome.renamedCaches, []);
  assert.match(remarks.at(-1)?.message ?? '', /carries no layer number/);
});

naming('outputs that are numbered in their own way keep their names', () => {
  const model = called((side, layer, part) =>
    side === 'past' ? `past.${layer}.${part}` : `present_${900 + layer}_${part}`,
  );
  const renamed = run(model, 'remove-attention{layers=0},rename-kv{naming=compact}');
  assert.ok(renamed.length > 0 && renamed.every(({ from }) => from.startsWith('past.')));
});

function located(model: Model, folder: string): Candidate {
  return { model, location: { bytes: referenceBytes(model, folder), folder } };
}

/** Without and with renaming, both run: bit for bit the same under the old names. */
async function sameFunction(path: string, folder: string): Promise<void> {
  const layers = findLayers(openModel(path).graph).layers;
  const layer = layers.find(({ attention }) => attention && !attention.attention.blocked)?.index;
  const [plain, compact] = [openModel(path), openModel(path)];
  run(plain, `remove-attention{layers=${layer}}`);
  const renamed = run(compact, `remove-attention{layers=${layer}},rename-kv{naming=compact}`);
  assert.ok(renamed.length > 0, 'nothing was renamed');
  const names = new Map(renamed.map(({ from, to }) => [to, from]));
  const comparison = await verifyPair(located(plain, folder), located(compact, folder), { renamed: names });
  assert.is(comparison.worst.absolute, 0);
  assert.equal([comparison.onlyReference, comparison.onlyCandidate], [[], []]);
  assert.equal(comparison.cached, [true, true], 'the caches were not carried on');
}

naming('a renamed model gives the same results, its caches carried on', () =>
  sameFunction(TALES12, join(GOLDEN_ROOT, 'models')),
);

const root = needSharedModels('renamed caches of real exports');
/** One of each form of name and way of keeping caches; layer 0 goes, whose key tells the past length in some. */
const REAL = [
  'genai/babyllama105-fp32-cpu/model.onnx',
  'torch/stories260K-ts17-kv.onnx',
  'torch/stories260K-dynamo24-kv.onnx',
  'torch/gpt2-ts17-kv.onnx',
  'optimized/stories260K-ts17-kv-onnxslim.onnx',
  'public/microsoft__onnxruntime-genai/test/models/static-scatter-bias-decoder/model.onnx',
  'public/microsoft__onnxruntime-genai/test/models/hf-internal-testing/tiny-random-gpt2-fp32/past.onnx',
];
for (const file of root ? REAL : []) {
  naming(`${file} runs without layer 0 and renumbered`, () =>
    sameFunction(join(root as string, file), join(root as string, file, '..')),
  );
}

naming.run();
