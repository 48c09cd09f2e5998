/** The flags that say where models run. */

export const PROVIDER_OPTIONS = {
  provider: {
    choices: ['cpu', 'cuda', 'webgpu'] as const,
    default: 'cpu' as const,
    describe: 'Where to run; refused when the CPU does the work instead',
  },
  'allow-fallback': { type: 'boolean', default: false, describe: 'Only warn about that' },
} as const;
