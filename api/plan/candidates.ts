/** The plans that are tried: what follows from removed attentions, and what it would cost. */
import { openModel } from '../../ir/index.js';
import { passErrors } from '../../passes/analysis/errors.js';
import {
  type FuseOptions,
  factsOf,
  fuseSteps,
  layerOfLabel,
  type PipelineResult,
  parallelizeFfn,
  runPipeline,
} from '../../passes/index.js';
import { type Device, NO_CHANGE, predictSecondsPerToken, shuffled, workOf } from '../../runtime/index.js';
import { fuseOptionsOf, type LayerChoice, type PlanOptions } from './plan-file.js';

/** A plan that can be built, not measured yet. */
export interface PlanCandidate {
  readonly choice: LayerChoice;
  /** Predicted time of a token. */
  readonly seconds: number;
}

/** Builds plans of the model at `path`, in memory. */
export class Candidates {
  constructor(
    readonly path: string,
    readonly options: PlanOptions,
    readonly device: Device,
  ) {}

  /**
   * The plan without the attentions `gone`; its runs follow from them. Null when nothing changes.
   * @throws Diagnostic OF_NO_SUCH_LAYER, OF_CANNOT_REMOVE, OF_CANNOT_FUSE.
   */
  build(gone: readonly number[], fuse: boolean): PlanCandidate | null {
    const { keepLast, lead, norm, action } = this.options;
    const fused = this.#rewrite({ removeAttention: gone, keepLast, lead, norm, fuse });
    if (gone.length === 0 && fused.runs.length === 0) return null;
    const choice: LayerChoice = { ...NO_CHANGE, removeAttention: gone };
    if (action === 'fuse') return { choice: { ...choice, runs: fused.runs }, seconds: fused.seconds };
    // Instead of fusing them, the FFNs of each run go.
    const removed = { ...choice, removeFfn: fused.runs.flat() };
    return { choice: removed, seconds: this.#rewrite(fuseOptionsOf(removed)).seconds };
  }

  /** The same; null also when a pass refuses it. */
  tryBuild(gone: readonly number[], fuse: boolean): PlanCandidate | null {
    try {
      return this.build(gone, fuse);
    } catch (error) {
      if (passErrors.cannotRemove.is(error) || passErrors.cannotFuse.is(error)) return null;
      throw error;
    }
  }

  #rewrite(options: FuseOptions): { readonly runs: LayerChoice['runs']; readonly seconds: number } {
    const model = openModel(this.path);
    const runs = runsOf(runPipeline(model, fuseSteps(options)));
    return { runs, seconds: predictSecondsPerToken(workOf(model), this.device) };
  }
}

/** The runs that a pipeline made parallel, as numbers: the first one names a layer that was fused before. */
export function runsOf(result: PipelineResult): LayerChoice['runs'] {
  return factsOf(result, parallelizeFfn).map(({ layers }) => layers.map(layerOfLabel));
}

/** Different subsets of a size, none of them `chosen`: the same for the same model. */
export function randomChoices(
  layers: readonly number[],
  size: number,
  chosen: readonly number[],
  count: number,
): number[][] {
  const found = new Map<string, number[]>();
  for (let seed = 1; found.size < count && seed < 50 * count; seed++) {
    const gone = shuffled(layers, seed)
      .slice(0, size)
      .sort((a, b) => a - b);
    if (gone.join() !== chosen.join()) found.set(gone.join(), gone);
  }
  return [...found.values()];
}
