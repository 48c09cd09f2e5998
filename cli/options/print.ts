/** What `onnx-fuse print` takes. */
import { JSON_FLAG } from './shared.js';
import { commandSpec } from './spec.js';

export const printSpec = commandSpec({
  name: 'print',
  summary: 'Print the model in ONNX textual syntax',
  words: [{ name: 'model', describe: 'The model (.onnx), or a folder with one' }],
  flags: { json: JSON_FLAG },
});
