/** genai_config.json for a model that lost attentions: what each kind of cache of onnxruntime-genai needs. */
import * as assert from 'uvu/assert';
import { type Json, type JsonObject, JsonText } from '../../../api/basics/json-text.js';
import type { CacheMap } from '../../../api/folder/cache-map.js';
import {
  filesNamed,
  genaiModelFile,
  namingFor,
  rewriteGenaiConfig,
  whyCompact,
} from '../../../api/folder/genai-config.js';
import { rewriteScales } from '../../../api/folder/kv-scales.js';
import { suite } from '../../helpers/suite.js';

const genai = suite('genai config');

function config(decoder: JsonObject, model: JsonObject = {}): JsonText {
  return new JsonText(
    JSON.stringify({ model: { type: 'llama', decoder, ...model }, search: {} }, null, 4),
    'genai_config.json',
  );
}

const decoderOf = (text: JsonText): JsonObject => text.get(['model', 'decoder']) as JsonObject;

/** A model of `count` layers that lost the caches of `removed`. */
function caches(count: number, removed: readonly number[], naming: CacheMap['naming'], forms = KEY_VALUE): CacheMap {
  const before = Array.from({ length: count }, (_, layer) => layer);
  const left = before.filter((layer) => !removed.includes(layer));
  const kept = new Map(left.map((layer, i) => [layer, naming === 'compact' ? i : layer]));
  const names = new Map<string, string>();
  const gone = new Set<string>();
  for (const form of forms) {
    for (const layer of before) {
      const name = form.replace('%d', String(layer));
      const now = kept.get(layer);
      if (now === undefined) gone.add(name);
      else names.set(name, form.replace('%d', String(now)));
    }
  }
  for (const name of ['input_ids', 'logits']) names.set(name, name);
  return { naming, before, kept, names, gone, present: new Set(names.values()) };
}

const KEY_VALUE = ['past_key_values.%d.key', 'past_key_values.%d.value', 'present.%d.key', 'present.%d.value'];

genai('compact counts the layers that have caches; preserve leaves the number and says what is needed', () => {
  const compact = config({ filename: 'model.onnx', num_hidden_layers: 5 });
  assert.equal(rewriteGenaiConfig(compact, caches(5, [1, 2], 'compact')), []);
  assert.is(decoderOf(compact)['num_hidden_layers'], 3);
  const preserve = config({ filename: 'model.onnx', num_hidden_layers: 5 });
  const notes = rewriteGenaiConfig(preserve, caches(5, [1, 2], 'preserve'));
  assert.not(preserve.isChanged);
  assert.match(notes.join(), /have gaps: onnxruntime-genai finds them from 0\.13 on/);
  assert.equal(rewriteGenaiConfig(preserve, caches(5, [4], 'preserve')).length, 1);
});

genai('sliding-window layers follow their numbers, and a window no layer has any more goes', () => {
  const sliding = { window_size: 8, slide_key_value_cache: false, layers: [0, 2, 4] };
  const compact = config({ filename: 'm.onnx', num_hidden_layers: 5, sliding_window: sliding });
  rewriteGenaiConfig(compact, caches(5, [0, 1], 'compact'));
  assert.equal(compact.get(['model', 'decoder', 'sliding_window', 'layers']), [0, 2]);
  const preserve = config({ filename: 'm.onnx', num_hidden_layers: 5, sliding_window: sliding });
  rewriteGenaiConfig(preserve, caches(5, [0, 1], 'preserve'));
  assert.equal(preserve.get(['model', 'decoder', 'sliding_window', 'layers']), [2, 4]);
  const none = config({ filename: 'm.onnx', sliding_window: sliding, num_hidden_layers: 5 });
  assert.match(rewriteGenaiConfig(none, caches(5, [0, 2, 4], 'compact')).join(), /sliding_window was taken out/);
  assert.equal(Object.keys(decoderOf(none)), ['filename', 'num_hidden_layers']);
  // No list means that every layer slides: that stays.
  const all = config({
    filename: 'm.onnx',
    num_hidden_layers: 5,
    sliding_window: { window_size: 8, slide_key_value_cache: false },
  });
  rewriteGenaiConfig(all, caches(5, [0], 'compact'));
  assert.ok(decoderOf(all)['sliding_window']);
});

genai('caches that genai counts from 0 are compact by default, and gaps in them are refused', () => {
  const kinds: [string, JsonObject][] = [
    ['combined', { inputs: { past_names: 'past_%d' }, outputs: { present_names: 'present_%d' } }],
    ['hybrid', { layer_types: ['conv', 'full_attention'] }],
    ['sliding', { sliding_window: { window_size: 8 } }],
    ['paged', { inputs: { block_table: 'block_table' } }],
    ['pipeline', { pipeline: [{ t: { filename: 't.onnx', inputs: ['past_key_values.0.key'], outputs: [] } }] }],
    ['rtx', { session_options: { provider_options: [{ NvTensorRtRtx: {} }] } }],
  ];
  for (const [kind, decoder] of kinds) {
    const text = config({ filename: 'm.onnx', num_hidden_layers: 5, ...decoder });
    assert.ok(whyCompact(text), kind);
    assert.is(namingFor(text, undefined), 'compact', kind);
    assert.is(namingFor(text, 'preserve'), 'preserve', kind);
    assert.throws(() => rewriteGenaiConfig(text, caches(5, [1], 'preserve')), /option kv-naming compact/, kind);
    assert.throws(
      () => rewriteGenaiConfig(text, caches(5, [0, 1, 2, 3, 4], 'compact')),
      /cannot run without any/,
      kind,
    );
    // Nothing removed, or the last layers: there is no gap.
    rewriteGenaiConfig(config({ num_hidden_layers: 5, ...decoder }), caches(5, [], 'preserve'));
  }
  const plain = config({ filename: 'm.onnx', sliding_window: { window_size: 8, slide_key_value_cache: false } });
  assert.is(namingFor(plain, undefined), 'preserve');
  assert.is(namingFor(plain, 'compact'), 'compact');
});

genai('without any cache the default runtime still works, and the result says from when on', () => {
  for (const naming of ['preserve', 'compact'] as const) {
    const text = config({ filename: 'm.onnx', num_hidden_layers: 3 });
    assert.match(rewriteGenaiConfig(text, caches(3, [0, 1, 2], naming)).join(), /no KV cache is left/);
    assert.is(decoderOf(text)['num_hidden_layers'], naming === 'compact' ? 0 : 3);
  }
});

genai('combined caches and layer types of hybrids are counted anew', () => {
  const combined = config({
    filename: 'past.onnx',
    num_hidden_layers: 4,
    inputs: { past_names: 'past_%d' },
    outputs: { present_names: 'present_%d' },
  });
  rewriteGenaiConfig(combined, caches(4, [0], 'compact', ['past_%d', 'present_%d']));
  assert.is(decoderOf(combined)['num_hidden_layers'], 3);
  const types = ['conv', 'full_attention', 'conv', 'full_attention'];
  const hybrid = config({ filename: 'm.onnx', num_hidden_layers: 4, layer_types: types });
  rewriteGenaiConfig(hybrid, caches(4, [1], 'compact'));
  assert.equal(decoderOf(hybrid)['layer_types'], ['conv', 'conv', 'full_attention']);
});

genai('the stage of a pipeline that has the caches is the model, and its lists of names follow', () => {
  const past = ['past_key_values.0.key', 'past_key_values.0.value', 'past_key_values.1.key', 'past_key_values.1.value'];
  const present = ['present.0.key', 'present.0.value', 'present.1.key', 'present.1.value'];
  const stages: JsonObject = {
    embeddings: { filename: 'embeds.onnx', inputs: ['input_ids'], outputs: ['embedded'] },
    transformer: { filename: 'transformer.onnx', inputs: ['embedded', ...past], outputs: ['hidden', ...present] },
    head: { filename: 'head.onnx', inputs: ['hidden'], outputs: ['logits'] },
  };
  for (const pipeline of [[stages], stages] as Json[]) {
    const text = config({ num_hidden_layers: 2, pipeline });
    assert.is(genaiModelFile(text), 'transformer.onnx');
    rewriteGenaiConfig(text, caches(2, [0], 'compact'));
    const at = ['model', 'decoder', 'pipeline', ...(Array.isArray(pipeline) ? [0] : [])];
    assert.equal(text.get([...at, 'transformer', 'inputs']), [
      'embedded',
      'past_key_values.0.key',
      'past_key_values.0.value',
    ]);
    assert.equal(text.get([...at, 'transformer', 'outputs']), ['hidden', 'present.0.key', 'present.0.value']);
    assert.equal(text.get([...at, 'embeddings']), stages['embeddings']);
  }
  const two = config({
    pipeline: [
      {
        a: { filename: 'a.onnx', inputs: [past[0] as string] },
        b: { filename: 'b.onnx', inputs: [past[2] as string] },
      },
    ],
  });
  assert.throws(() => genaiModelFile(two), /spreads the layers over 2 models \(a\.onnx, b\.onnx\)/);
  assert.throws(() => genaiModelFile(config({ pipeline: [{ a: { filename: 'a.onnx', inputs: [] } }] })), /no stage/);
});

genai('configs that cannot be made to fit are refused', () => {
  assert.throws(() => genaiModelFile(config({})), /model\.decoder\.filename is missing/);
  const shared = { shared_initializers: [{ name: 'w', data_file: 'm.onnx.data' }] };
  assert.throws(() => genaiModelFile(config({ filename: 'm.onnx' }, { mtp: shared })), /shared_initializers/);
  const form = `${'x'.repeat(70)}.%d.key`;
  const long = config({ filename: 'm.onnx', num_hidden_layers: 2, inputs: { past_key_names: form } });
  assert.throws(() => rewriteGenaiConfig(long, caches(2, [0], 'compact', [form])), /longer than the 63 characters/);
});

genai('no key is ever added', () => {
  const text = config({ filename: 'm.onnx' });
  rewriteGenaiConfig(text, caches(5, [1], 'compact'));
  assert.not(text.isChanged);
});

genai('names of files are found anywhere', () => {
  const value = {
    a: 'model.onnx',
    b: [{ config_filename: 'sub/processor.json' }],
    c: 'past_key_values.%d.key',
    d: 'cuda',
    e: 1,
  };
  assert.equal(filesNamed(value), ['model.onnx', 'sub/processor.json', 'past_key_values.%d.key']);
});

genai('scales of quantised caches go with their layers', () => {
  const scales = (more: JsonObject = {}): JsonText =>
    new JsonText(
      JSON.stringify({ scales: { k_scales: [[0.1], [0.2], [0.3]], v_scales: [[1], [2], [3]] }, ...more }),
      's.json',
    );
  const compact = scales();
  rewriteScales(compact, caches(3, [1], 'compact'));
  assert.equal(compact.value, { scales: { k_scales: [[0.1], [0.3]], v_scales: [[1], [3]] } });
  const preserve = scales();
  rewriteScales(preserve, caches(3, [1], 'preserve'));
  assert.equal(preserve.value, { scales: { k_scales: [[0.1], [0.3]], v_scales: [[1], [3]] }, layer_ids: [0, 2] });
  const sparse = scales({ layer_ids: [0, 4, 5] });
  rewriteScales(sparse, { ...caches(6, [0, 1, 2, 3], 'compact') });
  assert.equal(sparse.value, { scales: { k_scales: [[0.2], [0.3]], v_scales: [[2], [3]] }, layer_ids: [0, 1] });
  const other = new JsonText('{"scales": {"k_scales": 1}}', 's.json');
  rewriteScales(other, caches(3, [1], 'compact'));
  assert.not(other.isChanged);
});

genai.run();
