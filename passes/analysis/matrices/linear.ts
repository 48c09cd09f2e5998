/**
 * Linear layers: an activation times a constant matrix, plus a bias. Read through the shapes exporters put around it:
 *
 *     Reshape([-1, in]) -> Gemm -> Reshape([..., out])          one linear of the unflattened values
 *     linear -> Split, or Slice along the last axis              two linears that share a matrix (packed gate_up)
 *
 * Between a packed linear, its bias and its parts there may be copies (Identity).
 */

import type { Attribute, Node, Use, Value } from '../../../ir/core.js';
import { scale, slice, type Weight } from '../../../ir/weight.js';
import { Refusal } from '../refusal.js';
import { constantOf, copiedFrom, type Slot, splitSizes } from '../values/constants.js';
import { integersOf, lastTarget } from '../values/shape-arithmetic.js';
import { type Matrix, matchMatrix } from './stored-matrices.js';
import { constantVector, vectorOf } from './vectors.js';

/** A linear layer: an activation times a constant matrix, plus a bias. */
export interface Linear {
  /** The operator that multiplies. */
  readonly node: Node;
  readonly matrix: Matrix;
  /** What it reads, [..., in], before any flattening, as it was when it was read. */
  readonly input: Value;
  /** Where it reads it: an operand of the operator, or of the Reshape that flattens it. */
  readonly reads: Use;
  /** What it gives, [..., out], after any unflattening and cutting. */
  readonly output: Value;
  readonly inWidth: number;
  readonly outWidth: number;
  /** Bias inside the operator (Gemm C, MatMulNBits), [out], times what the operator multiplies it by. */
  readonly bias: Slot | null;
  /** What the operator applies to its result (FusedGemm): the linear layer itself is hidden in it. */
  readonly activation: FusedActivation | null;
  /** The operator can be given another matrix where it stands: nothing is flattened or cut around it. */
  readonly isPlain: boolean;
  /** First column of a packed matrix that this is; 0 for a whole one. */
  readonly start: number;
}

/** An element-wise function inside an operator that multiplies. */
export interface FusedActivation {
  readonly opType: string;
  readonly domain: string;
  readonly attributes: Readonly<Record<string, Attribute>>;
}

/** The linear layer that ends in `value`, or null. Throws Refusal for one that is recognised but cannot be handled. */
export function matchLinear(value: Value): Linear | null {
  const found = matchActivated(value);
  return found?.activation ? null : found;
}

/** As `matchLinear`; the value may also be what the operator's own activation makes of the linear layer. */
export function matchActivated(value: Value): Linear | null {
  const node = value.producer;
  if (!node) return null;
  if (node.op === 'Split' || node.op === 'Slice') return matchPart(value, node);
  return matchProduct(value, node) ?? matchUnflattened(value, node);
}

/** True when `node` multiplies by a constant matrix. */
export function isLinearOperator(node: Node): boolean {
  const matrix = matchMatrix(node);
  return matrix !== null && !(matrix instanceof Refusal);
}

function matchProduct(value: Value, node: Node): Linear | null {
  const input = node.input(0);
  if (!input || value.index !== 0 || constantOf(input)) return null;
  const matrix = matchMatrix(node);
  if (matrix instanceof Refusal) throw matrix;
  if (!matrix) return null;
  for (const flag of ['transA', 'transBatchA', 'transBatchB']) if (node.intAttribute(flag) === 1) return null;
  const index = biasOperandOf(node);
  const operand = index === null ? null : node.input(index);
  const stored = operand && constantOf(operand);
  if (operand && !stored) return null;
  const weight = stored && biasOf(node, stored, matrix.outWidth);
  return {
    node,
    matrix,
    input,
    reads: { node, index: 0 },
    output: value,
    inWidth: matrix.inWidth,
    outWidth: matrix.outWidth,
    bias: weight && index !== null ? { node, index, weight } : null,
    activation: activationOf(node),
    isPlain: true,
    start: 0,
  };
}

/** Which operand of an operator that multiplies is its bias; null where it takes none. */
export function biasOperandOf(node: Node): number | null {
  if (['Gemm', 'com.microsoft.FusedGemm', 'com.microsoft.GemmFastGelu'].includes(node.op)) return 2;
  return node.op === 'com.microsoft.MatMulNBits' ? 5 : null;
}

/** The bias that a Gemm adds: its C times `beta`. Throws Refusal for one that is not one number per channel. */
function biasOf(node: Node, stored: Weight, width: number): Weight {
  const beta = node.opType === 'MatMulNBits' ? 1 : (node.floatAttribute('beta') ?? 1);
  return beta === 1 ? stored : scale(vectorOf(stored, width), 0, constantVector(beta, 'float', width));
}

const FUSED = new Set(['com.microsoft.FusedGemm', 'com.microsoft.FusedMatMulActivation']);

function activationOf(node: Node): FusedActivation | null {
  if (node.op === 'com.microsoft.GemmFastGelu') return { opType: 'FastGelu', domain: 'com.microsoft', attributes: {} };
  const opType = FUSED.has(node.op) ? node.stringAttribute('activation') : undefined;
  if (!opType) return null;
  const named = [...node.attributes].flatMap(([name, attribute]) =>
    name.startsWith('activation_') ? [[name.slice('activation_'.length), attribute] as const] : [],
  );
  return { opType, domain: '', attributes: Object.fromEntries(named) };
}

/** Reshape([-1, in]) -> Gemm -> Reshape([..., out]): rows keep their order, so it is the same linear without them. */
function matchUnflattened(value: Value, node: Node): Linear | null {
  if (node.op !== 'Reshape') return null;
  const product = node.input(0)?.producer;
  const inner = product ? matchProduct(node.input(0) as Value, product) : null;
  const flatten = inner?.input.producer;
  if (!inner || flatten?.op !== 'Reshape' || inner.output.useCount !== 1) return null;
  const before = flatten.input(0);
  const known = lastDimOf(inner);
  if (!before || lastTarget(node.input(1), known) !== inner.outWidth) return null;
  const target = integersOf(flatten.input(1), (of) => (of === before ? inner.inWidth : known(of)));
  if (target && (target.length !== 2 || target[1] !== inner.inWidth)) return null;
  return { ...inner, input: before, reads: { node: flatten, index: 0 }, output: value, isPlain: false };
}

function lastDimOf(linear: Linear): (of: Value) => number | null {
  return (of) => {
    if (of === linear.output) return linear.outWidth;
    if (of === linear.input) return linear.inWidth;
    const last = of.shape?.at(-1);
    return typeof last === 'number' ? last : null;
  };
}

/** One part of a packed linear: an output of Split, or a Slice along the last axis. */
function matchPart(value: Value, node: Node): Linear | null {
  const packed = node.input(0);
  const source = packed && copiedFrom(packed);
  const found = source && (matchLinear(source) ?? matchBiased(source));
  if (!found) return null;
  const whole = { ...found, output: packed };
  const bounds = node.op === 'Split' ? splitBounds(node, value.index, whole) : sliceBounds(node, whole);
  if (!bounds) return null;
  const [start, end] = bounds;
  if (start === 0 && end === whole.outWidth) return { ...whole, output: value, isPlain: false };
  const matrix = whole.matrix.columns(start, end);
  const bias = whole.bias && { ...whole.bias, weight: sliceBias(whole.bias.weight, start, end) };
  return { ...whole, matrix, bias, output: value, outWidth: end - start, isPlain: false, start: whole.start + start };
}

/** A packed linear with its bias in an Add behind it: the parts take the bias along. */
function matchBiased(value: Value): Linear | null {
  const node = value.producer;
  if (node?.op !== 'Add') return null;
  for (const index of [0, 1]) {
    const weight = constantOf(node.input(index));
    const product = node.input(1 - index);
    const linear = weight && product ? matchLinear(copiedFrom(product)) : null;
    if (!weight || !linear || linear.bias || weight.dims.at(-1) !== linear.outWidth) continue;
    const bias = { node, index, weight: vectorOf(weight, linear.outWidth) };
    return { ...linear, bias, output: value, isPlain: false };
  }
  return null;
}

function sliceBias(weight: Weight, start: number, end: number): Weight {
  return slice(weight, weight.dims.length - 1, start, end);
}

function isLastAxis(axis: number | undefined, value: Value | null): boolean {
  return axis === -1 || axis === (value?.shape?.length ?? 3) - 1;
}

function splitBounds(node: Node, index: number, whole: Linear): [number, number] | null {
  if (!isLastAxis(node.intAttribute('axis') ?? 0, node.input(0))) return null;
  const count = node.outputs.length;
  const sizes = splitSizes(node);
  if (!sizes && whole.outWidth % count !== 0) return null;
  const widths = sizes ?? new Array<number>(count).fill(whole.outWidth / count);
  if (widths.reduce((sum, width) => sum + width, 0) !== whole.outWidth) return null;
  const start = widths.slice(0, index).reduce((sum, width) => sum + width, 0);
  return [start, start + (widths[index] as number)];
}

function sliceBounds(node: Node, whole: Linear): [number, number] | null {
  const known = lastDimOf(whole);
  const read = (i: number): number | undefined => {
    const found = node.input(i) ? integersOf(node.input(i), known) : null;
    return found?.length === 1 ? found[0] : undefined;
  };
  const [start, end, axis, step] = [read(1), read(2), read(3), node.input(4) ? read(4) : 1];
  if (start === undefined || end === undefined || step !== 1 || !isLastAxis(axis, node.input(0))) return null;
  const width = whole.outWidth;
  const clamp = (at: number): number => Math.min(Math.max(at < 0 ? at + width : at, 0), width);
  return clamp(start) < clamp(end) ? [clamp(start), clamp(end)] : null;
}
