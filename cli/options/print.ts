/** What `onnx-fuse print` takes. */
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const printSpec = commandSpec({
  name: 'print',
  summary: 'Print the model in ONNX textual syntax',
  words: [{ name: 'model', describe: 'The model (.onnx), or a folder with one' }],
  flags: {
    ...RESULT_FLAGS,
  },
  examples: [{ about: 'read a graph page by page', line: 'print in.onnx | less' }],
});
