/** What follows from attentions that go: the FFNs that can be one then. */
import { openModel } from '../../ir/index.js';
import { passErrors } from '../../passes/analysis/errors.js';
import { type FuseOptions, factsOf, fuseSteps, layerOfLabel, parallelizeFfn, runPipeline } from '../../passes/index.js';
import { type LayerChoice, shuffled } from '../../runtime/index.js';

/**
 * The runs of the model at `path` without the attentions `gone`. Nothing is written.
 * @throws Diagnostic OF_NO_SUCH_LAYER, OF_CANNOT_REMOVE.
 */
export function runsAfter(path: string, gone: readonly number[], options: FuseOptions): LayerChoice['runs'] {
  const result = runPipeline(openModel(path), fuseSteps({ ...options, removeAttention: gone, fuse: true }));
  // As numbers: the first one names a layer that was fused before.
  return factsOf(result, parallelizeFfn).map(({ layers }) => layers.map(layerOfLabel));
}

/** The same; none where a pass refuses these attentions together. */
export function runsIfAny(...given: Parameters<typeof runsAfter>): LayerChoice['runs'] {
  try {
    return runsAfter(...given);
  } catch (error) {
    if (passErrors.cannotRemove.is(error) || passErrors.cannotFuse.is(error)) return [];
    throw error;
  }
}

/** Different subsets of a size, none of them `chosen`: the same for the same model. */
export function randomChoices<T>(
  items: readonly T[],
  size: number,
  count: number,
  keyOf: (items: readonly T[]) => string,
  chosen: string,
): T[][] {
  const found = new Map<string, T[]>();
  for (let seed = 1; found.size < count && seed < 50 * count; seed++) {
    const picked = shuffled(items, seed).slice(0, size);
    const key = keyOf(picked);
    if (key !== chosen) found.set(key, picked);
  }
  return [...found.values()];
}
