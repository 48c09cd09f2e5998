/**
 * The library behind the command: `fuse` a file into another, `open`, `save`, `inspect` and `verify` models, and the
 * data these return. The graph is in onnx-fuse/ir, passes of your own start at onnx-fuse/passes, running models is
 * onnx-fuse/runtime.
 */
export { inspect, open, type Saved, save, verify } from './api.js';
export { packageVersion } from './basics/package-version.js';
export { silent, stderrTalk, type Talk } from './basics/progress.js';
export { fuseFolder } from './folder/folder.js';
export type { FileFact } from './fuse/file-fact.js';
export { fuse } from './fuse/fuse.js';
export type { AlgebraCheck, Drift, Report, Requantization } from './fuse/report.js';
export type { FuseRequest } from './fuse/request.js';
export { goldenDiff, goldenText } from './inspect/golden.js';
export { type Inspection, inspectModel, type LayerInspection } from './inspect/inspect.js';
export type { Config, ConfigFlags } from './settings/config.js';
export { type ShardReport, type ShardRequest, shard } from './shard/shard.js';
