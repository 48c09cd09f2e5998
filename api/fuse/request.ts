/** What can be asked of a run, and the pipeline that it asks for. */
import type { DataNames } from '../../ir/index.js';
import {
  type AnyPass,
  extendRegistry,
  type FuseOptions,
  fuseSteps,
  parsePipeline,
  registry,
  type Step,
} from '../../passes/index.js';
import type { Device } from '../../runtime/index.js';
import type { Talk } from '../basics/progress.js';
import type { RecoveryFact } from './recovery-fact.js';

/** What becomes of a model file, and where the result goes. */
export interface FuseRequest extends FuseOptions {
  /** The model: a path. */
  readonly input: string;
  /** Where the result is written: a path. */
  readonly output: string;
  /** The text of a pipeline that replaces the usual one; the empty text copies the model. None by default. */
  readonly pipeline?: string | undefined;
  /** Passes beside ours that the pipeline may name; none by default. */
  readonly passes?: readonly AnyPass[];
  /** Check with onnxruntime before committing; true by default. */
  readonly verify?: boolean;
  /** Write the result even when the check failed; false by default. */
  readonly force?: boolean;
  /** Do everything except writing; false by default. */
  readonly dryRun?: boolean;
  /** Fail with OF_NOTHING_FUSED when nothing was fused; false by default. */
  readonly requireFusion?: boolean;
  /** Force weights into a data file (true) or into the model file (false); by default as the input has them. */
  readonly external?: boolean | undefined;
  /** Largest data file in bytes; a tensor that is larger has one of its own. No limit by default. */
  readonly maxShardBytes?: number | undefined;
  /** How data files are called; by default as those of the input. */
  readonly dataNames?: DataNames | undefined;
  /** Name the input's files for every tensor that is as it was, and write only what is new; false by default. */
  readonly shareWeights?: boolean | undefined;
  /** Hash input and output for the report; false by default, because it reads both once more. */
  readonly hash?: boolean;
  /** What was asked for, for the report, where the other options were worked out from it. */
  readonly asked?: Readonly<Record<string, unknown>> | undefined;
  /** What was fitted for this run, for the report. */
  readonly recovery?: RecoveryFact | undefined;
  /** Predict the time of a token for this device, before and after; for none by default. */
  readonly device?: Device | undefined;
  /** Where notes and progress go; nowhere by default. */
  readonly talk?: Talk | undefined;
}

/** The pipeline that was asked for, by its text or by options. */
export function stepsOf(request: FuseRequest): Step[] {
  const known = extendRegistry(registry, request.passes ?? [], '');
  return request.pipeline === undefined ? fuseSteps(request) : parsePipeline(request.pipeline, known);
}
