/** Where models run: the flags for it, and what is said about it. */

import { Diagnostic } from '../ir/index.js';
import { checkPlacement, countsText, type Placement } from '../runtime/index.js';
import type { Talk } from './talk.js';

export const PROVIDER_OPTIONS = {
  provider: {
    choices: ['cpu', 'cuda', 'webgpu'] as const,
    default: 'cpu' as const,
    describe: 'Where to run; refused when the CPU does the work instead',
  },
  'allow-fallback': { type: 'boolean', default: false, describe: 'Only warn about that' },
} as const;

/** `on cuda 312 nodes; on the CPU 14 small ones (Shape 9, Gather 5)`. */
export function renderPlacement({ provider, onProvider, computedOnCpu, smallOnCpu }: Placement): string {
  const part = (counts: Placement['smallOnCpu'], what: string): string => {
    const count = Object.values(counts).reduce((sum, each) => sum + each, 0);
    return count > 0 ? `; on the CPU ${count} ${what} (${countsText(counts)})` : '';
  };
  return `on ${provider} ${onProvider} nodes${part(computedOnCpu, "of the model's work")}${part(smallOnCpu, 'small ones')}`;
}

/** Warns where `checkPlacement` would refuse. */
export function noteFallback(placement: Placement, place: string, talk: Talk): void {
  try {
    checkPlacement(placement, place);
  } catch (error) {
    if (!(error instanceof Diagnostic)) throw error;
    talk.note(`warning: ${error.place}: ${error.text}`);
  }
}
