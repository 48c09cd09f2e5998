/** The passes, the pipeline machinery and the analyses they stand on. */

export { pieceOf } from './analysis/heads/cut/shares.js';
export { type CacheNames, cacheNames } from './analysis/layers/cache-names.js';
export * from './analysis/layers/layer.js';
export { capturesOf } from './analysis/layers/residual-stream.js';
export * from './analysis/plans/ffn-runs.js';
export * from './analysis/plans/gates.js';
export { Refusal } from './analysis/refusal.js';
export { type PassResult, type PipelineResult, runPipeline } from './framework/manager.js';
export {
  checkLayers,
  checkRuns,
  choiceOption,
  flagOption,
  integerOption,
  layerOfLabel,
  layersOption,
  parseLayers,
  parseRuns,
  printLayers,
  printRun,
  printRuns,
  runsOption,
} from './framework/options.js';
export {
  COLLECTIVES,
  type Collective,
  type CollectiveStyle,
  type CutFact,
  type FusedRun,
  type MergedAttention,
  type Outcome,
  type ShardFacts,
} from './framework/outcome.js';
export {
  definePass,
  type Effect,
  type OptionSpec,
  type OptionValues,
  type Pass,
  type PassContext,
  type Remark,
} from './framework/pass.js';
export { optionsOf, parsePipeline, printPipeline, type Step, step } from './framework/pipeline.js';
export { type AnyPass, extendRegistry } from './framework/plugin.js';
export { layersOf, type Phase, plainDecoder } from './layers.js';
export {
  type FuseOptions,
  fuseSteps,
  gatePreparation,
  gateSteps,
  type ReversedRuns,
  referenceSteps,
  type ShardOptions,
  shardSteps,
  withoutRequantization,
} from './presets.js';
export { registry } from './registry.js';
export { Rewriter } from './rewrite/rewriter.js';
