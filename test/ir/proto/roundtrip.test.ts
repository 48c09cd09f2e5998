import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import onnxProto from 'onnx-proto';
import * as assert from 'uvu/assert';
import { allGraphs, allTensors, type Model, openModel } from '../../../ir/index.js';
import { listSharedModels, needSharedModels } from '../../helpers/shared-models.js';
import { suite } from '../../helpers/suite.js';
import { codeOf, encoded } from './fixtures.js';

const test = suite('ir/proto round trip of real models');

/** Files that are no valid models, and how that is said. */
const REJECTED: Readonly<Record<string, string>> = {
  // Exporters' test data come without their weights.
  'onnxscript/onnxscript_bart_encoder_skeleton.onnx': 'OF_EXTERNAL_MISSING',
  'onnxscript/onnxscript_phi2lm_skeleton.onnx': 'OF_EXTERNAL_MISSING',
  'onnxscript/onnxscript_phi4lm_skeleton.onnx': 'OF_EXTERNAL_MISSING',
  'onnxscript/onnxscript_smollm_1_skeleton.onnx': 'OF_EXTERNAL_MISSING',
  'onnxscript/onnxscript_smollm_2_skeleton.onnx': 'OF_EXTERNAL_MISSING',
  'onnxscript/onnxscript_whisper_decoder_skeleton.onnx': 'OF_EXTERNAL_MISSING',
  'public/from-text/justinchuby__model-explorer-onnx/testdata/phi-4-mm-speech.onnx': 'OF_EXTERNAL_MISSING',
  'public/from-text/onnx__ir-py/testdata/e2e_models/Speech2Text2ForCausalLM/Speech2Text2ForCausalLM_dynamo.skeleton.onnx':
    'OF_EXTERNAL_MISSING',
  'public/microsoft__onnxruntime-genai/test/test_models/hf-internal-testing/tiny-random-LlamaForCausalLM-fp32/model.onnx':
    'OF_EXTERNAL_MISSING',
  // onnxruntime refuses them too: 64 elements for a shape of 48.
  'public/intel__onnxruntime/onnxruntime/test/testdata/transform/fusion/embed_layer_norm_format7.onnx':
    'OF_TENSOR_SIZE',
  'public/intel__onnxruntime/onnxruntime/test/testdata/transform/fusion/embed_layer_norm_format8.onnx':
    'OF_TENSOR_SIZE',
  'public/intel__onnxruntime/onnxruntime/test/testdata/transform/fusion/embed_layer_norm_format9.onnx':
    'OF_TENSOR_SIZE',
  // Constants that are initializers of the same name as well: not in single-assignment form.
  'public/intel__onnxruntime/onnxruntime/test/python/transformers/test_data/models/gpt2_past.onnx': 'OF_DUPLICATE_NAME',
};

const { onnx } = onnxProto;
const files = listSharedModels();
const isExternal = (model: Model): boolean => [...allTensors(model)].some(({ storage }) => storage === 'external');

/** The models that can be opened, with their bytes. */
function* openable(root: string): Generator<{ file: string; model: Model; bytes: Buffer }> {
  for (const file of files) {
    if (file in REJECTED) continue;
    yield { file, model: openModel(join(root, file)), bytes: readFileSync(join(root, file)) };
  }
}

test('every invalid file is refused with its diagnostic', () => {
  const root = needSharedModels('invalid files');
  if (root === null) return;
  for (const [file, code] of Object.entries(REJECTED))
    assert.is(
      codeOf(() => openModel(join(root, file))),
      code,
      file,
    );
});

test('every model without external data comes out byte for byte', () => {
  const root = needSharedModels('byte identity');
  if (root === null) return;
  let count = 0;
  for (const { file, model, bytes } of openable(root)) {
    if (isExternal(model)) continue;
    assert.ok(encoded(model).equals(bytes), `${file} differs`);
    count++;
  }
  assert.ok(count > 200, `${count} models`);
});

test('every model with external data comes out byte for byte when it is given its old places', () => {
  const root = needSharedModels('byte identity of headers');
  if (root === null) return;
  let count = 0;
  for (const { file, model, bytes } of openable(root)) {
    if (!isExternal(model)) continue;
    const places = new Map(
      (onnx.ModelProto.decode(bytes).graph?.initializer ?? []).map((tensor) => {
        const entries = Object.fromEntries((tensor.externalData ?? []).map(({ key, value }) => [key, value]));
        const { location = '', offset = '0', length = '0' } = entries as Record<string, string>;
        return [tensor.name, { location, offset: Number(offset), length: Number(length) }];
      }),
    );
    const out = encoded(model, (tensor) => (tensor.storage === 'external' ? (places.get(tensor.name) ?? null) : null));
    assert.ok(out.equals(bytes), `${file} differs`);
    count++;
  }
  assert.ok(count >= 20, `${count} models`);
});

/** What the second reader knows of a model, without where tensors keep their bytes. */
function outline(bytes: Uint8Array): unknown {
  const { graph, opsetImport, irVersion } = onnx.ModelProto.decode(bytes);
  const names = (infos: readonly { name?: string | null; type?: unknown }[] | null | undefined) =>
    (infos ?? []).map(({ name, type }) => [
      name,
      // Some write -1 for a size that is not known, others nothing.
      (JSON.stringify(type) ?? 'none').replaceAll('{"dimValue":"-1"}', '{}'),
    ]);
  return {
    irVersion: String(irVersion),
    opsets: (opsetImport ?? []).map(({ domain, version }) => [domain || '', String(version)]),
    inputs: names(graph?.input),
    outputs: names(graph?.output),
    valueInfo: names(graph?.valueInfo),
    nodes: (graph?.node ?? []).map((node) => ({
      op: [node.domain || '', node.opType],
      name: node.name || '',
      inputs: node.input,
      outputs: node.output,
      // Some writers leave zeros out.
      attributes: (node.attribute ?? []).map(({ name, type, f, i, s, t, g, floats, ints, strings }) =>
        [
          name,
          type,
          f ?? 0,
          String(i ?? 0),
          s ?? '',
          floats,
          ints?.map(String),
          strings,
          t?.dims?.map(String),
          g?.name,
        ].join('|'),
      ),
    })),
    initializers: (graph?.initializer ?? []).map(({ name, dims, dataType }) => [
      name,
      (dims ?? []).map(String),
      dataType,
    ]),
  };
}

/** Forgets everything the reader kept for the writer, so that every message is written from the core alone. */
function forget(model: Model): void {
  model.carried = null;
  for (const opset of model.opsets) opset.carried = null;
  for (const item of model.functions) item.carried = null;
  for (const tensor of allTensors(model)) tensor.carried = null;
  for (const graph of allGraphs(model)) {
    graph.carried = null;
    for (const value of graph.values) value.carried = null;
    for (const node of graph.nodes()) {
      node.carried = null;
      for (const [name, attribute] of node.attributes) {
        if (attribute.kind !== 'opaque') node.attributeMap.set(name, { ...attribute, carried: null });
      }
    }
  }
}

test('a second reader finds the same graph in a model written from the core alone', () => {
  const root = needSharedModels('second reader');
  if (root === null) return;
  let count = 0;
  for (const { file, model, bytes } of openable(root)) {
    const isSorted = encoded(model).equals(bytes) || isExternal(model);
    forget(model);
    const out = encoded(model);
    const before = outline(bytes) as { nodes: unknown[]; valueInfo: unknown[] };
    const after = outline(out) as { nodes: unknown[]; valueInfo: unknown[] };
    assert.ok(isSorted, file);
    // Nodes may have been sorted, and value_info about nothing is carried: both are forgotten here.
    const sorted = (items: unknown[]) => items.map((item) => JSON.stringify(item)).sort();
    assert.equal(sorted(after.nodes), sorted(before.nodes), `${file}: nodes`);
    // A value with two types, as an output and in value_info, keeps the first.
    const known = new Set((before.valueInfo as [string, string][]).map(([name]) => name));
    for (const [name] of after.valueInfo as [string, string][])
      assert.ok(known.has(name), `${file}: value_info ${name}`);
    assert.equal({ ...after, nodes: [], valueInfo: [] }, { ...before, nodes: [], valueInfo: [] }, file);
    count++;
  }
  assert.ok(count > 200, `${count} models`);
});

test.run();
