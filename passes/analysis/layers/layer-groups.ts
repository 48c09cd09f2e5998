/**
 * Which branches make up a layer. Numbers decide where there are any, of where nodes came from or in names; otherwise the
 * order on the stream: an attention and the FFN after it, or one of them.
 */
import type { Node } from '../../../ir/core.js';
import { type Branch, type LayerOrigin, mixesTokens } from './layer.js';
import { completed, type LayerNumber, namedNumbers, originOf } from './layer-numbers.js';
import type { Stage } from './residual-stream.js';

/** A stage as far as it is read. */
export interface ReadStage {
  readonly stage: Stage;
  /** Empty for a stage that adds nothing to the stream. */
  readonly branches: readonly Branch[];
  /** The nodes of a stage that may hide branches which were not recognised; null for any other stage. */
  readonly hidden: ReadonlySet<Node> | null;
}

export interface Group extends LayerNumber {
  readonly branches: readonly Branch[];
  /** The stage in which a part of the layer, or all of it, is hidden. */
  readonly hidden: Stage | null;
}

export interface Grouping {
  /** In the order of their numbers. */
  readonly groups: readonly Group[];
  readonly numbering: 'names' | 'order';
  /** Why numbers that are in names are not those of the layers; null when they are, or when there are none. */
  readonly doubt: string | null;
}

/** Groups what was read of a stream to layers. With `origin`, branches keep the numbers they had there. */
export function groupLayers(stages: readonly ReadStage[], origin?: LayerOrigin): Grouping {
  const branches = stages.flatMap((each) => each.branches);
  if (origin) {
    const numbers = branches.map(({ nodes }) => {
      const index = originOf(nodes, origin);
      return index === null ? null : { index, label: String(index), name: `layer ${index}` };
    });
    const full = completed(branches, numbers);
    if (full) return { groups: byNumber(branches, full), numbering: 'names', doubt: null };
  }
  const { numbers, doubt, of } = namedNumbers(branches);
  const full = numbers && completed(branches, numbers);
  if (full) return { groups: withHidden(byNumber(branches, full), stages, of), numbering: 'names', doubt: null };
  const groups = byOrder(stages).map((own, index): Group => {
    return { index, label: String(index), name: `layer ${index}`, branches: own, hidden: null };
  });
  return { groups, numbering: 'order', doubt: doubt ?? (numbers && 'some branches have no number in their names') };
}

function byNumber(branches: readonly Branch[], numbers: readonly LayerNumber[]): Group[] {
  const groups = new Map<number, LayerNumber & { branches: Branch[]; hidden: null }>();
  for (const [i, branch] of branches.entries()) {
    const number = numbers[i] as LayerNumber;
    const group = groups.get(number.index) ?? { ...number, branches: [], hidden: null };
    // A label such as 4-9 is of the layer, whichever of its branches says so.
    if (number.label.includes('-')) groups.set(number.index, { ...group, ...number });
    else groups.set(number.index, group);
    group.branches.push(branch);
  }
  return [...groups.values()].sort((a, b) => a.index - b.index);
}

/** Marks the layers of which a part is in a hidden stage, and adds those that are there as a whole. */
function withHidden(
  groups: readonly Group[],
  stages: readonly ReadStage[],
  numbersOf: (nodes: Iterable<Node>) => LayerNumber[],
): Group[] {
  const all = new Map(groups.map((group) => [group.index, group]));
  for (const { stage, hidden } of stages) {
    if (!hidden) continue;
    const before = groups.filter(({ branches }) => branches.some((branch) => branch.stage.index < stage.index)).at(-1);
    const after = groups.find(({ branches }) => branches.some((branch) => branch.stage.index > stage.index));
    for (const number of numbersOf(hidden)) {
      // Tables that the first layer made for all of them bear its number.
      if (number.index < (before?.index ?? 0) || number.index > (after?.index ?? Number.POSITIVE_INFINITY)) continue;
      const group = all.get(number.index) ?? { ...number, branches: [], hidden: null };
      all.set(number.index, { ...group, hidden: stage });
    }
  }
  return [...all.values()].sort((a, b) => a.index - b.index);
}

/** Layers by the order of the stream. */
function byOrder(stages: readonly ReadStage[]): Branch[][] {
  const groups: Branch[][] = [];
  // The layer that the next sum may still belong to.
  let open: Branch[] | null = null;
  // Layers whose attentions are on one sum, until the sum of their FFNs is reached.
  let parallel: readonly Branch[][] | null = null;
  for (const { branches, hidden } of stages) {
    if (hidden) {
      open = null;
      parallel = null;
    }
    if (branches.length === 0) continue;
    const mixers = branches.filter(mixesTokens);
    const isParallel = mixers.length > 1 && mixers.every((branch) => branch.role === 'attention');
    const ffns = branches.filter((branch) => !mixesTokens(branch));
    if (isParallel || (parallel && mixers.length === 0)) {
      const own: Branch[][] = isParallel ? mixers.map((branch) => [branch]) : [...(parallel as Branch[][])];
      const made: Branch[][] = [...(isParallel ? own : []), ...dealOut(own, ffns)];
      groups.push(...made);
      parallel = isParallel && ffns.length === 0 ? made : null;
      open = null;
      continue;
    }
    parallel = null;
    if (branches.length > 1 && branches.every((branch) => branch.role === 'ffn')) {
      // Parallel FFNs on one input: as many layers.
      for (const branch of branches) groups.push([branch]);
      open = null;
      continue;
    }
    const continues: boolean = open !== null && (mixers.length === 0 || isCross(branches, open));
    if (open && continues) open.push(...branches);
    else {
      // Several branches of which one is no FFN (experts, each a term of the sum) are parts of one layer.
      open = [...branches];
      groups.push(open);
    }
    const isWhole: boolean = continues ? mixers.length === 0 : !isOpen(branches);
    if (isWhole) open = null;
  }
  return groups;
}

/** True for one sum after which the FFN of the same layer may come: mixers alone, or a linear in the place of one. */
function isOpen(branches: readonly Branch[]): boolean {
  const [first] = branches;
  return branches.every(mixesTokens) || (branches.length === 1 && first?.role === 'linear');
}

/** True for the cross attention of a layer that so far is a self attention. */
function isCross(branches: readonly Branch[], layer: readonly Branch[]): boolean {
  const [first, more] = branches;
  const isAlone = layer.length === 1 && layer[0]?.role === 'attention';
  return isAlone && !more && first?.role === 'other' && first.recognised === 'cross attention';
}

/** Gives the FFNs to the layers in their order, changing `groups`. Returns layers for those that are left over. */
function dealOut(groups: readonly Branch[][], ffns: readonly Branch[]): Branch[][] {
  const rest: Branch[][] = [];
  for (const [i, ffn] of ffns.entries()) {
    const own = groups[i];
    if (own) own.push(ffn);
    else rest.push([ffn]);
  }
  return rest;
}
