/** What became of the numbers in the names of caches: the facts that configs are rewritten by. */
import type { Model } from '../../ir/index.js';
import { cacheNames, layersOf } from '../../passes/index.js';

/** Whether caches that are left keep their numbers. */
export type KvNaming = 'preserve' | 'compact';

/** What became of the caches of a model. */
export interface CacheMap {
  readonly naming: KvNaming;
  /** Numbers that caches of the original have in their names, ascending. */
  readonly before: readonly number[];
  /** Numbers that are left -> their new ones (the same where names are preserved), ascending. */
  readonly kept: ReadonlyMap<number, number>;
  /** Original name -> new name, for all graph inputs and outputs that are left; those that went are absent. */
  readonly names: ReadonlyMap<string, string>;
  /** Inputs and outputs of the original that went. */
  readonly gone: ReadonlySet<string>;
  /** Inputs and outputs of the new model. */
  readonly present: ReadonlySet<string>;
}

/** Follows the caches of `before` into `after`, given what the pipeline renamed. */
export function mapCaches(
  before: Model,
  after: Model,
  renamed: readonly { readonly from: string; readonly to: string }[],
  naming: KvNaming,
): CacheMap {
  const present = new Set([...after.graph.inputs, ...after.graph.outputs].map((value) => value.name));
  const to = new Map(renamed.map((name) => [name.from, name.to]));
  // A name that another cache was given does not mean that its first bearer is still there.
  const given = new Set(to.values());
  const names = new Map<string, string>();
  const gone = new Set<string>();
  for (const { name } of [...before.graph.inputs, ...before.graph.outputs]) {
    const now = to.get(name) ?? name;
    if (present.has(now) && (to.has(name) || !given.has(name))) names.set(name, now);
    else gone.add(name);
  }
  const { stream, layers } = layersOf(before);
  const { inputs } = cacheNames(stream.graph.root, layers);
  const left = inputs.filter(({ value }) => names.has(value.name));
  const order = ascending(left.map(({ number }) => number));
  const isRenumbered = renamed.length > 0;
  return {
    naming,
    before: ascending(inputs.map(({ number }) => number)),
    kept: new Map(order.map((number, i) => [number, isRenumbered ? i : number])),
    names,
    gone,
    present,
  };
}

function ascending(numbers: readonly number[]): number[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}
