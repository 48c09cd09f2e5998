/** Everything that executes a model. Needs the optional package onnxruntime-node, which is loaded on first use. */

export { type BenchResult, type BenchRow, runBench } from './bench/bench.js';
export { type CalibrateOptions, calibrate, measureBandwidth } from './bench/calibrate.js';
export { findGenai, type GenaiRuntime, genaiTimer, whyNotGenai } from './bench/genai-times.js';
export { nodeTimer, type StepSamples, type StepTimer, type TimingRequest } from './bench/step-times.js';
export { quartiles } from './bench/turns.js';
export { type Budget, isWithin, type LayerChoice, NO_CHANGE, type PlanPoint, paretoFront } from './choose/choice.js';
export {
  type BranchWork,
  costsFor,
  DEVICE_NAMES,
  type Device,
  type FusionGain,
  linearBytes,
  namedDevice,
  PROMPT_TOKENS,
  parseDevice,
  partsOf,
  predictSecondsPerToken,
  type SpeedGoal,
  type TokenWork,
  workOf,
} from './choose/cost.js';
export { type GatedModel, gateFeeds, gateModel, gateValues, openGated } from './choose/gates.js';
export { type DetailedScores, measureScores, scoreRows } from './choose/scores.js';
export {
  byMerit,
  byPrice,
  type MeasuredPlan,
  type Move,
  meets,
  type Objective,
  planKey,
  searchMoves,
  secondsSavedBy,
} from './choose/search.js';
export type { CanonicalFit } from './fit/canonical.js';
export { type Fit, fitMap, RIDGES } from './fit/fit.js';
export { type BranchChange, type Fits, type JudgeOptions, ORIGINAL, StreamText, type WalkPlan } from './fit/walk.js';
export {
  DECODE_ROWS,
  DECODE_TOKENS,
  type DecodeAgreement,
  decodeBatch,
  measureDecode,
  type NoDecode,
} from './quality/decode-agreement.js';
export {
  BATCH_BYTES,
  type BatchOptions,
  ForcedScorer,
  forcedScores,
  longestSequence,
  type Scores,
  type TokenBatch,
  tokenBatches,
  type Way,
} from './quality/forced.js';
export {
  type FullQuality,
  measureQuality,
  type Quality,
  QualityMeter,
  remembering,
  type Scorer,
} from './quality/quality.js';
export { type PairMemory, SessionPair, type Side, sharedMemory } from './quality/session-pair.js';
export { type GroupFacts, type GroupSession, openGroup } from './ranks/group.js';
export { chainOf, type Meeting, type RankChain, type Segment } from './ranks/segments.js';
export { type FeedRequest, type Feeds, makeFeeds, type SizeWord, sizeWords } from './run/feeds.js';
export {
  checkPlacement,
  countsText,
  measurePlacement,
  type NodeCounts,
  type Placement,
  readPlacement,
} from './run/placement.js';
export { randomTokens, shuffled } from './run/random.js';
export { checkClaim } from './run/room.js';
export { drawFrom, type SampleRequest, sampleRows, uniformAt } from './run/sample.js';
export {
  type GenerateOptions,
  generate,
  hasCache,
  runSteps,
  type StepRequest,
  type StepResult,
  type StepsResult,
  stepTokens,
} from './run/steps.js';
export {
  availableMemory,
  computedWeightBytes,
  fitsInMemory,
  type MemoryNeed,
  PREPACK_LIMIT,
  tensorsOf,
  weightBytes,
} from './session/memory.js';
export { installedRuntime, isRuntimeAvailable, loadRuntime, type Provider, type Runtime } from './session/ort.js';
export {
  type ModelLocation,
  type OptimizationLevel,
  openSession,
  placeOf,
  Session,
  type SessionOptions,
  type TensorInfo,
  withSession,
} from './session/session.js';
export { fillTensor, type HostTensor, type TensorData, type TensorMap, toFloat32 } from './session/tensor.js';
export type { InputInfo, InputRole, OutputInfo } from './signature/roles.js';
export {
  type CachePart,
  type CachePort,
  readSignature,
  type Signature,
} from './signature/signature.js';
export type { MapBits, MapBlocks } from './stream/map-blocks.js';
export { type BranchPiece, cutPieces, type PieceModel, type StreamPiece } from './stream/pieces.js';
export { type LinearMap, StreamRunner } from './stream/runner.js';
export { type Judgement, qualityOf } from './stream/scores.js';
export { TensorStore } from './stream/tensor-store.js';
export { type Bounded, bounded, isBounded } from './verify/bounded.js';
export {
  compareLogits,
  compareOutputs,
  type LogitsDifference,
  type OutputComparison,
  type OutputDifference,
} from './verify/compare.js';
export { checkEnds, type Probed, type ProbeOptions, probe } from './verify/probe.js';
export { type Tolerance, toleranceFor } from './verify/tolerance.js';
export {
  changeType,
  FLOAT_TWIN,
  FULL_ACCURACY_TWIN,
  floatTwin,
  mayRoundActivations,
  type Twin,
  usesBfloat16,
} from './verify/twin.js';
export {
  type Candidate,
  type CaseComparison,
  type Comparison,
  KnownRuns,
  type VerifyOptions,
  verifyPair,
  type Worst,
} from './verify/verify.js';
