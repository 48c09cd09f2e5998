/** The one way to say that something cannot be done, with the reason. */
import type { Node } from '../../ir/node.js';
import type { Value } from '../../ir/value.js';

/** What was recognised, although nothing more can be done with it. */
export type Recognised = 'experts' | 'quantised' | 'mixer' | 'cross attention';

/**
 * Why something cannot be done: the message is the reason, half a sentence that follows what was wanted ("stays parallel:
 * its norms differ"). Analyses throw it from any depth; `attempt` makes it a value, and what a pass gives to `missed` or
 * to an error of errors.ts is that value.
 */
export class Refusal extends Error {
  constructor(
    reason: string,
    /** The node that the reason is about; null where it is not about a single one. */
    readonly node: Node | null = null,
    readonly recognised: Recognised | null = null,
  ) {
    super(reason);
  }
}

/** What `work` gives, or the refusal that it threw. Other errors pass. */
export function attempt<T>(work: () => T): T | Refusal {
  try {
    return work();
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

/** An operand that a node cannot do without. Throws Refusal where it is absent. */
export function operandOf(node: Node, index: number): Value {
  const value = node.input(index);
  if (!value) throw new Refusal(`${describe(node)} has no operand ${index}`, node);
  return value;
}

/** A node as people find it: its operator and its name. */
export function describe(node: Node | null | undefined): string {
  return node ? `${node.op}${node.name ? ` '${node.name}'` : ''}` : 'an input';
}
