/**
 * Norms: one operator (LayerNormalization, RMSNormalization, SimplifiedLayerNormalization, the norm half of a skip norm)
 * or the same formula spelled out, in any of the ways exporters spell it:
 *
 *     y = c * (mean(c^2) + eps)^(-1/2) [* gamma] [+ beta]      c = x (RMS)   or   x - mean(x) (layer)
 */
import type { Node, Use, Value } from '../../../ir/core.js';
import { bitsOf, dataTypeOf, elementCount, isScalable } from '../../../ir/type.js';
import type { Weight } from '../../../ir/weight.js';
import type { Linear } from '../matrices/linear.js';
import { constantVector, withRank } from '../matrices/vectors.js';
import { describe, Refusal } from '../refusal.js';
import { constantOf, numbersOf, type Slot, scalarOf } from '../values/constants.js';
import type { ElementTypes } from '../values/element-types.js';
import { isSame, isSkipNorm, type Point, throughAliases } from './residual-stream.js';

/** A norm, whether it is an operator or a formula of several nodes. */
export interface Norm {
  /** `none`: the linears read the residual stream itself. */
  readonly kind: 'rms' | 'layer' | 'none';
  readonly eps: number;
  /** Scale, [hidden]; null when the norm has none. */
  readonly gamma: Slot | null;
  /** Shift, [hidden]. */
  readonly beta: Slot | null;
  readonly output: Value;
  /** The operator, or `decomposed`. */
  readonly form: string;
  /** The narrower types that Casts round it to on the way, in their order; norms are alike only where these are. */
  readonly rounding: string;
}

const NORM_OPS: ReadonlyMap<string, 'rms' | 'layer'> = new Map(
  Object.entries<'rms' | 'layer'>({
    LayerNormalization: 'layer',
    SkipLayerNormalization: 'layer',
    RMSNormalization: 'rms',
    SimplifiedLayerNormalization: 'rms',
    SkipSimplifiedLayerNormalization: 'rms',
  }),
);

/** The norm of the point `input` that computes `value`, or null. Casts between the pieces are looked through. */
export function matchNorm(value: Value, input: Point, types: ElementTypes): Norm | null {
  const output = throughCasts(value);
  const found = matchOperator(output, input, types) ?? matchFormula(output, input, types);
  return found && { ...found, rounding: roundingOf(value, input, types) };
}

/** Types that Casts between `input` and `value` round to, and the norm itself. */
function roundingOf(value: Value, input: Point, types: ElementTypes): string {
  const found: string[] = [];
  const seen = new Set<Value>();
  const open = [value];
  for (let at = open.pop(); at; at = open.pop()) {
    const node = at.producer;
    if (!node || node === input || seen.has(at) || isSame(at, input, types) || constantOf(at)) continue;
    seen.add(at);
    const from = node.input(0);
    if (node.op === 'Cast' && from) {
      const to = dataTypeOf(node.intAttribute('to') ?? 0);
      const known = types.get(from);
      if (known ? bitsOf(to) < bitsOf(known) : bitsOf(to) < 32) found.push(to);
    }
    // Of narrow operands and a wide scale an operator computes in the narrow type.
    const [read, given] = [from && types.get(from), types.get(at)];
    if (isNormOperator(node) && read && given && bitsOf(read) < bitsOf(given)) found.push(read);
    for (const operand of node.inputs) if (operand) open.push(operand);
  }
  return found.sort().join('+');
}

/** A constant per channel that the result of a norm is multiplied by, or divided by (SmoothQuant, AWQ). */
export interface Factor {
  /** [hidden]. */
  readonly weight: Weight;
  readonly isDivisor: boolean;
}

/** What a projection reads: the norm of the stream, or the stream itself, times a factor where there is one. */
export interface NormReading {
  readonly norm: Norm;
  readonly factor: Factor | null;
  /** Where the result of the norm is read: an operand of the operator that applies the factor, or of the projection. */
  readonly reads: Use;
}

/** Reads back from a projection to the point `input`. Throws Refusal where something else comes in between. */
export function readNorm(
  { node, input: value, reads, inWidth }: Linear,
  input: Point,
  types: ElementTypes,
): NormReading {
  const direct = matchNorm(value, input, types) ?? noNorm(value, input, types);
  if (direct) return { norm: direct, factor: null, reads };
  const scaled = readFactor(throughAliases(value, types), inWidth, types);
  const norm = scaled && (matchNorm(scaled.rest, input, types) ?? noNorm(scaled.rest, input, types));
  if (norm) return { norm, factor: scaled.factor, reads: scaled.reads };
  throw new Refusal(`${describe(node)} does not read a norm of the residual stream`, node);
}

function noNorm(value: Value, input: Point, types: ElementTypes): Norm | null {
  if (!isSame(value, input, types)) return null;
  return { kind: 'none', eps: 0, gamma: null, beta: null, output: value, form: 'none', rounding: '' };
}

function readFactor(
  value: Value,
  width: number,
  types: ElementTypes,
): { factor: Factor; rest: Value; reads: Use } | null {
  const node = value.producer;
  if (node?.op !== 'Mul' && node?.op !== 'Div') return null;
  for (const index of node.op === 'Mul' ? [0, 1] : [1]) {
    const [operand, rest] = [node.input(index), node.input(1 - index)];
    const weight = operand && constantOf(operand);
    if (!weight || !rest || constantOf(rest)) continue;
    const scalar = scalarOf(operand);
    const dtype = types.get(operand) ?? weight.dtype;
    const vector = scalar === null ? channelsOf(weight, width) : constantVector(scalar, dtype, width);
    if (vector) {
      return { factor: { weight: vector, isDivisor: node.op === 'Div' }, rest, reads: { node, index: 1 - index } };
    }
  }
  return null;
}

/** One number per channel of the last dimension as [width]; null for anything else. */
function channelsOf(weight: Weight, width: number): Weight | null {
  return weight.dims.at(-1) === width && elementCount(weight.dims) === width ? withRank(weight, 1) : null;
}

/** True when the node is a norm operator of any kind. */
export function isNormOperator(node: Node): boolean {
  return NORM_OPS.has(node.opType);
}

/** Follows Identity and Casts from one floating-point type to another. */
function throughCasts(value: Value): Value {
  for (let at = value; ; ) {
    const node = at.producer;
    const from = node?.input(0);
    const isCopy =
      node?.op === 'Identity' || (node?.op === 'Cast' && isScalable(dataTypeOf(node.intAttribute('to') ?? 0)));
    if (!from || !isCopy) return at;
    at = from;
  }
}

function reads(value: Value | null, input: Point, types: ElementTypes): boolean {
  return value !== null && (isSame(value, input, types) || isSame(throughCasts(value), input, types));
}

function slot(node: Node, index: number): Slot | null {
  const weight = constantOf(node.input(index));
  return weight ? { node, index, weight } : null;
}

type Match = Omit<Norm, 'rounding'>;

function matchOperator(output: Value, input: Point, types: ElementTypes): Match | null {
  const node = output.producer;
  const kind = node && NORM_OPS.get(node.opType);
  if (!node || !kind || output.index !== 0) return null;
  const isSkip = isSkipNorm(node);
  if (isSkip ? input !== node : !reads(node.input(0), input, types)) return null;
  const gamma = slot(node, isSkip ? 2 : 1);
  const hasBeta = kind === 'layer' && node.input(isSkip ? 3 : 2) !== null;
  const beta = hasBeta ? slot(node, isSkip ? 3 : 2) : null;
  if (!gamma || (hasBeta && !beta)) return null;
  const axis = node.intAttribute('axis') ?? -1;
  if (!isSkip && axis !== -1 && axis !== (output.shape?.length ?? 3) - 1) return null;
  const eps = node.floatAttribute('epsilon') ?? (isSkip ? 1e-12 : 1e-5);
  return { kind, eps, gamma, beta, output, form: node.opType };
}

/** Splits `a op b` into its constant vector and its computed operand. */
function withVector(value: Value, opType: string): { slot: Slot; rest: Value } | null {
  const node = value.producer;
  if (node?.op !== opType) return null;
  for (const index of [0, 1]) {
    const constant = slot(node, index);
    const rest = node.input(1 - index);
    if (constant && rest && elementCount(constant.weight.dims) > 1) return { slot: constant, rest };
  }
  return null;
}

function matchFormula(output: Value, input: Point, types: ElementTypes): Match | null {
  const shifted = withVector(output, 'Add');
  const scaled = withVector(throughCasts(shifted?.rest ?? output), 'Mul');
  if (shifted && !scaled) return null;
  const core = throughCasts(scaled?.rest ?? output);
  const normalised = matchNormalised(core);
  if (!normalised) return null;
  const { centre, eps } = normalised;
  let kind: Norm['kind'];
  if (reads(centre, input, types)) kind = 'rms';
  else if (isCentred(centre, input, types)) kind = 'layer';
  else return null;
  return { kind, eps, gamma: scaled?.slot ?? null, beta: shifted?.slot ?? null, output, form: 'decomposed' };
}

/** centre * (mean(centre^2) + eps)^(-1/2), as Div(c, Sqrt), Mul(c, Reciprocal(Sqrt)), Mul(c, Div(1, Sqrt)) or Pow. */
function matchNormalised(value: Value): { centre: Value; eps: number } | null {
  const node = value.producer;
  if (node?.op === 'Div') return tryCentre(node.input(0), sqrtOf(node.input(1)));
  if (node?.op !== 'Mul') return null;
  return (
    tryCentre(node.input(0), inverseSqrtOf(node.input(1))) ?? tryCentre(node.input(1), inverseSqrtOf(node.input(0)))
  );
}

function sqrtOf(value: Value | null): Value | null {
  const node = value && throughCasts(value).producer;
  if (node?.op === 'Sqrt') return node.input(0);
  return node?.op === 'Pow' && scalarOf(node.input(1)) === 0.5 ? node.input(0) : null;
}

function inverseSqrtOf(value: Value | null): Value | null {
  const node = value && throughCasts(value).producer;
  if (node?.op === 'Reciprocal') return sqrtOf(node.input(0));
  if (node?.op === 'Div' && scalarOf(node.input(0)) === 1) return sqrtOf(node.input(1));
  return node?.op === 'Pow' && scalarOf(node.input(1)) === -0.5 ? node.input(0) : null;
}

function tryCentre(centre: Value | null, variance: Value | null): { centre: Value; eps: number } | null {
  if (!centre || !variance) return null;
  const add = throughCasts(variance).producer;
  // Without an epsilon: an optimizer has dropped one of 0, or too small to be one.
  const plain = meanOf(throughCasts(variance));
  if (plain) return isSquareOf(plain, centre) ? { centre, eps: 0 } : null;
  if (add?.op !== 'Add') return null;
  for (const index of [0, 1]) {
    const eps = scalarOf(add.input(index));
    const mean = add.input(1 - index);
    const square = mean && meanOf(throughCasts(mean));
    if (eps !== null && square && isSquareOf(square, centre)) return { centre, eps };
  }
  return null;
}

/** The operand of a ReduceMean over the last axis that keeps the dimension. */
function meanOf(value: Value): Value | null {
  const node = value.producer;
  if (node?.op !== 'ReduceMean' || node.intAttribute('keepdims') === 0) return null;
  const axes = node.intsAttribute('axes') ?? numbersOf(constantOf(node.input(1)));
  return axes?.length === 1 && (axes[0] === -1 || axes[0] === 2) ? node.input(0) : null;
}

function isSquareOf(value: Value, of: Value): boolean {
  const node = throughCasts(value).producer;
  if (!node) return false;
  if (!isTwin(node.input(0), of)) return false;
  return node.op === 'Pow' ? scalarOf(node.input(1)) === 2 : node.op === 'Mul' && isTwin(node.input(1), of);
}

/** True for one value, up to casts, and for a difference that is computed twice. */
function isTwin(a: Value | null, b: Value): boolean {
  if (!a) return false;
  const [left, right] = [throughCasts(a), throughCasts(b)];
  if (left === right) return true;
  const [first, second] = [left.producer, right.producer];
  return first?.op === 'Sub' && second?.op === 'Sub' && first.inputs.every((value, i) => value === second.input(i));
}

function isCentred(value: Value, input: Point, types: ElementTypes): boolean {
  const node = throughCasts(value).producer;
  if (node?.op !== 'Sub' || !reads(node.input(0), input, types)) return false;
  const mean = node.input(1);
  const inner = mean && meanOf(throughCasts(mean));
  return reads(inner ?? null, input, types);
}
