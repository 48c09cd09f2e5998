/** One way to say that something cannot be done, with the reason. */

import type { Node } from '../../ir/node.js';

/** The reason why something is no FFN. */
export class Mismatch extends Error {}

export function describe(node: Node | null | undefined): string {
  return node ? `${node.op}${node.name ? ` '${node.name}'` : ''}` : 'an input';
}

/** Thrown when a format cannot do what was asked; the message is the reason. */
export class NotExact extends Error {}

/** Why a value that looks like a linear cannot be read as one. */
export class Unreadable extends Error {}
