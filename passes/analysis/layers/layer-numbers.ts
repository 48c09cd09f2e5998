/** Numbers of layers in the original model: from where nodes came, else from names, else by position. */
import type { Node } from '../../../ir/core.js';
import { constantOf } from '../values/constants.js';
import type { Branch, LayerOrigin } from './layer.js';
import { NUMBERED } from './weight-names.js';

export interface LayerNumber {
  readonly index: number;
  readonly label: string;
  readonly name: string;
}

/** One entry per layer (a group of branches). */
export function layerNumbers(groups: readonly (readonly Branch[])[], origin?: LayerOrigin): LayerNumber[] {
  const named = groups.map(readNames);
  if (origin) {
    return groups.map((branches, i) => {
      const index = originOf(branches, origin) ?? i;
      return { index, label: String(index), name: named[i]?.name ?? `layer ${index}` };
    });
  }
  let last = -1;
  const isUsable = named.every((number) => {
    const isNext = number !== null && number.index > last;
    last = number?.index ?? last;
    return isNext;
  });
  if (isUsable) return named as LayerNumber[];
  return groups.map((_, index) => ({ index, label: String(index), name: `layer ${index}` }));
}

/** The original layer that branches came from; null when none of their nodes was there. */
export function originOf(branches: readonly Branch[], origin: LayerOrigin): number | null {
  for (const branch of branches) {
    for (const node of branch.nodes) {
      const index = origin.get(node);
      if (index !== undefined) return index;
    }
  }
  return null;
}

/** The original layer of one branch: where its nodes came from, else what its names say. */
export function numberOf(branch: Branch, origin?: LayerOrigin): number | null {
  return (origin && originOf([branch], origin)) ?? readNames([branch])?.index ?? null;
}

/** The number most of the branches' names agree on. */
function readNames(branches: readonly Branch[]): LayerNumber | null {
  const votes = new Map<string, { count: number; number: LayerNumber }>();
  for (const branch of branches) {
    for (const node of branch.nodes) {
      for (const text of namesOf(node)) {
        const match = NUMBERED.exec(text);
        if (!match) continue;
        const label = `${match[1]}${match[2] ?? ''}`;
        const vote = votes.get(label) ?? { count: 0, number: numberFrom(match, text, label) };
        vote.count++;
        votes.set(label, vote);
      }
    }
  }
  let best: { count: number; number: LayerNumber } | null = null;
  for (const vote of votes.values()) {
    // A range names a layer that onnx-fuse made: it outweighs the names left on the frame's nodes.
    const weight = vote.number.label.includes('-') ? Number.POSITIVE_INFINITY : vote.count;
    if (!best || weight > best.count) best = { count: weight, number: vote.number };
  }
  return best?.number ?? null;
}

/** `model.layers.7` from `/model/layers.7/mlp/...`, or from the module path that dynamo leaves in metadata. */
function numberFrom(match: RegExpExecArray, text: string, label: string): LayerNumber {
  const until = text.slice(0, match.index + match[0].length);
  const isPath = text.startsWith('/');
  const name = /[\w.-]*$/.exec(isPath ? until.replaceAll('/', '.') : until)?.[0] ?? until;
  return { index: Number(match[1]), label, name: name.replace(/^\.+/, '') };
}

function* namesOf(node: Node): Generator<string> {
  // A fused range in a weight's name says more than the node's own name: ask the weights first.
  for (const value of node.inputs) if (value && constantOf(value)) yield value.name;
  if (node.name) yield node.name;
  for (const [key, text] of node.metadata) if (/namespace|name_scopes/.test(key)) yield text;
}
