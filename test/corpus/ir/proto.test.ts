import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Model, openModel } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { codeOf } from '../../ir/proto/fixtures.js';
import { assertIdentical, assertSecondReaderAgrees, isExternal } from '../../ir/proto/lossless.js';
import { findCorpus, modelFiles } from '../folder.js';

const test = suite('corpus: bytes to bytes');
const corpus = findCorpus();

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

/** The models that can be opened, with their bytes. */
function* openable(): Generator<{ file: string; model: Model; bytes: Buffer }> {
  for (const file of modelFiles(corpus)) {
    if (file in REJECTED) continue;
    yield { file, model: openModel(join(corpus, file)), bytes: readFileSync(join(corpus, file)) };
  }
}

test('every invalid file is refused with its diagnostic', () => {
  for (const [file, code] of Object.entries(REJECTED))
    assert.is(
      codeOf(() => openModel(join(corpus, file))),
      code,
      file,
    );
});

test('every model comes out byte for byte, when its external data are given their old places', () => {
  const counts = { inside: 0, external: 0 };
  for (const { file, model, bytes } of openable()) {
    assertIdentical(model, bytes, file);
    counts[isExternal(model) ? 'external' : 'inside']++;
  }
  assert.ok(counts.inside > 200 && counts.external >= 20, JSON.stringify(counts));
});

test('a second reader finds the same graph in a model written from the core alone', () => {
  let count = 0;
  for (const { file, model, bytes } of openable()) {
    assertSecondReaderAgrees(model, bytes, file);
    count++;
  }
  assert.ok(count > 200, `${count} models`);
});

test.run();
