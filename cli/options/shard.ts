/** What `onnx-fuse shard` takes. */
import { grouped } from '../../api/settings/flag-groups.js';
import { COLLECTIVES } from '../../passes/transforms/shard-tensor-parallel/collectives.js';
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const shardSpec = commandSpec({
  name: 'shard',
  summary: 'Cut a model over the GPUs of a tensor-parallel group: one file for each rank',
  words: [
    { name: 'input', describe: 'The model (.onnx), or a folder with one' },
    { name: 'output', describe: 'The folder for the ranks; with --collectives annotate a file' },
  ],
  flags: {
    ...grouped('Cutting', {
      tp: { type: 'number', describe: 'Cut the model over this many ranks: 2, 4, 8' },
      collectives: {
        type: 'string',
        choices: [...COLLECTIVES, 'annotate'],
        fallback: 'ort',
        describe:
          'Write collectives for onnxruntime with NCCL, for TensorRT, or none (graph outputs and inputs instead); external: segments for stock onnxruntime, and a program that runs them; or annotate one file that is not cut',
      },
      'lm-head': {
        type: 'string',
        choices: ['gather', 'replicate'],
        describe:
          'Cut the projection to the vocabulary and gather the logits, or leave it whole on every rank [gather]',
      },
      uneven: {
        type: 'string',
        choices: ['pad', 'replicate'],
        fallback: 'pad',
        describe: 'Fill up FFNs whose width does not divide with zeros, which is exact, or leave them whole',
      },
      'tp-plan': {
        type: 'string',
        describe:
          "Read from this JSON file which projections are cut, in Hugging Face's words (docs/tensor-parallel.md)",
      },
    }),
    ...grouped('Speed', {
      device: {
        type: 'string',
        describe: 'Predict the time of a token on this device: h100x8, or a JSON file',
      },
    }),
    ...grouped('Running', {
      verify: { type: 'boolean', fallback: true, describe: 'Run the ranks together on the CPU first' },
      force: { type: 'boolean', fallback: false, describe: 'Write the ranks even when the check fails' },
    }),
    ...grouped('Output', {
      report: { type: 'string', describe: 'Write a report as JSON to this file' },
    }),
    ...RESULT_FLAGS,
  },
  examples: [
    { about: 'one file for each of eight GPUs', line: 'shard in.onnx out/ --tp 8' },
    {
      about: 'for onnxruntime from the package index, with a program that runs it',
      line: 'shard in.onnx out/ --tp 2 --collectives external',
    },
  ],
});
