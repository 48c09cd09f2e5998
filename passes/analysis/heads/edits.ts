/** What has to change in the first of several attentions so that it does the work of all. */
import type { Attribute, Node } from '../../../ir/core.js';
import type { Weight } from '../../../ir/weight.js';
import type { Cut, Parts } from './spread.js';

/** What has to change in a node of the frame so that it does the work of all. */
export type HeadEdit = { readonly node: Node } & (
  | { readonly kind: 'attribute'; readonly name: string; readonly attribute: Attribute }
  /** Operand `index` becomes the members' constants put side by side along `axis`, or a rank's share of the one's. */
  | {
      readonly kind: 'constant';
      readonly index: number;
      readonly weights: readonly Weight[];
      readonly axis: number;
      readonly parts: Parts;
      readonly cuts?: readonly Cut[] | undefined;
    }
  /** Operand `index`, computed for all heads alike, becomes a rank's share of it along `axis`. */
  | { readonly kind: 'sliced'; readonly index: number; readonly axis: number; readonly cut: Cut }
  /** Operand `index` becomes the members' constants, each for its own count of heads, `place` dimensions from the end. */
  | {
      readonly kind: 'repeated';
      readonly index: number;
      readonly weights: readonly Weight[];
      readonly place: number;
      readonly counts: readonly number[];
    }
  /** Operand `index`, differing weights of a norm, becomes ones; a factor after it makes up for them. */
  | { readonly kind: 'ones'; readonly index: number; readonly like: Weight }
  /** Result 0 is multiplied by the members' factors for the channels of a head, placed like `repeated`. */
  | {
      readonly kind: 'scaled';
      readonly weights: readonly Weight[];
      readonly place: number;
      readonly counts: readonly number[];
    }
  /** Element `position` of operand `index`, a shape or a list of sizes, becomes `value`. */
  | { readonly kind: 'element'; readonly index: number; readonly position: number; readonly value: number }
);

/** What an edit changes in its node: two edits with one target are the same. */
export function targetOf(edit: HeadEdit): string {
  if (edit.kind === 'attribute') return edit.name;
  if (edit.kind === 'scaled') return 'result';
  return edit.kind === 'element' ? `${edit.index},${edit.position}` : `${edit.index}`;
}

/** The name of an attribute that two nodes do not agree on; null when there is none but `varying` ones. */
export function differingAttribute(a: Node, b: Node, varying: readonly string[]): string | null {
  const names = new Set([...a.attributes.keys(), ...b.attributes.keys()]);
  for (const name of names) {
    if (!varying.includes(name) && !sameAttribute(a.attributes.get(name), b.attributes.get(name))) return name;
  }
  return null;
}

function sameAttribute(a: Attribute | undefined, b: Attribute | undefined): boolean {
  if (a?.kind !== b?.kind) return false;
  if (a?.kind === 'tensor' && b?.kind === 'tensor') return a.value.weight === b.value.weight;
  const isPlain = a && b && !['graph', 'graphs', 'tensors', 'opaque'].includes(a.kind);
  return isPlain === true && 'value' in a && 'value' in b && String(a.value) === String(b.value);
}
