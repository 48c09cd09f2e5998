/** `shard` and `annotate`: a model for the ranks of a tensor-parallel group. */
import { errors } from '../../ir/index.js';
import type { ShardOptions as CutOptions } from '../../passes/index.js';
import { checkOptions } from '../basics/options.js';
import type { Talk } from '../basics/progress.js';
import { writeJson } from '../basics/small-file.js';
import { checkTarget } from '../basics/targets.js';
import { modelFile } from '../folder/model-folder.js';
import { fuseFile } from '../fuse/fuse.js';
import type { Report } from '../fuse/report.js';
import { type ShardReport, shardModel } from '../shard/shard.js';
import { readTpPlan } from '../shard/tp-plan.js';

/** What both ways have in common. */
interface GroupRequest {
  /** The model: an .onnx file, or a folder with one. */
  readonly input: string;
  /** Ranks of the group: 2 or more. */
  readonly ranks: number;
  /** Check the result with onnxruntime before it is written; true by default. */
  readonly verify?: boolean | undefined;
  /** Write the result even when the check fails; false by default. */
  readonly force?: boolean | undefined;
  /** A file that the report is also written to, as JSON; none by default. */
  readonly report?: string | undefined;
  /** Where notes and progress go; nowhere by default. */
  readonly talk?: Talk | undefined;
}

/** What to cut, how, and where to. */
export interface ShardRequest extends GroupRequest, Pick<CutOptions, 'replicateAttention' | 'replicateFfn'> {
  /** The folder for the ranks. */
  readonly output: string;
  /** How ranks exchange results: operators of onnxruntime with NCCL, of TensorRT, none, or segments; `ort` by default. */
  readonly style?: CutOptions['style'] | undefined;
  /** Cut the projection to the vocabulary and gather the logits, or leave it whole on every rank; `gather` by default. */
  readonly lmHead?: CutOptions['lmHead'] | undefined;
  /** Leave what does not divide whole, instead of filling it up with zeros; false by default. */
  readonly refuse?: boolean | undefined;
  /** A JSON file that says which projections are cut, in Hugging Face's words; all are by default. */
  readonly tpPlan?: string | undefined;
  /** The device that the time of a token is predicted for: a name as h100x8, or a JSON file; nothing by default. */
  readonly device?: string | undefined;
}

/** What to annotate, and where to. */
export interface AnnotationRequest extends GroupRequest {
  /** The file that the annotated model is written to. */
  readonly output: string;
}

/**
 * Writes a folder with a model for each rank of a tensor-parallel group, their weights, and ranks.json: what
 * `onnx-fuse shard` does. Nothing appears unless everything succeeded.
 *
 * @throws Diagnostic OF_NOTHING_CUT, OF_CHECK_FAILED, OF_PLAN, OF_USAGE, OF_OUTPUT_IS_INPUT, and those of reading and writing
 */
export async function shard(request: ShardRequest): Promise<ShardReport> {
  checkOptions('ShardRequest', request);
  const { report: reportFile, tpPlan, style = 'ort', refuse = false, verify = true, force = false, ...rest } = request;
  check(request, [tpPlan]);
  const plan = tpPlan === undefined ? null : readTpPlan(tpPlan);
  if (plan?.lmHead !== undefined && request.lmHead !== undefined && plan.lmHead !== request.lmHead) {
    throw errors.usage('option lm-head', `the plan says ${plan.lmHead} already`, 'keep one of them');
  }
  const lmHead = request.lmHead ?? plan?.lmHead ?? 'gather';
  const made = await shardModel({ ...plan, ...rest, style, refuse, lmHead, verify, force });
  if (reportFile !== undefined) await writeJson(reportFile, made);
  return made;
}

/**
 * Writes one file that is not cut, with annotations of ONNX IR 11 that say how it could be: what
 * `onnx-fuse shard --collectives annotate` does.
 *
 * @throws Diagnostic OF_CHECK_FAILED, OF_USAGE, OF_OUTPUT_IS_INPUT, and those of reading and writing
 */
export async function annotate(request: AnnotationRequest): Promise<Report> {
  checkOptions('AnnotationRequest', request);
  const { ranks, report: reportFile, output, verify = true, force = false } = request;
  check(request, []);
  const pipeline = `inline-functions,annotate-tensor-parallel{ranks=${ranks}}`;
  const { talk } = request;
  const made = await fuseFile({ input: modelFile(request.input), output, pipeline, verify, force, talk });
  if (reportFile !== undefined) await writeJson(reportFile, made);
  return made;
}

function check(
  { input, output, ranks, report }: GroupRequest & { readonly output: string },
  reads: readonly (string | undefined)[],
): void {
  if (!Number.isSafeInteger(ranks) || ranks < 2)
    throw errors.usage('option tp', `it is ${ranks}, expected 2 or more`, 'give 8, say');
  checkTarget(report, [input, ...reads], [output]);
}
