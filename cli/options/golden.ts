/** What `onnx-fuse golden` takes. */
import { JSON_FLAG } from './shared.js';
import { commandSpec } from './spec.js';

export const goldenSpec = commandSpec({
  name: 'golden',
  summary: 'Compare the printed graph, with hashes for weights, with a file; exit 1 when it differs',
  words: [
    { name: 'model', describe: 'The model (.onnx), or a folder with one' },
    { name: 'expected', describe: 'The file it was recorded in' },
  ],
  flags: {
    accept: { type: 'boolean', fallback: false, describe: 'Record the model as it is now' },
    json: JSON_FLAG,
  },
});
