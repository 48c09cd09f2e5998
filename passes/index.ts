/** The passes, the pipeline machinery and the analyses they stand on. */
export * from './analysis/blocks.js';
export { type CacheNames, cacheNames } from './analysis/cache-names.js';
export * from './analysis/decoders.js';
export * from './analysis/ffn-runs.js';
export * from './analysis/gates.js';
export { capturesOf } from './analysis/residual-stream.js';
export { pieceOf } from './analysis/shares.js';
export { COLLECTIVES, type Collective, type CollectiveStyle } from './collectives.js';
export { type PipelineResult, runPipeline, type StepResult } from './manager.js';
export {
  choiceOption,
  flagOption,
  integerOption,
  layersOption,
  parseLayers,
  printLayers,
  runsOption,
} from './options.js';
export {
  type CutFact,
  definePass,
  type Effect,
  type FusedRun,
  type MergedAttention,
  type OptionSpec,
  type OptionValues,
  type Outcome,
  type Pass,
  type PassContext,
  type Remark,
  type ShardFacts,
} from './pass.js';
export { optionsOf, parsePipeline, printPipeline, type Step } from './pipeline.js';
export { type AnyPass, extendRegistry } from './plugin.js';
export { type FuseOptions, fusePipeline, referenceSteps, withoutRequantization } from './presets.js';
export { registry } from './registry.js';
export { Rewriter } from './rewriter.js';
