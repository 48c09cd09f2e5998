/** What the inputs and outputs of a model are for. */

import type { DataType, Dim } from '../../ir/type.js';

/**
 * What an input is for.
 * - `tokens` ids [batch, sequence]; `embeddings` floats [batch, sequence, width]
 * - `mask` 1 where a position exists [batch, past + sequence]; `bias` the same per query, [batch, 1, sequence, total]:
 *   bool or int (1 attends), or a float that is added to the scores
 * - `positions` absolute positions of the new tokens, any rank, the sequence last
 * - `segments` token types, all 0
 * - `cache` past keys, values or states
 * - `use-cache` bool: false for the first run
 * - `past-length`, `new-length`, `total-length`, `last-index` (total - 1): scalars or one per batch row
 * - `float` and `index`: of no known purpose; they get seeded normal values and zeros, and are reported as assumed
 */
export type InputRole =
  | 'tokens'
  | 'embeddings'
  | 'mask'
  | 'bias'
  | 'positions'
  | 'segments'
  | 'cache'
  | 'use-cache'
  | 'past-length'
  | 'new-length'
  | 'total-length'
  | 'last-index'
  | 'gate'
  | 'float'
  | 'index'
  | 'unknown';

/** An input of a model, and what it is for. */
export interface InputInfo {
  readonly name: string;
  readonly dtype: DataType;
  /** null when the model says nothing of the shape. */
  readonly shape: readonly Dim[] | null;
  readonly role: InputRole;
}

/** An output of a model, and what it is. */
export interface OutputInfo {
  readonly name: string;
  readonly dtype: DataType;
  readonly shape: readonly Dim[] | null;
  readonly role: 'logits' | 'cache' | 'other';
}
