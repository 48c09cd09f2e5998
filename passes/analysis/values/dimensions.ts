/**
 * Sizes of values as far as the graph tells, for the few questions a pass asks: is this dimension 1, which number stands
 * at this place of a Reshape's target. Dimensions may be told from outside that will grow: then the arithmetic exporters
 * do on shapes is followed for both sizes, the one there is and the one there will be.
 */
import type { Node, Value } from '../../../ir/core.js';
import { constantOf, numbersOf, splitSizes } from './constants.js';

/** A dimension, or an element of an integer tensor. */
export interface Size {
  /** Its value; null where it is not known. */
  readonly now: number | null;
  /** Its value once the graph has been changed as announced. */
  readonly later: number | null;
  /** Whether it depends on what will change. */
  readonly grows: boolean;
}

export type Sizes = readonly Size[];

const MOST_STEPS = 400;
const UNKNOWN: Size = { now: null, later: null, grows: false };

export function fixedSize(value: number | null): Size {
  return { now: value, later: value, grows: false };
}

function sum(sizes: Sizes): Size {
  const add = (a: number | null, b: number | null): number | null => (a === null || b === null ? null : a + b);
  return sizes.reduce((a, b) => ({
    now: add(a.now, b.now),
    later: add(a.later, b.later),
    grows: a.grows || b.grows,
  }));
}

const COPIES = new Set(['Cast', 'Identity', 'Squeeze', 'Unsqueeze', 'Reshape']);
const SAME_SHAPE = new Set(
  (
    'Cast Identity Neg Cos Sin Sqrt Reciprocal Exp Log Tanh Sigmoid Relu Not IsNaN Abs Softmax Trilu CumSum ScatterND ' +
    'Dropout Erf Floor Ceil RotaryEmbedding LayerNormalization RMSNormalization SimplifiedLayerNormalization'
  ).split(' '),
);
/** Their norm and their sum, results 0 and 3, have the shape of what they add up. */
const SKIP_NORMS = new Set(['SkipSimplifiedLayerNormalization', 'SkipLayerNormalization']);
/** Give [batch, tokens, channels] for queries of that shape, as many channels as the values have. */
const ATTENTIONS = new Set(['GroupQueryAttention', 'MultiHeadAttention', 'Attention']);
const BROADCASTS = new Set(
  'Add Sub Mul Div Pow Min Max And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual Where Mod'.split(' '),
);
const ARITHMETIC: ReadonlyMap<string, (a: number, b: number) => number> = new Map(
  Object.entries<(a: number, b: number) => number>({
    Add: (a, b) => a + b,
    Sub: (a, b) => a - b,
    Mul: (a, b) => a * b,
    Div: (a, b) => Math.trunc(a / b),
    Min: Math.min,
    Max: Math.max,
  }),
);

export class Dimensions {
  readonly #shapes = new Map<Value, Sizes | null>();
  readonly #elements = new Map<Value, Sizes | null>();
  #steps = 0;

  /** `told` gives the shapes of values that will change; null for all others. */
  constructor(readonly told: (value: Value) => Sizes | null = () => null) {}

  /** The shape of a value; null where not even the rank is known. */
  shape(value: Value): Sizes | null {
    const told = this.told(value);
    if (told) return told;
    const known = this.#shapes.get(value);
    if (known !== undefined) return known;
    this.#shapes.set(value, null);
    const found = ++this.#steps > MOST_STEPS ? null : this.#shape(value);
    this.#steps--;
    this.#shapes.set(value, found);
    return found;
  }

  /** The elements of an integer tensor of rank 0 or 1; null where their number is not known. */
  elements(value: Value): Sizes | null {
    const known = this.#elements.get(value);
    if (known !== undefined) return known;
    this.#elements.set(value, null);
    const found = ++this.#steps > MOST_STEPS ? null : this.#read(value);
    this.#steps--;
    this.#elements.set(value, found);
    return found;
  }

  /** The elements as plain numbers; null unless all are known and will stay. */
  numbers(value: Value | null): number[] | null {
    const elements = value && this.elements(value);
    if (!elements || elements.some(({ now, grows }) => now === null || grows)) return null;
    return elements.map(({ now }) => now as number);
  }

  #shape(value: Value): Sizes | null {
    const constant = constantOf(value);
    if (constant) return constant.dims.map(fixedSize);
    const stated = value.shape;
    const inferred = value.producer ? this.#result(value, value.producer) : null;
    if (!stated) return inferred;
    // What will grow is known from the operands alone; what the file says is as good for the rest.
    const isUseful = inferred?.length === stated.length;
    return stated.map((dim, i) => {
      const own = isUseful ? (inferred?.[i] as Size) : UNKNOWN;
      return own.grows || own.now !== null || typeof dim !== 'number' ? own : fixedSize(dim);
    });
  }

  #result(value: Value, node: Node): Sizes | null {
    const { opType } = node;
    const first = node.input(0);
    const operand = first && this.shape(first);
    if (SKIP_NORMS.has(opType) && (value.index === 0 || value.index === 3)) return operand;
    if (value.index !== 0 && opType !== 'Split') return null;
    if (SAME_SHAPE.has(opType)) return operand;
    if (ATTENTIONS.has(opType) && operand?.length === 3) return [...operand.slice(0, 2), UNKNOWN];
    if (node.domain !== '') return null;
    if (BROADCASTS.has(opType)) return this.#broadcast(node.inputs.map((each) => (each ? this.shape(each) : null)));
    switch (opType) {
      case 'Shape':
        return operand && [fixedSize(operand.length)];
      case 'Range':
        return [UNKNOWN];
      case 'ConstantOfShape':
        return first && this.elements(first);
      case 'Expand': {
        const target = node.input(1) && this.elements(node.input(1) as Value);
        return target && this.#broadcast([operand, target.map((size) => (size.now === -1 ? fixedSize(1) : size))]);
      }
      case 'Reshape': {
        const target = node.input(1) && this.elements(node.input(1) as Value);
        const copies = node.intAttribute('allowzero') !== 1;
        if (!target) return null;
        return target.map((size, i) => {
          if (size.now === 0 && copies) return operand?.[i] ?? UNKNOWN;
          return size.now === -1 ? { ...UNKNOWN, grows: operand?.some(({ grows }) => grows) ?? true } : size;
        });
      }
      case 'Transpose': {
        const perm = node.intsAttribute('perm') ?? operand?.map((_, i) => operand.length - 1 - i);
        return operand && (perm?.map((i) => operand[i] ?? UNKNOWN) ?? null);
      }
      case 'Unsqueeze': {
        const axes = this.axes(node);
        if (!operand || !axes) return null;
        const rank = operand.length + axes.length;
        const added = new Set(axes.map((axis) => (axis < 0 ? axis + rank : axis)));
        const rest = [...operand];
        return Array.from({ length: rank }, (_, i) => (added.has(i) ? fixedSize(1) : (rest.shift() ?? UNKNOWN)));
      }
      case 'Squeeze': {
        const axes = this.axes(node)?.map((axis) => (axis < 0 ? axis + (operand?.length ?? 0) : axis));
        return operand && axes ? operand.filter((_, i) => !axes.includes(i)) : null;
      }
      case 'Gather': {
        const indices = node.input(1) && this.shape(node.input(1) as Value);
        const axis = node.intAttribute('axis') ?? 0;
        if (!operand || !indices) return null;
        const at = axis < 0 ? axis + operand.length : axis;
        return [...operand.slice(0, at), ...indices, ...operand.slice(at + 1)];
      }
      case 'Slice':
      case 'Split':
        return this.#cut(node, operand);
      case 'Concat': {
        const axis = node.intAttribute('axis') ?? 0;
        const at = operand && (axis < 0 ? axis + operand.length : axis);
        const parts = node.inputs.map((each) => (each && at !== null ? this.shape(each)?.at(at) : null) ?? UNKNOWN);
        return operand?.map((size, i) => (i === at ? sum(parts) : size)) ?? null;
      }
      case 'MatMul': {
        const other = node.input(1) && this.shape(node.input(1) as Value);
        if (!operand || !other || operand.length < 2 || other.length < 2) return null;
        const batch = this.#broadcast([operand.slice(0, -2), other.slice(0, -2)]);
        return batch && [...batch, operand.at(-2) as Size, other.at(-1) as Size];
      }
    }
    return null;
  }

  /** The axes of Squeeze, Unsqueeze and the reductions: an attribute, or an operand. */
  axes(node: Node): number[] | null {
    return node.intsAttribute('axes') ?? this.numbers(node.input(1));
  }

  #cut(node: Node, operand: Sizes | null): Sizes | null {
    if (!operand) return null;
    const rank = operand.length;
    const named = node.opType === 'Split' ? [node.intAttribute('axis') ?? 0] : this.numbers(node.input(3));
    if (!named && node.input(3)) return operand.map(({ grows }) => ({ ...UNKNOWN, grows }));
    const count = node.input(1) ? (this.elements(node.input(1) as Value)?.length ?? rank) : 1;
    const axes = (named ?? Array.from({ length: count }, (_, i) => i)).map((axis) => (axis < 0 ? axis + rank : axis));
    return operand.map((size, i) => (axes.includes(i) ? { ...UNKNOWN, grows: size.grows } : size));
  }

  #broadcast(shapes: readonly (Sizes | null)[]): Sizes | null {
    if (shapes.some((shape) => shape === null)) return null;
    const known = shapes as readonly Sizes[];
    const rank = Math.max(0, ...known.map((shape) => shape.length));
    return Array.from({ length: rank }, (_, i) => {
      const sizes = known.flatMap((shape) => shape[shape.length - rank + i] ?? []);
      const grown = sizes.find(({ grows }) => grows);
      if (grown) return grown;
      const large = sizes.find(({ now }) => now !== null && now !== 1);
      return large ?? fixedSize(sizes.every(({ now }) => now === 1) ? 1 : null);
    });
  }

  #read(value: Value): Sizes | null {
    const constant = constantOf(value);
    if (constant) {
      const numbers = constant.dims.length < 2 ? numbersOf(constant) : null;
      return numbers?.every(Number.isInteger) ? numbers.map(fixedSize) : null;
    }
    const node = value.producer;
    if (node?.domain !== '') return null;
    const operand = (i: number): Sizes | null => {
      const input = node.input(i);
      return input && this.elements(input);
    };
    if (COPIES.has(node.opType)) return operand(0);
    switch (node.opType) {
      case 'Shape': {
        const shape = node.input(0) && this.shape(node.input(0) as Value);
        return shape ? shape.slice(node.intAttribute('start') ?? 0, node.intAttribute('end') ?? shape.length) : null;
      }
      case 'Gather': {
        const [from, indices] = [operand(0), this.numbers(node.input(1))];
        if (!from && node.input(0)?.producer?.op !== 'Shape') return null;
        return indices?.map((i) => from?.at(i) ?? UNKNOWN) ?? null;
      }
      case 'Slice': {
        const from = operand(0);
        const [start, end] = [this.numbers(node.input(1)), this.numbers(node.input(2))];
        const step = node.input(4) ? this.numbers(node.input(4))?.[0] : 1;
        if (!from || start?.length !== 1 || end?.length !== 1 || step !== 1) return null;
        return from.slice(start[0], end[0]);
      }
      case 'Split': {
        const from = operand(0);
        const sizes = splitSizes(node, (operand) => this.numbers(operand));
        const start = sizes?.slice(0, value.index).reduce((a, b) => a + b, 0) ?? value.index;
        if (!from || (!sizes && from.length !== node.outputs.length)) return null;
        return from.slice(start, start + (sizes?.[value.index] ?? 1));
      }
      case 'Concat': {
        const parts = node.inputs.map((_, i) => operand(i));
        return parts.every((part) => part !== null) ? parts.flat() : null;
      }
      case 'Where': {
        const [ones, target] = [operand(1), operand(2)];
        const chosen = numbersOf(constantOf(node.input(0)));
        if (chosen && ones && target) return target.map((size, i) => (chosen[i] ? (ones[i] ?? UNKNOWN) : size));
        // torch's expand: a size of -1 means that the dimension stays.
        const isTest = node.input(0)?.producer?.op === 'Equal' && node.input(0)?.producer?.input(0) === node.input(2);
        return isTest && target ? target.map((size) => (size.now === -1 ? fixedSize(1) : size)) : null;
      }
    }
    const compute = ARITHMETIC.get(node.opType);
    const [a, b] = compute ? [operand(0), operand(1)] : [null, null];
    if (!compute || !a || !b || (a.length !== b.length && a.length !== 1 && b.length !== 1)) return null;
    return Array.from({ length: Math.max(a.length, b.length) }, (_, i): Size => {
      const [x, y] = [a[a.length === 1 ? 0 : i] as Size, b[b.length === 1 ? 0 : i] as Size];
      const both = (m: number | null, n: number | null): number | null =>
        m === null || n === null ? null : compute(m, n);
      return { now: both(x.now, y.now), later: both(x.later, y.later), grows: x.grows || y.grows };
    });
  }
}
