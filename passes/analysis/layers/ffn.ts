/** Feed-forward branches: norm -> linear(s) -> element-wise -> linear [+ bias] [* constant]. */

import type { Node, Value } from '../../../ir/core.js';
import { floatText } from '../../../ir/text/literal.js';
import { type Linear, matchLinear } from '../matrices/linear.js';
import { attempt, describe, operandOf, Refusal } from '../refusal.js';
import { constantOf, type Slot, scalarOf } from '../values/constants.js';
import type { ElementTypes } from '../values/element-types.js';
import { type ElementConstant, type Elementwise, quantisedActivations, readElementwise } from './elementwise.js';
import { isNormOperator, type Norm, type NormReading, readNorm } from './norm.js';
import { biasOperand, isSkipNorm, type Point, throughAliases } from './residual-stream.js';

/** An FFN as it is read: norm, input projections, activation, down projection, tail. */
export interface Ffn {
  readonly norm: Norm;
  /** Input linears in canonical order: for a gated FFN gate first, then up. */
  readonly linears: readonly Linear[];
  /** Per linear: what it reads. */
  readonly readings: readonly NormReading[];
  /** Constants inside the element-wise part, the linears' biases among them, in canonical order. */
  readonly constants: readonly ElementConstant[];
  readonly down: Linear;
  /** Bias after the down projection, [hidden]: in the projection, in an Add, or in the skip norm that takes the sum. */
  readonly downBias: Slot | null;
  /** The element-wise part as an expression without biases, e.g. `Mul(Sigmoid($0),$0,$1)`. */
  readonly activation: string;
  /** The same with biases and everything; equal keys can be served by one expression with other constants. */
  readonly expression: Pick<Elementwise, 'key' | 'text'>;
  /** Zero channels stay zero: channels may be padded. */
  readonly keepsZero: boolean;
  /** What follows the down projection besides its bias: constant factors and casts. */
  readonly tail: string;
  readonly hidden: number;
  readonly width: number;
  /** Values of the element-wise part whose last dimension is `width`. */
  readonly hiddenValues: readonly Value[];
}

/** Reads the branch that ends in `output`, a term of the sum at `end`, and starts at the point `input`. */
export function matchFfn(output: Value, input: Point, end: Point, types: ElementTypes): Ffn | Refusal {
  return attempt(() => readFfn(output, input, end, types));
}

function readFfn(output: Value, input: Point, end: Point, types: ElementTypes): Ffn {
  const { down, downBias, tail } = readTail(output, skipBias(output, end), types, FFN_WORDS);
  const elementwise = readElementwise(down.input, down.inWidth, types);
  const { linears } = elementwise;
  if (!linears[0]) throw new Refusal('nothing but constants feeds the down projection');
  const readings = linears.map((linear) => {
    if (linear.matrix.dtype !== down.matrix.dtype) {
      throw new Refusal(`its weights mix ${linear.matrix.dtype} and ${down.matrix.dtype}`);
    }
    return readNorm(linear, input, types);
  });
  const [{ norm }] = readings as [NormReading];
  if (readings.some((reading) => reading.norm.output !== norm.output)) {
    throw new Refusal('its input linears read different norms');
  }
  return {
    norm,
    linears,
    readings,
    constants: elementwise.constants,
    down,
    downBias,
    tail,
    activation: elementwise.name,
    expression: elementwise,
    keepsZero: elementwise.keepsZero,
    hiddenValues: elementwise.values,
    hidden: down.outWidth,
    width: down.inWidth,
  };
}

/** The bias operand of a skip norm belongs to the branch that is its direct operand. */
export function skipBias(output: Value, end: Point): Slot | null {
  if (!('opType' in end) || !isSkipNorm(end)) return null;
  const index = biasOperand(end);
  const weight = constantOf(end.input(index));
  const isDirect = end.input(0) === output || end.input(1) === output;
  return weight && isDirect ? { node: end, index, weight } : null;
}

/** What the parts of a branch are called in reasons. */
export interface BranchWords {
  readonly projection: string;
  readonly merged: string;
  readonly afterNorm: string;
}

const FFN_WORDS: BranchWords = {
  projection: 'its down projection',
  merged: 'one wide FFN',
  afterNorm:
    'a sum of such FFNs is no single FFN, and one batched product per projection measured no faster (BENCHMARKS.md)',
};

/** Reads from the branch's end back to the down projection (of an attention: the output projection). Throws Refusal. */
export function readTail(
  output: Value,
  bias: Slot | null,
  types: ElementTypes,
  words: BranchWords,
): { down: Linear; downBias: Slot | null; tail: string } {
  let downBias = bias;
  // The place of the bias counts: before a factor it is scaled, after it is not.
  const tail: string[] = bias ? ['+bias'] : [];
  for (let at = output; ; ) {
    at = throughAliases(at, types);
    const node = at.producer;
    const down = matchLinear(at);
    if (down) {
      if (down.bias && downBias) throw new Refusal(`${words.projection} has two biases`, node);
      if (down.bias) tail.push('+bias');
      return { down, downBias: downBias ?? down.bias, tail: tail.join() };
    }
    if (!node) throw new Refusal('it does not end in a projection');
    if (node.opType === 'DequantizeLinear' || node.opType === 'QuantizeLinear') {
      throw quantisedActivations(node, words.merged);
    }
    if (isNormOperator(node)) throw postNorm(node, words);
    const step = constantStep(node);
    if (node.op === 'Mul' && step?.scalar !== undefined) tail.push(`*${step.scalar}`);
    else if (node.op === 'Add' && step?.slot && !downBias) {
      downBias = step.slot;
      tail.push('+bias');
    } else if (node.op === 'Cast') tail.push(`cast${node.intAttribute('to')}`);
    else if (node.op === 'Mul' && step?.slot) throw postNorm(node, words);
    else if (node.op === 'Mul' && node.input(0)?.producer?.input(0)?.producer?.op === 'MatMulInteger') {
      const reason = 'MatMulInteger quantises its activations, each member with a scale of its own';
      throw new Refusal(reason, node, 'quantised');
    } else throw new Refusal(`it ends in ${describe(node)}, not in a projection with a constant weight`, node);
    at = step?.rest ?? operandOf(node, 0);
  }
}

function postNorm(node: Node, { projection, afterNorm }: BranchWords): Refusal {
  return new Refusal(`a norm (${describe(node)}) follows ${projection}: ${afterNorm}`, node);
}

function constantStep(node: Node): { rest: Value; scalar?: number; slot?: Slot } | null {
  for (const index of [1, 0]) {
    const weight = constantOf(node.input(index));
    const rest = node.input(1 - index);
    if (!weight || !rest) continue;
    const scalar = scalarOf(node.input(index));
    return scalar === null ? { rest, slot: { node, index, weight } } : { rest, scalar };
  }
  return null;
}

/** 0.00001 for the float32 nearest to it, not the digits of the double behind it. */
export function shortest(value: number): string {
  return Math.fround(value) === value ? floatText(value) : String(value);
}

/** The properties in which FFNs must agree to be merged: as each is compared, and in two ways of saying it. */
function traitsOf({
  norm,
  activation,
  expression,
  tail,
  linears,
  down,
}: Ffn): readonly (readonly [string, ...string[]])[] {
  const rounding = norm.rounding ? ` rounded to ${norm.rounding}` : '';
  const shift = norm.beta ? ' beta' : '';
  return [
    [`norm ${norm.kind} eps ${shortest(norm.eps)}${norm.gamma ? ' gamma' : ''}${shift}${rounding}`],
    [expression.key, `activation ${activation}`, `activation ${expression.text}`],
    [`tail ${tail || 'none'}`],
    [`weights ${[...linears, down].map(({ matrix }) => matrix.format).join('/')}`],
  ];
}

/** FFNs with equal keys may be merged: only widths, weights, gammas and other constants differ. */
export function compatibilityKey(ffn: Ffn): string {
  return traitsOf(ffn)
    .map(([key]) => key)
    .join('; ');
}

/** The first property in which two FFNs differ; null when they agree. */
export function keyDifference(a: Ffn, b: Ffn): string | null {
  const others = traitsOf(b);
  for (const [i, [key, short = key, long = short]] of traitsOf(a).entries()) {
    const [otherKey, otherShort = otherKey, otherLong = otherShort] = others[i] ?? [''];
    // Where the short way of saying it is the same, the long one tells them apart.
    if (key !== otherKey)
      return short === otherShort ? `${otherLong} instead of ${long}` : `${otherShort} instead of ${short}`;
  }
  return null;
}
