/** What `onnx-fuse run` takes. */
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const runSpec = commandSpec({
  name: 'run',
  summary: 'Run the commands that a config file lists, in order, and stop at the first that fails',
  words: [
    { name: 'file', describe: 'The file (.json, .mjs): "commands", a list of commands with their flags as keys' },
  ],
  flags: RESULT_FLAGS,
  examples: [{ about: 'all steps of a pipeline, with all results', line: 'run onnx-fuse.config.json --json all.json' }],
});
