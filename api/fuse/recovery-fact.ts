/** What was fitted in the place of branches, as data for reports and plans. */
import type { Quality } from '../../runtime/index.js';

/** What stands in the place of a branch, and how well it was fitted. */
export interface MapFact {
  readonly layer: number;
  readonly part: 'attention' | 'ffn';
  readonly kind: 'map' | 'bias' | 'nothing';
  /** In parts of the mean diagonal of the Gram matrix; null without a map. */
  readonly ridge: number | null;
  /** What is left of the squared error of removal, on text that the fit did not see. */
  readonly unseen: { readonly map: number; readonly bias: number };
}

/** Maps, and what they are worth on text that nothing was fitted on. */
export interface RecoveryFact {
  /** The text that maps were fitted on, and their ridges chosen, and how many positions of it. */
  readonly fitted: { readonly source: string; readonly positions: number };
  /** The text that they are judged on. */
  readonly source: string;
  readonly maps: readonly MapFact[];
  /** With nothing in the place of the branches, and with the maps. */
  readonly removed: Quality;
  readonly recovered: Quality;
}
