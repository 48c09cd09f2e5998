/** What `onnx-fuse run` takes. */
import { JSON_FLAG } from './shared.js';
import { commandSpec } from './spec.js';

export const runSpec = commandSpec({
  name: 'run',
  summary: 'Run the commands that a config file lists, in order, and stop at the first that fails',
  words: [
    { name: 'file', describe: 'The file (.json, .mjs): "commands", a list of commands with their flags as keys' },
  ],
  flags: {
    json: JSON_FLAG,
    quiet: { type: 'boolean', fallback: false, describe: 'Print nothing but errors' },
  },
});
