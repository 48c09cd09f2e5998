/** Readers that stand for nothing: they go where what they read does, or changes its size. */
import type { Node, Value } from '../../ir/core.js';
import type { Rewriter } from './rewriter.js';

/** Erases what reads `value` for results that nobody reads: it would have to fit what `value` becomes. */
export function eraseUnreadReaders(value: Value, rewriter: Rewriter): void {
  for (const { node } of value.uses) rewriter.eraseIfDead(node);
}

/** Erases what is computed from `value` and does not lead to an output. */
export function eraseDeadReaders(value: Value, rewriter: Rewriter): void {
  const found = new Set<Node>();
  const open = [value];
  for (let at = open.pop(); at; at = open.pop()) {
    for (const { node } of at.uses) {
      if (found.has(node)) continue;
      found.add(node);
      for (const result of node.outputs) if (result) open.push(result);
    }
  }
  // The last ones first, so that those before them are read no more.
  for (const node of [...found].reverse()) rewriter.eraseIfDead(node);
}
