import { join } from 'node:path';
import { suite } from '../../helpers/suite.js';
import { assertSameFunction } from '../../passes/transforms/renamed-caches.js';
import { findCorpus } from '../folder.js';

const naming = suite('corpus: rename-kv');
const corpus = findCorpus();

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
for (const file of REAL) {
  naming(`${file} runs without layer 0 and renumbered`, () => assertSameFunction(join(corpus, file)));
}

naming.run();
