import type { Branch } from './layer.js';
/** True for a branch that mixes tokens: attention, or another mixer. */
export function mixesTokens(branch: Branch): boolean {
  return branch.role === 'attention' || (branch.role === 'other' && branch.mixesTokens);
}

/**
 * The layers of a sum with several attentions, in the order of the sum. `numberOf` tells the original layer of a branch
 * as far as it is known; where it is not, branches are paired by position.
 */
export function splitLayers(
  branches: readonly Branch[],
  numberOf: (branch: Branch) => number | null,
): readonly Branch[][] {
  const groups = branches.filter(mixesTokens).map((branch) => [branch]);
  return [
    ...groups,
    ...adopt(
      groups,
      branches.filter((branch) => !mixesTokens(branch)),
      numberOf,
    ),
  ];
}

/** Gives each of `branches` to the layer it belongs to, changing `groups`. Returns layers for those that fit in none. */
export function adopt(
  groups: readonly Branch[][],
  branches: readonly Branch[],
  numberOf: (branch: Branch) => number | null,
): Branch[][] {
  const rest: Branch[][] = [];
  const numbers = groups.map(([first]) => numberOf(first as Branch));
  const isKnown = new Set(numbers).size === numbers.length && !numbers.includes(null);
  for (const [i, branch] of branches.entries()) {
    const number = numberOf(branch);
    const own = isKnown && number !== null ? groups[numbers.indexOf(number)] : groups[i];
    if (own) own.push(branch);
    else rest.push([branch]);
  }
  return rest;
}
