/** The kinds of weight expressions (weight.ts makes them). All fields are read-only: weights are immutable. */
import type { DataType } from './type.js';

/** A file, or anything else that bytes can be read from; `id` names it uniquely within the process. */
export interface ByteSource {
  readonly id: string;
  readonly size: number;
}

/** What every weight has. */
export interface WeightBase {
  readonly dtype: DataType;
  readonly dims: readonly number[];
  readonly byteLength: number;
  /** Structural identity: equal keys are equal expressions. */
  readonly key: string;
}

/** `byteLength` bytes of `source` from `offset`. */
export interface SourceWeight extends WeightBase {
  readonly op: 'source';
  readonly source: ByteSource;
  readonly offset: number;
}
/** Bytes already in memory: constants, small tensors. */
export interface InlineWeight extends WeightBase {
  readonly op: 'inline';
  readonly bytes: Uint8Array;
}
/** Rows or columns [start, end) of `operand` along `axis`. */
export interface SliceWeight extends WeightBase {
  readonly op: 'slice';
  readonly operand: Weight;
  readonly axis: number;
  readonly start: number;
  readonly end: number;
}
/** `parts` one after another along `axis`; all other dimensions equal. */
export interface ConcatWeight extends WeightBase {
  readonly op: 'concat';
  readonly parts: readonly Weight[];
  readonly axis: number;
}
/** `operand` times the vector `by` along `axis`: f64 product, rounded to nearest even once. */
export interface ScaleWeight extends WeightBase {
  readonly op: 'scale';
  readonly operand: Weight;
  readonly axis: number;
  readonly by: Weight;
}
/** The 2-D transpose of a leaf or a slice. */
export interface TransposeWeight extends WeightBase {
  readonly op: 'transpose';
  readonly operand: Weight;
}
/** The sum of equally shaped tensors: f64 accumulation, rounded once. */
export interface AddWeight extends WeightBase {
  readonly op: 'add';
  readonly parts: readonly Weight[];
}

/** `by`^T W: the rows of the 2-D `operand` summed with the factors `by`; f64 accumulation, rounded once. */
export interface ContractWeight extends WeightBase {
  readonly op: 'contract';
  readonly operand: Weight;
  readonly by: Weight;
}
/** `operand` in another floating-point type, rounded to nearest even. */
export interface CastWeight extends WeightBase {
  readonly op: 'cast';
  readonly operand: Weight;
}

/** A matrix [N, K] as com.microsoft MatMulNBits stores it, in blocks along K. */
export interface BlockTensors {
  /** uint8 [N, blocks, bytes of a block]. */
  readonly blocks: Weight;
  /** [N, blocks]. */
  readonly scales: Weight;
  /** uint8 [N, bytes], packed, or [N, blocks] of the scales' type; null where the middle of the range is zero. */
  readonly zeroPoints: Weight | null;
  /** 2, 4 or 8. */
  readonly bits: number;
}
/** The tensors of a block-quantised matrix. */
export type BlockPart = 'blocks' | 'scales' | 'zero_points';

/** One tensor of a block-quantised matrix whose columns were multiplied by the vector `by` and that was quantised again. */
export interface RequantizeWeight extends WeightBase {
  readonly op: 'requantize';
  readonly part: BlockPart;
  readonly matrix: BlockTensors;
  readonly by: Weight;
}

/** A weight: one of the expressions above. Equal expressions are the same object. */
export type Weight =
  | SourceWeight
  | InlineWeight
  | SliceWeight
  | ConcatWeight
  | ScaleWeight
  | TransposeWeight
  | AddWeight
  | ContractWeight
  | CastWeight
  | RequantizeWeight;

/** Hashes of weights, for text that is compared, not parsed. `weightDigest` of ir/disk is one. */
export interface Digest {
  /** The bytes of a small weight. */
  read(weight: Weight): Uint8Array;
  /** A hash of the bytes of a weight, in hex. */
  hash(weight: Weight): string;
}
