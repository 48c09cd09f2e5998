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

export interface FuseRequest extends FuseOptions {
  readonly input: string;
  readonly output: string;
  /** Replaces the default pipeline; the empty text copies the model. */
  readonly pipeline?: string | undefined;
  /** Passes beside ours that the pipeline may name. */
  readonly passes?: readonly AnyPass[];
  /** Check with onnxruntime before committing; true by default. */
  readonly verify?: boolean;
  /** Commit even when the check failed. */
  readonly force?: boolean;
  /** Do everything except writing. */
  readonly dryRun?: boolean;
  /** Fail when nothing was fused. */
  readonly requireFusion?: boolean;
  /** Force weights into a data file (true) or into the model file (false); by default as the input has them. */
  readonly external?: boolean | undefined;
  /** Largest data file in bytes; a tensor that is larger has one of its own. */
  readonly maxShardBytes?: number | undefined;
  /** How data files are called; by default as those of the input. */
  readonly dataNames?: DataNames | undefined;
  /** Name the input's files for every tensor that is as it was, and write only what is new. */
  readonly shareWeights?: boolean | undefined;
  /** Hash input and output for the report. */
  readonly hash?: boolean;
  /** What was fitted for this run, for the report. */
  readonly recovery?: RecoveryFact | undefined;
  /** Predict the time of a token for this device, before and after. */
  readonly device?: Device | undefined;
  readonly talk?: Talk;
}

/** The pipeline that was asked for, by its text or by options. */
export function stepsOf(request: FuseRequest): Step[] {
  const known = extendRegistry(registry, request.passes ?? [], '');
  return request.pipeline === undefined ? fuseSteps(request) : parsePipeline(request.pipeline, known);
}
