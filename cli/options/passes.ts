/** What `onnx-fuse passes` takes. */
import { JSON_FLAG, PLUGIN_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const passesSpec = commandSpec({
  name: 'passes',
  summary: 'List the passes and their options for --pipeline',
  words: [],
  flags: { ...PLUGIN_FLAGS, json: JSON_FLAG },
});
