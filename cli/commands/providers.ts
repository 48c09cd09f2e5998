/** Flags that several commands have: where models run, and what their speed is measured in. */
import { SERVING_RUNTIMES } from '../../api/plan/measured-speed.js';

/** Where models run. */

export const PROVIDER_OPTIONS = {
  provider: {
    choices: ['cpu', 'cuda', 'webgpu'] as const,
    default: 'cpu' as const,
    describe: 'Run on this provider; it is an error when the CPU does the work instead',
  },
  'allow-fallback': { type: 'boolean', default: false, describe: 'Only warn when the CPU does the work instead' },
} as const;

/** What a token is timed in, and behind how many others. */
export const SPEED_OPTIONS = {
  runtime: {
    choices: SERVING_RUNTIMES,
    describe: 'Measure speed in this runtime [genai where ONNX_FUSE_PYTHON or python3 has it, else node]',
  },
  context: { type: 'number', default: 2048, describe: 'Measure the speed of a token behind this many others' },
} as const;
