/** What `onnx-fuse inspect` takes. */
import { JSON_FLAG } from './shared.js';
import { commandSpec } from './spec.js';

export const inspectSpec = commandSpec({
  name: 'inspect',
  summary: 'Show every layer, and what would be fused or why not',
  words: [{ name: 'model', describe: 'The model (.onnx), or a folder with one' }],
  flags: { json: JSON_FLAG },
});
