/** Where models run: the flags for it, and what is said about it. */

import { Diagnostic } from '../../ir/index.js';
import { checkPlacement, type Placement } from '../../runtime/index.js';
import type { Talk } from '../basics/progress.js';

/** Warns where `checkPlacement` would refuse. */
export function noteFallback(placement: Placement, place: string, talk: Talk): void {
  try {
    checkPlacement(placement, place);
  } catch (error) {
    if (!(error instanceof Diagnostic)) throw error;
    talk.note(`warning: ${error.place}: ${error.text}`);
  }
}
