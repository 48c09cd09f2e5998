/** The passes, the pipeline machinery and the analyses they stand on. */

export { pieceOf } from './analysis/heads/cut/shares.js';
export { type CacheNames, cacheNames } from './analysis/layers/cache-names.js';
export * from './analysis/layers/layer.js';
export { type BranchInput, inputOf } from './analysis/layers/linear-branch.js';
export type { Norm } from './analysis/layers/norm.js';
export { capturesOf } from './analysis/layers/residual-stream.js';
export * from './analysis/plans/ffn-runs.js';
export * from './analysis/plans/fused-run.js';
export * from './analysis/plans/gates.js';
export * from './analysis/plans/run-options.js';
export { Refusal } from './analysis/refusal.js';
export { effectOf, referenceSteps } from './framework/effect.js';
export { byMessage, type FactSpec, type FactsByPass, factsAs, factsOf, layersText } from './framework/facts.js';
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
  pathOption,
  printLayers,
  printRun,
  printRuns,
  runsOption,
} from './framework/options.js';
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
  type LayerSelection,
  type LinearizeOptions,
  type ReversedRuns,
  type ShardOptions,
  selectedLayers,
  shardSteps,
} from './presets.js';
export { registry } from './registry.js';
export { MAP_BLOCK } from './removal/fit-file.js';
export { Rewriter } from './rewrite/rewriter.js';
export { concatAttention, type MergedAttention } from './transforms/concat-attention/index.js';
export { concatFfn } from './transforms/concat-ffn.js';
export { concatLinear, type JoinedLinears } from './transforms/concat-linear.js';
export { type Linearized, linearize } from './transforms/linearize.js';
export { parallelizeBlocks } from './transforms/parallelize-blocks.js';
export { parallelizeFfn } from './transforms/parallelize-ffn.js';
export { removeAttention } from './transforms/remove-attention.js';
export { removeFfn } from './transforms/remove-ffn.js';
export { renameKv } from './transforms/rename-kv.js';
export { requantizeFfn } from './transforms/requantize-ffn.js';
export {
  COLLECTIVES,
  type Collective,
  type CollectiveStyle,
  type CutFact,
  type ShardFacts,
  shardTensorParallel,
} from './transforms/shard-tensor-parallel/index.js';
export { stripMetadata } from './transforms/strip-metadata.js';
