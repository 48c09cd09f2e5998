/** Everything that executes a model. Needs the optional package onnxruntime-node, which is loaded on first use. */

export { type BenchResult, type BenchRow, runBench } from './bench.js';
export { calibrate, measureBandwidth } from './calibrate.js';
export {
  compareLogits,
  compareOutputs,
  type LogitsDifference,
  type OutputComparison,
  type OutputDifference,
} from './compare.js';
export {
  DEVICE_NAMES,
  type Device,
  namedDevice,
  parseDevice,
  predictSecondsPerToken,
  type TokenWork,
  workOf,
} from './cost.js';
export {
  DECODE_ROWS,
  DECODE_TOKENS,
  type DecodeAgreement,
  decodeBatch,
  measureDecode,
  type NoDecode,
} from './decode-agreement.js';
export { type FeedRequest, type Feeds, makeFeeds } from './feeds.js';
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
} from './forced.js';
export { type GatedModel, gateFeeds, gateModel, gateValues, type LayerChoice, NO_CHANGE, openGated } from './gates.js';
export { availableMemory, fitsInMemory, type MemoryNeed, tensorsOf, weightBytes } from './memory.js';
export { isRuntimeAvailable, loadRuntime, type Provider, type Runtime } from './ort.js';
export {
  checkPlacement,
  countsText,
  measurePlacement,
  type NodeCounts,
  type Placement,
  readPlacement,
} from './placement.js';
export { type Budget, isWithin, type PlanPoint, paretoFront, searchPlans } from './plan-search.js';
export { measureQuality, type Quality, QualityMeter, remembering, type Scorer } from './quality.js';
export { randomTokens, shuffled } from './random.js';
export { type GroupFacts, type GroupSession, openGroup, type RankSource } from './rank-group.js';
export { measureScores, type PlanScores, scoreRows } from './scores.js';
export {
  type ModelLocation,
  type OptimizationLevel,
  openSession,
  PREPACK_LIMIT,
  placeOf,
  Session,
  type SessionOptions,
  type TensorInfo,
  withSession,
} from './session.js';
export { type PairMemory, SessionPair, type Side, sharedMemory } from './session-pair.js';
export {
  type CachePart,
  type CachePort,
  type InputInfo,
  type InputRole,
  type OutputInfo,
  readSignature,
  type Signature,
} from './signature.js';
export {
  type GenerateOptions,
  generate,
  hasCache,
  runSteps,
  type StepRequest,
  type StepResult,
  type StepsResult,
  stepTokens,
} from './steps.js';
export { fillTensor, type HostTensor, type TensorData, type TensorMap, toFloat32 } from './tensor.js';
export { type Tolerance, toleranceFor } from './tolerance.js';
export { changeType, floatTwin, usesBfloat16 } from './twin.js';
export {
  type Candidate,
  type CaseComparison,
  type Comparison,
  type VerifyOptions,
  verifyPair,
  type Worst,
} from './verify.js';
