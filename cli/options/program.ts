/** What the commands about the program itself take. */
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const envSpec = commandSpec({
  name: 'env',
  summary: 'Show versions, hardware and providers, for reports of bugs',
  words: [],
  flags: RESULT_FLAGS,
  examples: [{ about: 'what to put into a report of a bug', line: 'env' }],
});

export const helpSpec = commandSpec({
  name: 'help',
  summary: 'Show help, of a command if one is named',
  words: [{ name: 'command', describe: 'The command', isOptional: true }],
  flags: {},
  examples: [{ about: 'the same as onnx-fuse plan --help', line: 'help plan' }],
});

export const completionSpec = commandSpec({
  name: 'completion',
  summary: 'Print the script with which your shell (bash, zsh or fish) completes commands and flags',
  words: [],
  flags: {},
  examples: [{ about: 'for bash, once', line: 'completion >> ~/.bashrc' }],
});
