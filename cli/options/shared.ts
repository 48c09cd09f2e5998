/** Flags that several commands have. */
import type { ServingRuntime } from '../../api/plan/measured-speed.js';

/** Where models run. */
export const PROVIDER_FLAGS = {
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
} as const;

/** Of every command. */
export const JSON_FLAG = {
  type: 'string',
  describe: 'Give the result as JSON, on standard output or in this file, whose name ends in .json',
  takesFile: '.json',
} as const;

const SERVING_RUNTIMES = ['genai', 'node'] as const satisfies readonly ServingRuntime[];

/** What a token is timed in, and behind how many others. */
export const SPEED_FLAGS = {
  runtime: {
    type: 'string',
    choices: SERVING_RUNTIMES,
    describe: 'Measure speed in this runtime [genai where ONNX_FUSE_PYTHON or python3 has it, else node]',
  },
  context: { type: 'number', fallback: 2048, describe: 'Measure the speed of a token behind this many others' },
} as const;

/** Flags of every command that knows passes. They come before a config file is read, so they are no keys of one. */
export const PLUGIN_FLAGS = {
  config: {
    type: 'string',
    describe: 'Read flags from this file (.json, .mjs); no file is read unless it is named here',
  },
  plugin: { type: 'string', repeats: true, describe: 'Load passes for --pipeline from this module; may be repeated' },
} as const;
