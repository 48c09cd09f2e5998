/** The flags that say where models run. */

export const PROVIDER_OPTIONS = {
  provider: {
    choices: ['cpu', 'cuda', 'webgpu'] as const,
    default: 'cpu' as const,
    describe: 'Run on this provider; it is an error when the CPU does the work instead',
  },
  'allow-fallback': { type: 'boolean', default: false, describe: 'Only warn when the CPU does the work instead' },
} as const;
