/** block_configs: the architecture of the result, one entry for each layer of the original. */
import * as assert from 'uvu/assert';
import { type JsonObject, JsonText } from '../../../api/basics/json-text.js';
import type { CacheMap } from '../../../api/folder/cache-map.js';
import { describeArchitecture, rewriteHfConfig } from '../../../api/folder/hf-config.js';
import type { Report } from '../../../api/fuse/report.js';
import {
  concatFfn,
  type FactsByPass,
  type LayerSlot,
  parallelizeBlocks,
  parallelizeFfn,
  removeAttention,
  removeFfn,
} from '../../../passes/index.js';
import { suite } from '../../helpers/suite.js';

const hf = suite('hf config');
const NO_OP = { no_op: true };
const IDENTITY = { attention: NO_OP, ffn: NO_OP };

function config(more: JsonObject = {}): JsonText {
  const own = { hidden_size: 768, intermediate_size: 2048, num_attention_heads: 8, num_key_value_heads: 2 };
  return new JsonText(
    JSON.stringify({ model_type: 'llama', ...own, num_hidden_layers: 6, ...more }, null, 2),
    'config.json',
  );
}

function fact(layer: number, attention: boolean, ffn: boolean, ffnWidth: number | null, linear: LayerSlot[] = []) {
  return { layer, attention, ffn, ffnWidth, linear };
}

function report(facts: FactsByPass, given: Partial<Report> = {}): Report {
  const original = Array.from({ length: 6 }, (_, layer) => fact(layer, true, true, 2048));
  const made = { pipeline: 'p', versions: { 'onnx-fuse': '1' }, numbering: 'order' };
  return { original, ...made, facts, ...given } as unknown as Report;
}

const removed = (...layers: number[]) => layers.map((layer) => ({ layer, kvInputs: [], kvOutputs: [] }));
const run = (...layers: string[]) => ({ layers, widths: layers.map(() => 2048), fusedWidth: 2048 * layers.length });
const ATTENTION = { no_op: false, num_key_value_heads: 2, n_heads_in_group: 4 };
const FFN = { no_op: false, intermediate_size: 2048, ffn_mult: 4 };

hf('removed parts do nothing, the others keep heads and width', () => {
  const { block_configs, num_hidden_layers, onnx_fuse } = describeArchitecture(
    report({ [removeAttention.id]: removed(1, 2), [removeFfn.id]: [{ layer: 2 }, { layer: 4 }] }),
    config(),
    null,
  );
  assert.is(num_hidden_layers, 6);
  assert.equal(block_configs, [
    { attention: ATTENTION, ffn: FFN },
    { attention: NO_OP, ffn: FFN },
    { attention: NO_OP, ffn: NO_OP },
    { attention: ATTENTION, ffn: FFN },
    { attention: ATTENTION, ffn: NO_OP },
    { attention: ATTENTION, ffn: FFN },
  ]);
  assert.equal(
    [onnx_fuse['removed_attention'], onnx_fuse['removed_ffn']],
    [
      [1, 2],
      [2, 4],
    ],
  );
});

hf('the ffn_mult of an entry gives its width by the formula of the Nemotron models, or is left out', () => {
  for (const [hidden, width] of [
    [16384, 53248],
    [16384, 26624],
    [8192, 28672],
    [8192, 5632],
    [4096, 14336],
    [128, 352],
  ] as const) {
    const facts = [fact(0, true, true, width)];
    const { block_configs } = describeArchitecture(
      report({}, { original: facts }),
      config({ hidden_size: hidden, num_hidden_layers: 1 }),
      null,
    );
    const ffn = block_configs[0]?.['ffn'] as JsonObject;
    assert.is(ffn['intermediate_size'], width);
    const mult = ffn['ffn_mult'] as number | undefined;
    if (width % 256 !== 0) assert.is(mult, undefined);
    else assert.is(Math.ceil(Math.floor((2 * (mult ?? 0) * hidden) / 3) / 256) * 256, width);
  }
});

hf('FFNs that read one input are parallel blocks of the first entry, whether or not they were merged', () => {
  const facts = { [removeAttention.id]: removed(1, 2, 3), [parallelizeFfn.id]: [run('1', '2', '3')] };
  for (const runs of [[], [run('1', '2', '3')]]) {
    const made = report({ ...facts, [concatFfn.id]: runs });
    const { block_configs, onnx_fuse } = describeArchitecture(made, config(), null);
    const member = { attention: NO_OP, ffn: FFN };
    assert.equal(block_configs[1], { attention: null, ffn: null, parallel_blocks: [member, member, member] });
    assert.equal(
      [block_configs[2], block_configs[3]],
      [
        { attention: NO_OP, ffn: NO_OP },
        { attention: NO_OP, ffn: NO_OP },
      ],
    );
    assert.equal(onnx_fuse['parallel_ffn'], [{ layers: [1, 2, 3], widths: [2048, 2048, 2048] }]);
  }
});

hf('an attention before a run keeps an entry of its own', () => {
  const facts = { [removeAttention.id]: removed(2), [parallelizeFfn.id]: [run('1', '2')] };
  const { block_configs } = describeArchitecture(report(facts), config(), null);
  assert.equal(block_configs[1], { attention: ATTENTION, ffn: NO_OP });
  assert.is((block_configs[2]?.['parallel_blocks'] as unknown[] | undefined)?.length, 2);
});

hf('whole blocks in parallel: each attention before its own FFN, or all attentions before all FFNs', () => {
  const window = { layers: ['2', '3', '4'] };
  const block = { attention: ATTENTION, ffn: FFN };
  const describe = (facts: FactsByPass) => describeArchitecture(report(facts), config(), null).block_configs;
  const literal = describe({ [parallelizeBlocks.id]: [{ ...window, form: 'literal', ffns: null }] });
  assert.equal(literal[2], { attention: null, ffn: null, parallel_blocks: [block, block, block] });
  assert.equal([literal[3], literal[4]], [IDENTITY, IDENTITY]);
  const blocks = { ...window, form: 'two-stage', ffns: run('2', '3', '4') };
  const staged = describe({ [removeAttention.id]: removed(3), [parallelizeBlocks.id]: [blocks] });
  const attention = { attention: ATTENTION, ffn: NO_OP };
  const ffn = { attention: NO_OP, ffn: FFN };
  assert.equal(staged[2], { attention: null, ffn: null, parallel_blocks: [attention, attention] });
  assert.equal(staged[3], { attention: null, ffn: null, parallel_blocks: [ffn, ffn, ffn] });
  assert.equal(staged[4], IDENTITY);
});

hf('layers that are not understood are described by what the config says, or not at all', () => {
  const original = [fact(0, true, true, null), fact(1, false, true, 2048), fact(2, true, false, null)];
  const known = describeArchitecture(report({}, { original }), config(), null).block_configs;
  assert.equal(known[0]?.['ffn'], FFN);
  assert.equal(known[1]?.['attention'], NO_OP);
  assert.equal(known[2]?.['ffn'], NO_OP);
  assert.is(known.length, 6, 'the config has more layers than were found');
  const alone = describeArchitecture(report({}, { original }), null, null).block_configs;
  assert.equal(alone[0], { attention: { no_op: false }, ffn: { no_op: false } });
  assert.is(alone.length, 3);
});

hf('a second run adds to what the first one wrote', () => {
  const first = describeArchitecture(report({ [removeAttention.id]: removed(1) }), config(), null);
  const marker = new JsonText(JSON.stringify(first), 'onnx-fuse.json');
  const original = [0, 1, 2, 3].map((layer) => fact(layer, layer !== 1, true, 2048));
  const again = report({ [removeAttention.id]: removed(3) }, { original });
  const { block_configs, onnx_fuse, num_hidden_layers } = describeArchitecture(
    again,
    config({ num_hidden_layers: 5 }),
    marker,
  );
  assert.is(num_hidden_layers, 6);
  assert.equal(onnx_fuse['removed_attention'], [1, 3]);
  assert.equal(
    block_configs.map(({ attention }) => (attention as JsonObject)['no_op']),
    [false, true, false, true, false, false],
  );
});

hf('a linear in a place of its layer is said, and what lies between layers that were found does nothing', () => {
  const original = [
    fact(0, false, true, 2048, ['attention']),
    fact(1, true, false, null, ['ffn']),
    fact(2, false, false, null, ['unknown']),
    fact(4, true, true, 2048),
  ];
  const linear = { no_op: false, replace_with_linear: true };
  const { block_configs } = describeArchitecture(report({}, { original, numbering: 'names' }), config(), null);
  assert.equal(block_configs, [
    { attention: linear, ffn: FFN },
    { attention: ATTENTION, ffn: linear },
    { attention: NO_OP, ffn: linear },
    IDENTITY,
    { attention: ATTENTION, ffn: FFN },
    IDENTITY,
  ]);
});

function caches(naming: CacheMap['naming']): CacheMap {
  const before = [0, 1, 2, 3, 4, 5];
  const kept = new Map([0, 2, 4, 5].map((layer, i) => [layer, naming === 'compact' ? i : layer]));
  return { naming, before, kept, names: new Map(), gone: new Set(), present: new Set() };
}

hf('with gaps the config keeps its layers and gets block_configs', () => {
  const text = config({ layer_types: ['a', 'b', 'c', 'd', 'e', 'f'] });
  const before = text.value as JsonObject;
  const architecture = describeArchitecture(report({ [removeAttention.id]: removed(1, 3) }), text, null);
  rewriteHfConfig(text, architecture, caches('preserve'));
  const after = text.value as JsonObject;
  assert.equal(Object.keys(after), [...Object.keys(before), 'block_configs', 'onnx_fuse']);
  assert.is((after['block_configs'] as unknown[]).length, after['num_hidden_layers']);
  assert.equal(after['layer_types'], before['layer_types']);
});

hf('counted from 0 the config describes the layers with caches, and no block_configs that would not fit', () => {
  const text = config({ layer_types: ['a', 'b', 'c', 'd', 'e', 'f'], block_configs: [] });
  const architecture = describeArchitecture(report({ [removeAttention.id]: removed(1, 3) }), text, null);
  rewriteHfConfig(text, architecture, caches('compact'));
  const after = text.value as JsonObject;
  assert.is(after['num_hidden_layers'], 4);
  assert.equal(after['layer_types'], ['a', 'c', 'e', 'f']);
  assert.not('block_configs' in after);
});

hf('the layers of a multimodal config are those of its text_config', () => {
  const text = new JsonText('{"vision_config": {"x": 1}, "text_config": {"num_hidden_layers": 6}}', 'config.json');
  rewriteHfConfig(text, describeArchitecture(report({}), text, null), caches('compact'));
  assert.is(text.get(['text_config', 'num_hidden_layers']), 4);
  const none = new JsonText('{"a": 1}', 'config.json');
  rewriteHfConfig(none, describeArchitecture(report({}), none, null), caches('preserve'));
  assert.not(none.isChanged);
});

hf.run();
