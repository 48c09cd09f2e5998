/** The library behind the command: `fuse` files, `inspectModel`, and everything of ir, passes and runtime. */
export { type FuseRequest, fuse, packageVersion } from './driver.js';
export { type Inspection, inspectModel, type LayerInspection } from './inspect.js';
export type { AlgebraCheck, Drift, FileFact, Report } from './report.js';
export { silent, stderrTalk, type Talk } from './talk.js';
