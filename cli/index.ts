/**
 * The library behind the command: `fuse` a file into another, `open`, `save`, `inspect` and `verify` models, and the
 * data these return. The graph is in onnx-fuse/ir, passes of your own start at onnx-fuse/passes, running models is
 * onnx-fuse/runtime.
 */
export { inspect, open, type Saved, save, verify } from './api.js';
export type { Config, ConfigFlags } from './config.js';
export { type FuseRequest, fuse, packageVersion } from './driver.js';
export { fuseFolder } from './folder.js';
export { goldenDiff, goldenText } from './golden.js';
export { type Inspection, inspectModel, type LayerInspection } from './inspect.js';
export type { AlgebraCheck, Drift, FileFact, Report, Requantization } from './report.js';
export { type ShardReport, type ShardRequest, shard } from './shard.js';
export { silent, stderrTalk, type Talk } from './talk.js';
