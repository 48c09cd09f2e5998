/** Flags that several commands have. */
import type { ServingRuntime } from '../../api/plan/measured-speed.js';
import { grouped } from '../../api/settings/flag-groups.js';

/** Where models run. */
export const PROVIDER_FLAGS = grouped('Running', {
  provider: {
    type: 'string',
    choices: ['cpu', 'cuda', 'webgpu'],
    fallback: 'cpu',
    describe: 'Run on this provider; it is an error when the CPU does the work instead',
  },
  'allow-fallback': {
    type: 'boolean',
    fallback: false,
    describe: 'Only warn when the CPU does the work instead',
  },
});

/** Of every command that has a result: how it is given. */
export const RESULT_FLAGS = grouped('Output', {
  json: {
    type: 'string',
    describe: 'Give the result as JSON, on standard output or in this file, whose name ends in .json',
    takesFile: '.json',
  },
  quiet: {
    type: 'boolean',
    alias: 'q',
    fallback: false,
    describe: 'Print nothing but the result, and errors',
  },
});

const SERVING_RUNTIMES = ['genai', 'node'] as const satisfies readonly ServingRuntime[];

/** What a token is timed in, and behind how many others. */
export const SPEED_FLAGS = grouped('Speed', {
  runtime: {
    type: 'string',
    choices: SERVING_RUNTIMES,
    describe: 'Measure speed in this runtime [genai where ONNX_FUSE_PYTHON or python3 has it, else node]',
  },
  context: { type: 'number', fallback: 2048, describe: 'Measure the speed of a token behind this many others' },
});

/** Flags of every command that knows passes. They come before a config file is read, so they are no keys of one. */
export const PLUGIN_FLAGS = grouped('General', {
  config: {
    type: 'string',
    describe: 'Read flags from this file (.json, .mjs); no file is read unless it is named here',
  },
  plugin: { type: 'string', repeats: true, describe: 'Load passes for --pipeline from this module; may be repeated' },
});
