/**
 * The part of a branch that is cut over ranks: between the projections that every rank does a share of and the last one,
 * after which the ranks' results are summed.
 */

import type { Node, Value } from '../../../ir/core.js';
import type { AttentionBranch, FfnBranch, OtherBranch } from '../layers/layer.js';
import { isSame } from '../layers/residual-stream.js';
import { isLinearOperator } from '../matrices/linear.js';
import { Refusal } from '../refusal.js';
import { constantOf } from '../values/constants.js';
import type { ElementTypes } from '../values/element-types.js';

type AnyBranch = AttentionBranch | FfnBranch | OtherBranch;

/** Multiplies by constant weights: a projection, or an operator that has projections inside. */
function isProjection(node: Node): boolean {
  return isLinearOperator(node) || node.op === 'com.microsoft.Attention';
}

/**
 * The last projection of a branch, behind which nothing but biases, factors and norms lie: the one that every path to the
 * branch's result goes through. Throws Refusal where there is none.
 */
export function lastProjection({ output, stage, nodes }: AnyBranch, types: ElementTypes): Node {
  const found = new Set<Node>();
  const seen = new Set<Value>();
  const open = [output];
  for (let value = open.pop(); value; value = open.pop()) {
    if (seen.has(value) || constantOf(value)) continue;
    seen.add(value);
    const node = value.producer;
    if (isSame(value, stage.start, types)) throw new Refusal('its result is not that of a projection alone');
    if (!node || !nodes.has(node)) continue;
    if (isProjection(node)) found.add(node);
    else for (const operand of node.inputs) if (operand) open.push(operand);
  }
  const [last, other] = found;
  if (!last) throw new Refusal('it does not end in a projection');
  if (other) throw new Refusal('it ends in more than one projection');
  if (!isLinearOperator(last)) throw new Refusal(`it ends in ${last.op}, which has no projection of its own`);
  return last;
}

/** What is cut in a branch. */
export interface CutExtent {
  /** The first projections: everything from them to the last one is cut. */
  readonly first: ReadonlySet<Node>;
  /** Whether a value depends on what is cut. Everything else is the same on all ranks. */
  isCut(value: Value): boolean;
}

/**
 * Tells what is cut when `roots` are to be computed: results of the projections before them, caches, and whatever is
 * computed from these, their shapes among it.
 */
export function extentOf(branch: AnyBranch, roots: readonly Value[], types: ElementTypes): CutExtent {
  const { stage, nodes } = branch;
  const caches = new Set(branch.role === 'attention' ? branch.attention.kvInputs : []);
  const first = new Set<Node>();
  const between = new Set<Node>();
  const open = [...roots];
  for (let value = open.pop(); value; value = open.pop()) {
    const node = value.producer;
    if (!node || node === stage.start || between.has(node) || first.has(node)) continue;
    if (isSame(value, stage.start, types)) continue;
    if (nodes.has(node) && isProjection(node)) {
      first.add(node);
      continue;
    }
    between.add(node);
    for (const operand of node.inputs) if (operand) open.push(operand);
  }
  const known = new Map<Value, boolean>();
  const isCut = (value: Value): boolean => {
    const found = known.get(value);
    if (found !== undefined) return found;
    known.set(value, false);
    const node = value.producer;
    const answer = node
      ? first.has(node) || (between.has(node) && node.inputs.some((operand) => operand !== null && isCut(operand)))
      : caches.has(value);
    known.set(value, answer);
    return answer;
  };
  return { first, isCut };
}
