/** `onnx-fuse report plan.json -o report.html --verify verify.json --bench bench.json` */
import { apiErrors } from '../../api/basics/errors.js';
import { readJson, writeWhole } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { checkSameResult, type EvidenceHead, type EvidenceKind, readHead } from '../../api/fuse/evidence.js';
import { extrasOfBench, extrasOfVerify, type ReportExtras, renderReport } from '../../api/plan/page/index.js';
import { type PlanFile, readPlanFile } from '../../api/plan/plan-file.js';
import type { reportSpec } from '../options/report.js';
import type { ArgumentsOf } from '../options/spec.js';
import { give } from './command.js';

export async function reportCommand(args: ArgumentsOf<typeof reportSpec>): Promise<number> {
  const { plan, verify, bench, output } = args;
  checkTarget(output, [plan, verify, bench]);
  const file = readPlanFile(plan);
  const verified = verify === undefined ? null : evidenceIn(verify, VERIFY, file);
  const timed = bench === undefined ? null : evidenceIn(bench, BENCH, file);
  if (verified && timed) checkSameResult(verified.head, timed.head, bench as string);
  const page = renderReport(file, { ...verified?.extras, ...timed?.extras });
  await writeWhole(output, page);
  const render = (): string => `${output}: the plan and its evidence; open it in a browser`;
  return give({ kind: 'page', result: { page: output }, render }, args.json);
}

/** A file with figures for a report. */
interface Source {
  readonly kind: EvidenceKind;
  readonly read: (value: unknown) => ReportExtras;
  /** What makes it. */
  readonly remedy: string;
}

const VERIFY: Source = {
  kind: 'verification',
  read: extrasOfVerify,
  remedy: 'give what onnx-fuse verify --data --json printed',
};
const BENCH: Source = {
  kind: 'benchmark',
  read: extrasOfBench,
  remedy: 'give what onnx-fuse bench a.onnx b.onnx --json wrote',
};

/** @throws Diagnostic OF_EVIDENCE when it is of another kind or model, or there is nothing in it that a report shows. */
function evidenceIn(
  path: string,
  { kind, read, remedy }: Source,
  { model }: PlanFile,
): { readonly head: EvidenceHead; readonly extras: ReportExtras } {
  const refuse = (place: string, why: string) => apiErrors.evidence(place, why, remedy);
  const value = readJson(path, refuse);
  const extras = read(value);
  if (Object.keys(extras).length === 0) throw refuse(path, 'it holds no measurement that a report shows');
  return { head: readHead(value, kind, model, path), extras };
}
