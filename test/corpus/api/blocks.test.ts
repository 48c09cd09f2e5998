import { join } from 'node:path';
import { checkWindow } from '../../api/fuse/block-window.js';
import { suite } from '../../helpers/suite.js';
import { findCorpus } from '../folder.js';

const real = suite('corpus: whole blocks');
const corpus = findCorpus();

const GENAI_TESTS = 'public/microsoft__onnxruntime-genai/test';

/** One file of each style: how its attention is written, the window, and query heads per member. */
const FILES: readonly (readonly [file: string, window: string, heads: string])[] = [
  // onnxruntime-genai: packed QKV and do_rotary; rotary embeddings before the attention; blocks of 4 bits.
  ['genai/babyllama105-fp32-cpu/model.onnx', '1-4', '8+8+8+8'],
  ['genai/stories260K-fp16-dml/model.onnx', '1-4', '8+8+8+8'],
  ['genai/stories260K-int4-dml/model.onnx', '1-4', '8+8+8+8'],
  // Attention of opset 23 and 24 behind repeated key-value heads.
  ['torch/stories260K-dynamo23-sdpa.onnx', '1-4', '8+8+8+8'],
  ['torch/stories260K-dynamo24-kv.onnx', '1-4', '8+8+8+8'],
  // Written out: TorchScript, dynamo with caches, after onnxslim, norms per head, packed and partly rotated.
  ['torch/stories260K-ts17-kv.onnx', '1-4', '8+8+8+8'],
  ['tales12/tales12-dynamo18-fp16.onnx', '5-8', '4+4+4+4'],
  ['optimized/stories260K-ts17-kv-onnxslim.onnx', '1-4', '8+8+8+8'],
  ['torch/qwen3-ts17-eager.onnx', '1-2', '4+4'],
  ['torch/phi3-ts17-eager.onnx', '1-2', '4+4'],
  // Biases, Conv1D, a flattened stream, attention beside the FFN.
  ['torch/gpt2-ts17-kv.onnx', '1-2', '4+4'],
  ['torch/opt-ts17-eager.onnx', '1-2', '4+4'],
  ['torch/gpt_neox-ts17-eager.onnx', '1-2', '4+4'],
  // Operators of onnxruntime: MultiHeadAttention, and Attention with its weights inside.
  [`${GENAI_TESTS}/test_models/hf-internal-testing/tiny-random-LlamaForCausalLM-fp16/model.onnx`, '0-1', '1+1'],
  [`${GENAI_TESTS}/models/hf-internal-testing/tiny-random-gpt2-fp32/past.onnx`, '1-4', '4+4+4+4'],
];

for (const [file, window, heads] of FILES) {
  real(`the blocks ${window} of ${file} become one`, () => checkWindow(join(corpus, file), window, heads));
}

real.run();
