/** What `onnx-fuse golden` takes. */
import { grouped } from '../../api/settings/flag-groups.js';
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const goldenSpec = commandSpec({
  name: 'golden',
  summary: 'Compare the printed graph, with hashes for weights, with a file; exit 1 when it differs',
  words: [
    { name: 'model', describe: 'The model (.onnx), or a folder with one' },
    { name: 'expected', describe: 'The file it was recorded in' },
  ],
  flags: {
    ...grouped('Running', {
      accept: { type: 'boolean', fallback: false, describe: 'Record the model as it is now' },
    }),
    ...RESULT_FLAGS,
  },
  examples: [
    { about: 'record a model, once', line: 'golden in.onnx in.golden --accept' },
    { about: 'compare with what was recorded', line: 'golden in.onnx in.golden' },
  ],
});
