/**
 * Numbers of layers in the original model, read from names: `/model/layers.7/mlp/...` of nodes, `model.layers.7.mlp...` of
 * weights, the module paths that exporters leave in metadata.
 *
 * A name may hold several numbers (`block.3/layer.1`, `layers.3.mlp.experts.5`), and a wrong one. So the word before the
 * number makes a family, and a family is believed when the numbers that it gives the branches follow the residual stream.
 */
import type { Node } from '../../../ir/core.js';
import { constantOf } from '../values/constants.js';
import { type Branch, type LayerOrigin, mixesTokens } from './layer.js';

export interface LayerNumber {
  readonly index: number;
  readonly label: string;
  readonly name: string;
}

/** What names say about the branches of a stream. */
export interface NamedNumbers {
  /** One entry a branch; null where its names have no number. Null as a whole when names cannot number the layers. */
  readonly numbers: readonly (LayerNumber | null)[] | null;
  /** Why numbers that are there are not believed; null when they are, or when there are none. */
  readonly doubt: string | null;
  /** The numbers in the names of any nodes, in the believed family. */
  readonly of: (nodes: Iterable<Node>) => LayerNumber[];
}

/**
 * Words that exporters use for layers: these may be joined to their number by an underscore, a hyphen or nothing, too. What comes
 * after a number that a hyphen joins is no end of a range: `layer-3-1` is in layer 3.
 */
const NUMBERED =
  /(?:^|[^a-zA-Z])([a-zA-Z]*(?:layers?|blocks?)(?=[._/-]*\d)|(?:h|blk)(?=[._/-]+\d))[._/-]*(\d+)((?<!-\d+)-\d+)?(?!\d)/gi;
/** Any other word counts when the number is a part of a path. */
const IN_PATH = /(?:^|[^a-zA-Z])([a-zA-Z][a-zA-Z_]*)[./](\d+)(?=[./'"\]:]|$)/g;

/** A number in a name. */
interface Mention {
  readonly family: string;
  readonly match: RegExpExecArray;
  readonly text: string;
}

/** The original layer that nodes came from; null when none of them was there. The first that was counts. */
export function originOf(nodes: Iterable<Node>, origin: LayerOrigin): number | null {
  for (const node of nodes) {
    const index = origin.get(node);
    if (index !== undefined) return index;
  }
  return null;
}

/** Reads the numbers of `branches`, which are in the order of the stream. */
export function namedNumbers(branches: readonly Branch[]): NamedNumbers {
  const votes = branches.map(({ nodes }) => votesOf(nodes));
  const families = new Map<string, { readonly isUsual: boolean; count: number }>();
  for (const own of votes) {
    for (const family of own.keys()) {
      const known = families.get(family) ?? { isUsual: isUsual(family), count: 0 };
      known.count++;
      families.set(family, known);
    }
  }
  const likely = [...families]
    // Of a word that is not usual, nothing but the numbers of all branches says that it means layers (`mlp.2` does not).
    .filter(([, { count, isUsual }]) => (isUsual ? 2 * count >= branches.length : count === branches.length))
    .sort(([, a], [, b]) => b.count - a.count || Number(b.isUsual) - Number(a.isUsual));
  const usual = [...families.values()].filter((family) => family.isUsual);
  const most = Math.max(0, ...usual.map(({ count }) => count));
  let doubt: string | null = null;
  if (likely.length === 0 && most > 0)
    doubt = `only ${most} of ${branches.length} branches ${most === 1 ? 'has a number in its name' : 'have a number in their names'}`;
  for (const [family, { isUsual }] of likely) {
    const numbers = votes.map((own) => winner(own.get(family)));
    const problem = contradiction(branches, numbers);
    if (!problem) return { numbers, doubt: null, of: (nodes) => mentioned(nodes, family) };
    if (isUsual) doubt ??= problem;
  }
  return { numbers: null, doubt, of: () => [] };
}

function isUsual(family: string): boolean {
  return /(?:layers?|blocks?)$|^h$|^blk$/i.test(family);
}

/** Why these numbers cannot be those of the layers; null when they can. */
function contradiction(branches: readonly Branch[], numbers: readonly (LayerNumber | null)[]): string | null {
  const spans = new Map<number, { first: number; last: number; mixers: Set<number> }>();
  for (const [i, branch] of branches.entries()) {
    const number = numbers[i]?.index;
    if (number === undefined) continue;
    const { index } = branch.stage;
    const span = spans.get(number) ?? { first: index, last: index, mixers: new Set() };
    span.last = index;
    if (branch.role === 'attention') span.mixers.add(index);
    spans.set(number, span);
  }
  const ordered = [...spans].sort(([a], [b]) => a - b);
  for (const [i, [number, span]] of ordered.entries()) {
    if (span.mixers.size > 1) return `the names give layer ${number} ${span.mixers.size} attentions one after another`;
    const [next, after] = ordered[i + 1] ?? [];
    if (!after || next === undefined) continue;
    const isBefore = after.first < span.first || after.last < span.last;
    // Layers that overlap are parallel: they share the sum that they start or end at.
    const overlap = after.first < span.last && after.first !== span.first && after.last !== span.last;
    if (isBefore || overlap) return `the names say layer ${number} where layer ${next} is in the order of the graph`;
  }
  return null;
}

type Vote = { count: number; readonly mention: Mention };
/** By family and label. */
type Votes = Map<string, Map<string, Vote>>;

function votesOf(nodes: Iterable<Node>): Votes {
  const votes: Votes = new Map();
  for (const node of nodes) {
    for (const text of namesOf(node)) {
      for (const mention of mentionsIn(text)) {
        const own: Map<string, Vote> = votes.get(mention.family) ?? new Map();
        votes.set(mention.family, own);
        const label = labelOf(mention);
        const vote = own.get(label) ?? { count: 0, mention };
        vote.count++;
        own.set(label, vote);
      }
    }
  }
  return votes;
}

/** The number that most names agree on. A range names a layer that onnx-fuse made: it outweighs all others. */
function winner(votes: ReadonlyMap<string, Vote> | undefined): LayerNumber | null {
  let best: { weight: number; mention: Mention } | null = null;
  for (const [label, { count, mention }] of votes ?? []) {
    const weight = label.includes('-') ? Number.POSITIVE_INFINITY : count;
    if (!best || weight > best.weight) best = { weight, mention };
  }
  return best && numberFrom(best.mention);
}

function mentioned(nodes: Iterable<Node>, family: string): LayerNumber[] {
  const votes = votesOf(nodes).get(family);
  return [...(votes?.values() ?? [])].map(({ mention }) => numberFrom(mention));
}

/** The numbers in a text, one for each family: the outermost. */
function mentionsIn(text: string): Mention[] {
  const found = new Map<string, Mention>();
  if (!/\d/.test(text)) return [];
  for (const pattern of [NUMBERED, IN_PATH]) {
    for (const match of text.matchAll(pattern)) {
      const family = match[1] as string;
      if (!found.has(family)) found.set(family, { family, match, text });
    }
  }
  return [...found.values()];
}

/** `model.layers.7` from `/model/layers.7/mlp/...`, or from the module path that dynamo leaves in metadata. */
function numberFrom(mention: Mention): LayerNumber {
  const { match, text } = mention;
  const until = text.slice(0, match.index + match[0].length);
  const isPath = text.startsWith('/');
  const name = /[\w.-]*$/.exec(isPath ? until.replaceAll('/', '.') : until)?.[0] ?? until;
  return { index: Number(match[2]), label: labelOf(mention), name: name.replace(/^\.+/, '') };
}

/** `7`, or `4-9` of a layer that others were fused into. */
function labelOf({ match }: Mention): string {
  return `${match[2]}${match[3] ?? ''}`;
}

function* namesOf(node: Node): Generator<string> {
  // A fused range in a weight's name says more than the node's own name: ask the weights first.
  for (const value of node.inputs) if (value && constantOf(value)) yield value.name;
  if (node.name) yield node.name;
  else for (const value of node.outputs) if (value) yield value.name;
  for (const [key, text] of node.metadata) if (/namespace|name_scopes/.test(key)) yield text;
}

/** The layer of every branch, those without a number of their own included; null when one of them cannot be told. */
export function completed(
  branches: readonly Branch[],
  numbers: readonly (LayerNumber | null)[],
): readonly LayerNumber[] | null {
  const full: (LayerNumber | null)[] = [...numbers];
  for (const [i, branch] of branches.entries()) {
    if (full[i]) continue;
    const before = full[i - 1] ?? null;
    const after = full.slice(i).find((number) => number !== null) ?? null;
    const own = before && !mixesTokens(branch) ? lastMixed(branches, full, i) : null;
    if (before && after && before.index === after.index) full[i] = before;
    else if (own) full[i] = own;
    else if (after && isFirst(branch) && !startsAlready(branches, full, after)) full[i] = after;
    else {
      const index = before ? before.index + 1 : after ? after.index - 1 : 0;
      if (index < 0 || (after && index >= after.index)) return null;
      full[i] = { index, label: String(index), name: `layer ${index}` };
    }
  }
  return full as LayerNumber[];
}

/** The layer of the mixers last before `at` that has nothing but mixers yet: the first where several are on one sum. */
function lastMixed(
  branches: readonly Branch[],
  numbers: readonly (LayerNumber | null)[],
  at: number,
): LayerNumber | null {
  const last = branches.slice(0, at).map(mixesTokens).lastIndexOf(true);
  const isOwn = (i: number): boolean =>
    branches[i]?.stage === branches[last]?.stage && mixesTokens(branches[i] as Branch);
  const own = numbers.filter((number, i) => number && isOwn(i)) as LayerNumber[];
  const isNext = numbers.slice(last + 1, at).every((number) => own.some(({ index }) => index === number?.index));
  if (last < 0 || !isNext) return null;
  return (
    own.find(({ index }) => branches.every((other, i) => numbers[i]?.index !== index || mixesTokens(other))) ?? null
  );
}

/** True for what comes before the FFN of a layer. */
function isFirst(branch: Branch): boolean {
  return mixesTokens(branch) || branch.role === 'linear';
}

function startsAlready(
  branches: readonly Branch[],
  numbers: readonly (LayerNumber | null)[],
  { index }: LayerNumber,
): boolean {
  // A linear beside an FFN, on one sum with it, comes before nothing.
  const isBeside = ({ role, stage }: Branch): boolean => role === 'linear' && stage.branches.length > 1;
  return branches.some((branch, i) => numbers[i]?.index === index && isFirst(branch) && !isBeside(branch));
}
