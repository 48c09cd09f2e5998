/**
 * The operators that attend, each with what its operands are for. Everything that asks about one by name looks here: which
 * branches are attentions and what dies with them, which inputs are caches, masks and positions.
 *
 * What an operator does with heads is a rule of its own (heads/attention-rules.ts), which only merging and cutting need. Where a
 * file does not say how large its caches are, runtime/signature/cache-ports.ts reads it from the operator's attributes.
 */
import type { Node } from '../../ir/core.js';

/** What an operand tells: the words of the roles of graph inputs. */
export type OperandRole = 'mask' | 'bias' | 'positions' | 'past-length' | 'total-length' | 'last-index';

export interface AttentionOperator {
  /** Operands that hold the past. */
  readonly pasts: readonly number[];
  /** Results that continue a past, by its operand, and what they hold. */
  readonly presents?: Readonly<Record<number, readonly [result: number, part: 'key' | 'value' | 'both']>>;
  /** The operand with the keys of the new tokens, where they come apart from the queries. */
  readonly keys?: number;
  readonly roles?: Readonly<Record<number, OperandRole>>;
  /** The operand with the table of cosines, a row per position, where it rotates by itself. */
  readonly cosines?: number;
}

/** By `node.op`. */
const OPERATORS: ReadonlyMap<string, AttentionOperator> = new Map(
  Object.entries<AttentionOperator>({
    Attention: {
      pasts: [4, 5],
      presents: { 4: [1, 'key'], 5: [2, 'value'] },
      keys: 1,
      roles: { 3: 'bias', 6: 'total-length' },
    },
    'com.microsoft.Attention': {
      pasts: [4],
      presents: { 4: [1, 'both'] },
      roles: { 3: 'mask', 5: 'bias', 6: 'past-length' },
    },
    'com.microsoft.GroupQueryAttention': {
      pasts: [3, 4],
      presents: { 3: [1, 'key'], 4: [2, 'value'] },
      keys: 1,
      roles: { 5: 'last-index', 6: 'total-length', 9: 'positions', 10: 'bias' },
      cosines: 7,
    },
    'com.microsoft.MultiHeadAttention': {
      pasts: [6, 7],
      presents: { 6: [1, 'key'], 7: [2, 'value'] },
      keys: 1,
      roles: { 4: 'mask', 5: 'bias', 8: 'past-length' },
    },
    'com.microsoft.DecoderMaskedMultiHeadAttention': {
      pasts: [5, 6],
      presents: { 5: [1, 'key'], 6: [2, 'value'] },
      keys: 1,
      roles: { 3: 'mask', 4: 'bias', 7: 'past-length' },
    },
    'com.microsoft.DecoderMaskedSelfAttention': { pasts: [4] },
    'com.microsoft.QAttention': { pasts: [8] },
    'com.microsoft.SparseAttention': { pasts: [3, 4] },
    'com.microsoft.PagedAttention': { pasts: [3, 4] },
  }),
);

/** Operators that attend, of which nothing more is known: any operand of theirs may be a cache. */
const OTHERS = ['PackedAttention', 'PackedMultiHeadAttention', 'LinearAttention'];

const NAMES = new Set([...[...OPERATORS.keys()].map((op) => op.slice(op.lastIndexOf('.') + 1)), ...OTHERS]);

/** True for operators that attend, whatever domain they are said to be of. */
export function isAttentionOperator({ opType }: Node): boolean {
  return NAMES.has(opType);
}

/** What is known of the operands of an attention operator; undefined for any other operator. */
export function attentionOperator({ op }: Node): AttentionOperator | undefined {
  return OPERATORS.get(op);
}
