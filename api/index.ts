/**
 * The library behind the command: a function for each thing that a command does, and the data these return. The graph is in
 * onnx-fuse/ir, passes of your own start at onnx-fuse/passes, running models is onnx-fuse/runtime.
 */
export { Diagnostic, type DiagnosticKind, type SaveOptions } from '../ir/index.js';
export { packageVersion } from './basics/package-version.js';
export { silent, stderrTalk, type Talk } from './basics/progress.js';
export { type Benchmark, type BenchmarkRequest, bench } from './commands/bench.js';
export { type Fusion, type FusionRequest, fuse, type RecoveryRequest, recover } from './commands/fuse.js';
export { type GoldenComparison, type GoldenOptions, golden } from './commands/golden.js';
export { type InspectionPageRequest, inspectionPage } from './commands/inspection-page.js';
export { inspect, open, type Saved, save } from './commands/model.js';
export { checkPlan, type PlanningRequest, plan } from './commands/plan.js';
export { type PageRequest, report } from './commands/report.js';
export { type AnnotationRequest, annotate, type ShardRequest, shard } from './commands/shard.js';
export { checkVerification, type VerificationLimits, verify } from './commands/verify.js';
export type { FileFact } from './fuse/file-fact.js';
export type { AlgebraCheck, Drift, Report, Requantization } from './fuse/report.js';
export { goldenDiff, goldenText } from './inspect/golden.js';
export { type Inspection, inspectModel, type LayerInspection } from './inspect/inspect.js';
export type { ApplyingCommand } from './plan/page/index.js';
export type { PlanFile } from './plan/plan-file.js';
export type { Config, ConfigFlags } from './settings/config.js';
export type { ShardReport } from './shard/shard.js';
export type { Verification, VerificationRequest } from './verify/verify.js';
