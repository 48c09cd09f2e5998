/** What every command takes. It is little, so it is read from one file. */
export { benchSpec } from './options/bench.js';
export { fuseSpec } from './options/fuse.js';
export { goldenSpec } from './options/golden.js';
export { inspectSpec, printSpec } from './options/inspect.js';
export { packSpec } from './options/pack.js';
export { passesSpec } from './options/passes.js';
export { planSpec } from './options/plan.js';
export { completionSpec, envSpec, helpSpec } from './options/program.js';
export { reportSpec } from './options/report.js';
export { runSpec } from './options/run.js';
export { shardSpec } from './options/shard.js';
export { verifySpec } from './options/verify.js';
