/** What `onnx-fuse bench` takes. */
import { grouped } from '../../api/settings/flag-groups.js';
import { PROVIDER_FLAGS, RESULT_FLAGS, SPEED_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const benchSpec = commandSpec({
  name: 'bench',
  summary: 'Time models against each other: prompt and decoding, taking turns',
  words: [
    { name: 'a', describe: 'The original (.onnx), or a folder with one' },
    { name: 'b', describe: 'The changed model, likewise', isOptional: true },
  ],
  flags: {
    ...grouped('Speed', {
      batch: { type: 'string', fallback: '1', describe: 'Run this many sequences at a time: 1,8,32' },
      prompt: { type: 'number', fallback: 128, describe: 'Begin with a prompt of this many tokens' },
      decode: { type: 'number', fallback: 32, describe: 'Then decode this many tokens one by one' },
      rounds: { type: 'number', fallback: 7, describe: 'Let this many turns of each model count' },
      calibrate: {
        type: 'string',
        describe: 'Write the cost model of this machine to this file, for plan --device',
      },
      prompts: {
        type: 'boolean',
        fallback: false,
        describe: 'With --calibrate, also measure what a prompt costs, for plan --optimize-for prompt',
      },
    }),
    ...SPEED_FLAGS,
    ...grouped('Running', {
      threads: { type: 'number', describe: "Give each model this many threads [onnxruntime's choice]" },
    }),
    ...PROVIDER_FLAGS,
    ...RESULT_FLAGS,
  },
  examples: [
    { about: 'both models, taking turns, behind a long prompt', line: 'bench smol smol-fused --prompt 1500' },
    { about: 'the cost model of this machine, for plan --device', line: 'bench smol --calibrate here.json' },
  ],
});
