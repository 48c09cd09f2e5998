/** Runs a pipeline on a model, and says what was done to the model that will be written. */
import { type Model, openModel } from '../../ir/index.js';
import { type PipelineResult, runPipeline, type Step } from '../../passes/index.js';

/** A model with its history: the steps and the result are those of this very model. */
export interface Transformed {
  readonly model: Model;
  /** The steps that it went through; none where it is the input as it came. */
  readonly steps: readonly Step[];
  readonly result: PipelineResult;
  /** Why something was left as it is; also where that made the whole pipeline vain. */
  readonly left: PipelineResult['left'];
  /** What was asked for a layer by number and is left undone; also then. */
  readonly refused: PipelineResult['refused'];
  /** The layers of the input. */
  readonly before: PipelineResult['before'];
}

/**
 * Runs `steps` on `model`, which was opened from `input`. Where `dropsVain` and none but auxiliary passes did anything, the
 * model is the input as it came instead, and not the input less what a clean-up would take.
 */
export function transform(input: string, model: Model, steps: readonly Step[], dropsVain: boolean): Transformed {
  const result = runPipeline(model, steps);
  const { refused, left, before } = result;
  const isVain = result.steps.every(({ changed }, i) => !changed || steps[i]?.pass.isAuxiliary);
  if (!dropsVain || !isVain) return { model, steps, result, refused, left, before };
  const copy = openModel(input);
  return { model: copy, steps: [], result: runPipeline(copy, []), refused, left, before };
}
