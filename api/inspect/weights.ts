/** Where the bytes of a model's weights are. */
import type { Model } from '../../ir/index.js';
import { plainDecoder } from '../../passes/index.js';
import { type BranchWork, partsOf, weightBytes, workOf } from '../../runtime/index.js';

/**
 * What weights are for: what a branch alone reads, by its role; `table` is looked up, as token embeddings are, and nothing
 * else; `rest` is the head, the last norm, and what several read: a table that is also the head, for one.
 */
export type WeightKind = BranchWork['role'] | 'table' | 'rest';

/** The weights of a model in bytes. */
export interface WeightShares {
  /** Together they are all weights. */
  readonly kinds: ReadonlyMap<WeightKind, number>;
  /** Of each branch, in the order of the stream. */
  readonly branches: readonly BranchWork[];
}

/** Counts every distinct weight once. No weight is read. */
export function weightShares(model: Model): WeightShares {
  const plain = plainDecoder(model, 'token');
  const branches = partsOf(plain);
  const kinds = new Map<WeightKind, number>();
  for (const { role, weightBytes } of branches) kinds.set(role, (kinds.get(role) ?? 0) + weightBytes);
  kinds.set('table', weightBytes(plain) - workOf(plain).weightBytes);
  const counted = [...kinds.values()].reduce((sum, bytes) => sum + bytes, 0);
  kinds.set('rest', weightBytes(model) - counted);
  return { kinds, branches };
}
