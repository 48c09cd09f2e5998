/** What `onnx-fuse inspect` and `onnx-fuse print` take. */
import { grouped } from '../../api/settings/flag-groups.js';
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const inspectSpec = commandSpec({
  name: 'inspect',
  summary: 'Show every layer, and what would be fused or why not',
  words: [{ name: 'model', describe: 'The model (.onnx), or a folder with one' }],
  flags: {
    ...grouped('Output', {
      html: {
        type: 'string',
        describe: 'Also draw the layers and their weights on this HTML page, whose name ends in .html',
      },
    }),
    ...RESULT_FLAGS,
  },
  examples: [
    { about: 'every layer, and what could be done with it', line: 'inspect in.onnx' },
    { about: 'the same on a page, with where the weights are', line: 'inspect in.onnx --html layers.html' },
    { about: 'the same for a program', line: 'inspect in.onnx --json layers.json' },
  ],
});

export const printSpec = commandSpec({
  name: 'print',
  summary: 'Print the model in ONNX textual syntax',
  words: [{ name: 'model', describe: 'The model (.onnx), or a folder with one' }],
  flags: {
    ...RESULT_FLAGS,
  },
  examples: [{ about: 'read a graph page by page', line: 'print in.onnx | less' }],
});
