/** What `onnx-fuse passes` takes. */
import { PLUGIN_FLAGS, RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const passesSpec = commandSpec({
  name: 'passes',
  summary: 'List the passes and their options for --pipeline',
  words: [],
  flags: {
    ...PLUGIN_FLAGS,
    ...RESULT_FLAGS,
  },
  examples: [{ about: 'also those of your own module', line: 'passes --plugin ./my-pass.mjs' }],
});
