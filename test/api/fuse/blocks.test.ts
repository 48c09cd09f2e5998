/**
 * Whole blocks on real exporter output: a window is made parallel, its FFNs and its attentions merge, and the result is
 * run with onnxruntime against the parallel, unmerged graph.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import { type Model, openModel } from '../../../ir/index.js';
import { findBlocks } from '../../../passes/index.js';
import { needSharedModels } from '../../helpers/shared-models.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const real = suite('blocks of real models');

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

/** Operators that attend; each written-out attention has one Softmax. */
function attentions(model: Model): number {
  return [...model.graph.nodes()].filter(({ opType }) => /Attention$|^Softmax$/.test(opType)).length;
}

async function fuseWindow(folder: string, input: string, ...flags: string[]): Promise<[Report, Model]> {
  const [output, file] = [join(folder, 'out.onnx'), join(folder, 'report.json')];
  const { code, stderr } = await runCli(input, output, ...flags, '--report', file, '--quiet');
  assert.is(code, 0, stderr);
  return [JSON.parse(readFileSync(file, 'utf8')) as Report, openModel(output)];
}

const root = needSharedModels('whole blocks of real models');

for (const [file, window, heads] of root ? FILES : []) {
  real(`the blocks ${window} of ${file} become one`, () =>
    inWorkspace(async (folder) => {
      const input = join(root as string, file);
      const [report, after] = await fuseWindow(folder, input, '--parallelize-blocks', window);
      const before = openModel(input);
      const [first, last] = window.split('-').map(Number) as [number, number];
      const members = last - first + 1;

      const algebra = report.checks.algebra;
      assert.ok(algebra?.pass, JSON.stringify(report.checks));
      assert.ok(report.checks.drift && report.checks.drift.cosine < 1, 'the function has changed');
      assert.equal(
        report.mergedAttention.map((merged) => [merged.layers.length, merged.heads.join('+')]),
        [[members, heads]],
      );
      assert.is(attentions(after), attentions(before) - members + 1);
      if (report.runs.length > 0) assert.is(report.runs[0]?.layers.length, members);

      // One cache of each kind is left of the window's, with the heads of all.
      const caches = findBlocks(before.graph).layers[first]?.attention?.attention.kvInputs ?? [];
      assert.is(after.graph.inputs.length, before.graph.inputs.length - caches.length * (members - 1));
      assert.is(after.graph.outputs.length, before.graph.outputs.length - caches.length * (members - 1));
      assert.equal(report.kvBytesPerToken.after, report.kvBytesPerToken.before);
    }),
  );
}

const LLAMA = 'genai/babyllama105-fp32-cpu';

if (root) {
  const input = join(root, LLAMA, 'model.onnx');

  real('separate caches leave the interface as it was', () =>
    inWorkspace(async (folder) => {
      const flags = ['--parallelize-blocks', '0-1,2-4', '--kv-caches', 'separate'];
      const [report, after] = await fuseWindow(folder, input, ...flags);
      const before = openModel(input);
      assert.ok(report.checks.algebra?.pass);
      assert.is(report.mergedAttention.length, 2);
      assert.is(attentions(after), 2);
      const names = (model: Model) => [...model.graph.inputs, ...model.graph.outputs].map(({ name }) => name).join();
      assert.is(names(after), names(before));
    }),
  );

  real('a folder for onnxruntime-genai keeps a cache for every layer of its config', () =>
    inWorkspace(async (folder) => {
      const output = join(folder, 'out');
      const { code, stderr } = await runCli(join(root, LLAMA), output, '--parallelize-blocks', '1-3', '--quiet');
      assert.is(code, 0, stderr);
      const config = JSON.parse(readFileSync(join(output, 'genai_config.json'), 'utf8'));
      const pasts = openModel(join(output, 'model.onnx')).graph.inputs.filter(({ name }) => name.endsWith('.key'));
      assert.is(pasts.length, config.model.decoder.num_hidden_layers);
    }),
  );

  real('in the literal form nothing merges, and every attention says why', () =>
    inWorkspace(async (folder) => {
      const flags = ['--parallelize-blocks', '1-4', '--block-form', 'literal'];
      const [report, after] = await fuseWindow(folder, input, ...flags);
      assert.ok(report.checks.algebra?.pass);
      assert.equal([report.mergedAttention, report.runs], [[], []]);
      assert.is(attentions(after), 5);
      for (const layer of ['1', '2', '3']) {
        assert.match(report.left.find((left) => left.layer === layer)?.reason ?? '', 'is read by itself');
      }
    }),
  );

  real('windows, removed attention and runs work together', () =>
    inWorkspace(async (folder) => {
      const flags = ['--remove-attention', '0-1', '--keep-last', '0', '--parallelize-blocks', '2-4'];
      const [report, after] = await fuseWindow(folder, input, ...flags, '--kv-naming', 'compact');
      assert.ok(report.checks.algebra?.pass);
      assert.equal(
        report.runs.map(({ layers }) => layers.join()),
        ['0,1', '2,3,4'],
      );
      const pasts = after.graph.inputs.filter(({ name }) => /past/.test(name)).map(({ name }) => name);
      assert.equal(pasts, ['past_key_values.0.key', 'past_key_values.0.value']);
    }),
  );

  real('a window that cannot be is refused with the layer and the reason', async () => {
    for (const [window, complaint] of [
      ['3-7', /OF_NO_SUCH_LAYER layer 5/],
      ['3', /a run needs two layers at least/],
    ] as const) {
      const { code, stderr } = await runCli(input, '/nowhere/out.onnx', '--parallelize-blocks', window);
      assert.is(code, 2);
      assert.match(stderr, complaint);
    }
  });
}

real.run();
