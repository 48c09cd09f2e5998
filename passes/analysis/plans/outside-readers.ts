/**
 * Who reads the residual stream between two sums, besides the branches of the second: a tap for a draft model (EAGLE), an
 * auxiliary head, a hidden state that is a graph output. Layers around such a reader cannot be computed at the same time:
 * the value that it reads would not be there any more.
 */
import type { Node, Value } from '../../../ir/core.js';
import type { Branch, Layer } from '../layers/layer.js';
import { pointOf, type ResidualStream, readsOnlyShape, type Stage, valueAt } from '../layers/residual-stream.js';
import { describe, Refusal } from '../refusal.js';

/** A sum of the stream, with those of its branches that are looked at. */
export interface SumOfLayer {
  readonly layer: Layer;
  readonly stage: Stage;
  readonly branches: readonly Branch[];
}

/**
 * The first such reader between two sums that follow one another, as the reason why layers are not joined across it; null
 * when there is none. Whoever reads inside an FFN of the second reads the stream, too.
 */
export function readerBetween(
  { layer, stage: first }: SumOfLayer,
  { layer: next, stage: second, branches }: SumOfLayer,
  { position }: ResidualStream,
): Refusal | null {
  const between = `the residual stream ${layer === next ? `inside layer ${layer.label}` : `between layers ${layer.label} and ${next.label}`}`;
  const until = position.get(second.end) ?? -1;
  const inside = new Set(branches.flatMap(({ nodes }) => [...nodes]));
  const isOwn = (node: Node): boolean =>
    inside.has(node) || node === second.end || node.outputs.some((result) => result && isBefore(result));
  const isBefore = (value: Value): boolean => (position.get(pointOf(value)) ?? Number.POSITIVE_INFINITY) <= until;
  const readerOf = (value: Value): Refusal | null => {
    const isInner = value.producer !== null && inside.has(value.producer);
    const what = `'${value.name}', ${isInner ? `inside the FFN of layer ${next.label}` : between}`;
    if (value.isGraphOutput) return new Refusal(`${what}, is a graph output`);
    const reader = value.uses.find(({ node }) => !isOwn(node) && !readsOnlyShape(node))?.node;
    return reader ? new Refusal(`${describe(reader)} reads ${what}`, reader) : null;
  };
  const sum = valueAt(second.end)?.producer ?? second.end;
  const inner = branches.flatMap(({ role, nodes, output }) =>
    role === 'ffn' ? [...nodes].flatMap((node) => node.outputs).filter((value) => value !== output) : [],
  );
  const seen = new Set<Value | null>(inner);
  const open = 'opType' in first.end ? [...first.end.outputs] : [first.end];
  // What lies between the two sums, copies or a Reshape, is the stream as well.
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    if (!value || seen.has(value)) continue;
    seen.add(value);
    for (const { node } of value.uses) if (!inside.has(node) && node !== sum && isOwn(node)) open.push(...node.outputs);
  }
  for (const value of seen) {
    const reason = value && readerOf(value);
    if (reason) return reason;
  }
  return null;
}
