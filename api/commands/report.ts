/** `report`: a plan and its evidence on one HTML page. */
import { apiErrors } from '../basics/errors.js';
import { checkOptions } from '../basics/options.js';
import { readJson, writeWhole } from '../basics/small-file.js';
import { checkTarget } from '../basics/targets.js';
import { checkSameResult, type EvidenceHead, type EvidenceKind, readHead } from '../fuse/evidence.js';
import {
  type ApplyingCommand,
  extrasOfBench,
  extrasOfVerify,
  type ReportExtras,
  renderReport,
} from '../plan/page/index.js';
import { type PlanFile, readPlanFile } from '../plan/plan-file.js';
import type { Verification } from '../verify/verify.js';
import type { Benchmark } from './bench.js';

/** What a page shows. */
export interface PageRequest {
  /** The plan: a path, or what `plan` returned. */
  readonly plan: string | PlanFile;
  /** What `verify` returned for the changed model, or a file that `onnx-fuse verify --json` wrote; none by default. */
  readonly verify?: string | Verification | undefined;
  /** What `bench` returned for both models, or a file that `onnx-fuse bench --json` wrote; none by default. */
  readonly bench?: string | Benchmark | undefined;
  /** The command line that applies the plan, which the page shows to be copied; none by default. */
  readonly command?: ApplyingCommand | undefined;
  /** Where the page is written; it is only returned by default. */
  readonly output?: string | undefined;
}

/**
 * Draws a plan and its evidence on one HTML page without script, and returns its text: what `onnx-fuse report` does.
 *
 * @throws Diagnostic OF_PLAN, OF_EVIDENCE (of another model, or nothing that a page shows), OF_OUTPUT_IS_INPUT, OF_WRITE
 */
export async function report(request: PageRequest): Promise<string> {
  checkOptions('PageRequest', request);
  const { plan, verify, bench, command, output } = request;
  checkTarget(
    output,
    [plan, verify, bench].map((each) => (typeof each === 'string' ? each : undefined)),
  );
  const file = typeof plan === 'string' ? readPlanFile(plan) : plan;
  const verified = verify === undefined ? null : evidenceIn(verify, VERIFY, file);
  const timed = bench === undefined ? null : evidenceIn(bench, BENCH, file);
  if (verified && timed) checkSameResult(verified.head, timed.head, timed.place);
  const page = renderReport(file, { ...verified?.extras, ...timed?.extras }, command);
  if (output !== undefined) await writeWhole(output, page);
  return page;
}

/** A kind of figures for a page. */
interface Source {
  readonly kind: EvidenceKind;
  readonly read: (value: unknown) => ReportExtras;
  /** What makes it. */
  readonly remedy: string;
}

const VERIFY: Source = {
  kind: 'verification',
  read: extrasOfVerify,
  remedy: 'give what onnx-fuse verify printed as JSON for a text (option data)',
};
const BENCH: Source = {
  kind: 'benchmark',
  read: extrasOfBench,
  remedy: 'give what onnx-fuse bench wrote as JSON for two models',
};

/** @throws Diagnostic OF_EVIDENCE when it is of another kind or model, or there is nothing in it that a page shows. */
function evidenceIn(
  evidence: string | object,
  { kind, read, remedy }: Source,
  { model }: PlanFile,
): { readonly place: string; readonly head: EvidenceHead; readonly extras: ReportExtras } {
  const refuse = (place: string, why: string) => apiErrors.evidence(place, why, remedy);
  const place = typeof evidence === 'string' ? evidence : kind;
  const value = typeof evidence === 'string' ? readJson(evidence, refuse) : evidence;
  const extras = read(value);
  if (Object.keys(extras).length === 0) throw refuse(place, 'it holds no measurement that a report shows');
  return { place, head: readHead(value, kind, model, place), extras };
}
