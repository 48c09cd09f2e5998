/** What `onnx-fuse pack` takes. */
import { grouped } from '../../api/settings/flag-groups.js';
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const packSpec = commandSpec({
  name: 'pack',
  summary: 'Copy a model that shares weights (--share-weights) into one that needs no other file',
  words: [
    { name: 'model', describe: 'The model (.onnx), or a folder with one' },
    { name: 'whole', describe: 'Where the copy is written' },
  ],
  flags: {
    ...grouped('Output', {
      external: { type: 'boolean', describe: 'Put the weights into a data file beside the copy [as the model]' },
      'max-shard-size': {
        type: 'string',
        describe: 'Make no data file larger than this, like 5GB; no tensor is split [no limit]',
      },
    }),
    ...RESULT_FLAGS,
    quiet: { ...RESULT_FLAGS.quiet, describe: 'Print nothing but errors' },
  },
  examples: [{ about: 'a copy that needs no other file', line: 'pack out.onnx whole.onnx' }],
});
