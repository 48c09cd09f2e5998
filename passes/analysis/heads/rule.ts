/** What the rules of attention-rules.ts and head-rules.ts share: operands with heads, and sizes around them. */

import type { Node, Value } from '../../../ir/core.js';
import { matchLinear } from '../matrices/linear.js';
import { describe, Refusal } from '../refusal.js';
import { constantOf } from '../values/constants.js';
import type { Sizes } from '../values/dimensions.js';
import type { HeadRegion, State } from './region.js';
import { type Parts, rankOf, type Spread } from './spread.js';

/** What one operator does with heads: the states of its results from those of its operands. */
export interface Rule {
  /** Attributes that may differ from member to member: the rule looks at them itself. */
  readonly varying?: readonly string[];
  /** Its first operand has the heads, and the others are sizes and axes, which the rule reads by itself. */
  readonly readsSizes?: true;
  /** It passes on factors that are still to be applied. */
  readonly carriesScale?: true;
  /** Asked before the operands are read; null leaves the answer to what follows. */
  early?(region: HeadRegion, nodes: readonly Node[], index: number, parts?: Parts): State | null;
  /** Asked with the states of all operands, of which one at least is not shared. */
  late?(region: HeadRegion, nodes: readonly Node[], index: number, states: readonly (State | null)[]): State;
}

export function spreadState(spread: Spread): State {
  return { kind: 'spread', spread };
}

/** The one spread among the operands, the others being shared. */
export function only(nodes: readonly Node[], states: readonly (State | null)[]): Spread {
  const [first, ...others] = states;
  const isAlone = others.every((state) => !state || state.kind === 'shared' || state.kind === 'sizes');
  if (first?.kind === 'spread' && isAlone) return first.spread;
  const at = states.findIndex((state) => state?.kind === 'constants');
  if (at >= 0) throw new Refusal(`'${nodes[0]?.input(at)?.name}' differs from layer to layer and serves every head`);
  throw new Refusal(`${describe(nodes[0])} does not read heads as its first operand`);
}

/** The stored dimension that an axis names, counted from the front. */
export function stored(axis: number, spread: Spread): number {
  return axis < 0 ? axis + rankOf(spread) : axis;
}

/** Throws where an operator works along the heads. */
export function notAlong(node: Node, axis: number, spread: Spread): number {
  const at = stored(axis, spread);
  if (at === spread.from) throw new Refusal(`${describe(node)} works across the heads`);
  return at;
}

/** True where a shape has 1, or nothing, at the dimension counted from the end. */
export function isOneAt(shape: Sizes | null, fromEnd: number): boolean {
  return shape !== null && (shape.length < fromEnd || shape.at(-fromEnd)?.now === 1);
}

/** True for a projection, with what is added to it. */
export function leadsToLinear(value: Value): boolean {
  return projectionOf(value) !== null;
}

function projectionOf(value: Value): Value | null {
  if (value.producer?.op !== 'Split' && matchLinear(value)) return value;
  const node = value.producer;
  if (!node || !['Add', 'Cast', 'Identity'].includes(node.op)) return null;
  const operands = node.inputs.filter((each) => each && !constantOf(each)) as Value[];
  return operands.length === 1 ? projectionOf(operands[0] as Value) : null;
}

/** Last dimension of a value. */
export function widthOf(region: HeadRegion, value: Value): number | null {
  const source = projectionOf(value);
  const linear = source && matchLinear(source);
  return linear?.outWidth ?? region.dimensions.shape(value)?.at(-1)?.now ?? null;
}
