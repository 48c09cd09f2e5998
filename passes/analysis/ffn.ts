/**
 * Feed-forward branches: norm -> linear(s) -> element-wise -> linear [+ bias] [* constant].
 *
 * The element-wise part is read as a small expression over the outputs of the input linears (`$0`, `$1`, gate before up)
 * and over per-channel constants (`#0`, biases among them), with commutative operands in a canonical order. So SiLU as
 * x*Sigmoid(x), a decomposed GELU, QuickGelu and friends need no table each, and two FFNs compute the same function of
 * their linears exactly when their expressions are equal strings.
 */
import type { Node, Value } from '../../ir/core.js';
import { floatText } from '../../ir/text/literal.js';
import { elementCount } from '../../ir/type.js';
import { constantOf, scalarOf } from './constants.js';
import { isQuantisedLinear, type Linear, matchLinear } from './linear.js';
import { isNormOperator, matchNorm, type Norm, type Slot } from './norm.js';
import { type Point, throughAliases } from './residual-stream.js';
import type { ElementTypes } from './types.js';

export interface Ffn {
  readonly norm: Norm;
  /** Input linears in canonical order: for a gated FFN gate first, then up. */
  readonly linears: readonly Linear[];
  /** Per-channel constants inside the element-wise part, [width] each, in canonical order. */
  readonly vectors: readonly Slot[];
  readonly down: Linear;
  /** Bias after the down projection, [hidden]. */
  readonly downBias: Slot | null;
  /** The element-wise part as an expression, e.g. `Mul($0,$1,Sigmoid($0))`. */
  readonly activation: string;
  /** What follows the down projection besides its bias: constant factors and casts. */
  readonly tail: string;
  readonly hidden: number;
  readonly width: number;
  /** Values of the element-wise part whose last dimension is `width`. */
  readonly hiddenValues: readonly Value[];
}

/** Either a feed-forward branch or the reason why it is none. */
export type FfnMatch = { readonly ffn: Ffn } | { readonly reason: string };

const ELEMENTWISE = new Set([
  'Add',
  'Sub',
  'Mul',
  'Div',
  'Pow',
  'Sqrt',
  'Sigmoid',
  'Tanh',
  'Erf',
  'Relu',
  'Gelu',
  'FastGelu',
  'QuickGelu',
  'BiasGelu',
  'Swish',
  'Silu',
  'HardSwish',
  'HardSigmoid',
  'Softplus',
  'Softsign',
  'Mish',
  'Elu',
  'Selu',
  'Celu',
  'LeakyRelu',
  'ThresholdedRelu',
  'Exp',
  'Log',
  'Neg',
  'Abs',
  'Min',
  'Max',
  'Clip',
  'Reciprocal',
  'Cast',
  'Identity',
  'Sum',
]);
const COMMUTATIVE = new Set(['Add', 'Mul', 'Min', 'Max', 'Sum']);

class Mismatch extends Error {}

/** Reads the branch that ends in `output` and starts at the point `input`. */
export function matchFfn(output: Value, input: Point, types: ElementTypes): FfnMatch {
  try {
    return { ffn: readFfn(output, input, types) };
  } catch (error) {
    if (error instanceof Mismatch) return { reason: error.message };
    throw error;
  }
}

function describe(node: Node | null | undefined): string {
  return node ? `${node.op}${node.name ? ` '${node.name}'` : ''}` : 'an input';
}

function readFfn(output: Value, input: Point, types: ElementTypes): Ffn {
  const { down, downBias, tail } = readTail(output, types);
  const reader = new ElementwiseReader(down.inWidth, types);
  const tree = reader.read(down.input);
  const { text, linears, vectors } = canonical(tree);
  const first = linears[0];
  if (!first) throw new Mismatch('nothing but constants feeds the down projection');
  for (const linear of linears) {
    if (linear.weight.dtype !== down.weight.dtype) {
      throw new Mismatch(`its weights mix ${linear.weight.dtype} and ${down.weight.dtype}`);
    }
  }
  let norm: Norm | null = null;
  for (const linear of linears) {
    const found = matchNorm(linear.input, input, types);
    if (!found) {
      throw new Mismatch(`${describe(linear.node)} does not read a norm of the residual stream`);
    }
    if (norm && norm.output !== found.output) throw new Mismatch('its input linears read different norms');
    norm = found;
  }
  return {
    norm: norm as Norm,
    linears,
    vectors,
    down,
    downBias,
    activation: text,
    tail,
    hidden: down.outWidth,
    width: down.inWidth,
    hiddenValues: reader.values,
  };
}

/** From the branch's end back to the down projection. */
function readTail(output: Value, types: ElementTypes): { down: Linear; downBias: Slot | null; tail: string } {
  let downBias: Slot | null = null;
  const tail: string[] = [];
  for (let at = output; ; ) {
    at = throughAliases(at, types);
    const node = at.producer;
    const down = matchLinear(node);
    if (down) {
      if (down.bias && downBias) throw new Mismatch('its down projection has two biases');
      return { down, downBias: downBias ?? down.bias, tail: tail.join() };
    }
    if (!node) throw new Mismatch('it does not end in a projection');
    if (isQuantisedLinear(node)) throw new Mismatch(`its down projection is quantised (${node.op})`);
    if (isNormOperator(node)) throw new Mismatch(`${describe(node)} follows the down projection (post-norm)`);
    const step = constantStep(node);
    if (node.op === 'Mul' && step?.scalar !== undefined) tail.push(`*${step.scalar}`);
    else if (node.op === 'Add' && step?.slot && !downBias) downBias = step.slot;
    else if (node.op === 'Cast') tail.push(`cast${node.intAttribute('to')}`);
    else throw new Mismatch(`it ends in ${describe(node)}, not in a projection with a constant weight`);
    at = step?.rest ?? (node.input(0) as Value);
  }
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

type Tree =
  | { readonly kind: 'linear'; readonly linear: Linear }
  | { readonly kind: 'vector'; readonly slot: Slot }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'op'; readonly name: string; readonly operands: readonly Tree[]; readonly commutes: boolean };

class ElementwiseReader {
  readonly values: Value[] = [];
  readonly #seen = new Map<Value, Tree>();
  constructor(
    readonly width: number,
    readonly types: ElementTypes,
  ) {}

  read(value: Value): Tree {
    const known = this.#seen.get(value);
    if (known) return known;
    if (this.#seen.size > 200) throw new Mismatch('its element-wise part is too large to be one');
    const tree = this.#readNode(value, value.producer);
    this.#seen.set(value, tree);
    this.values.push(value);
    return tree;
  }

  #readNode(value: Value, node: Node | null): Tree {
    const linear = matchLinear(node);
    if (linear) return this.#linear(linear);
    if (!node) throw new Mismatch(`'${value.name}' feeds its element-wise part from outside`);
    if (isQuantisedLinear(node)) throw new Mismatch(`its weights are quantised (${node.op})`);
    if (!ELEMENTWISE.has(node.opType)) throw new Mismatch(`${describe(node)} is not element-wise`);
    if (throughAliases(value, this.types) !== value) return this.read(node.input(0) as Value);
    const operands = node.inputs.flatMap((operand, index) => (operand ? [this.#operand(node, operand, index)] : []));
    const [x] = operands as [Tree];
    switch (node.opType) {
      case 'QuickGelu':
      case 'Swish': {
        const alpha = node.floatAttribute('alpha') ?? (node.opType === 'Swish' ? 1 : 1.702);
        const inner: Tree = alpha === 1 ? x : op('Mul', [x, { kind: 'text', text: String(Math.fround(alpha)) }]);
        return op('Mul', [x, op('Sigmoid', [inner])]);
      }
      case 'Silu':
        return op('Mul', [x, op('Sigmoid', [x])]);
      case 'Pow':
        if (scalarOf(node.input(1)) === 2) return op('Mul', [x, x]);
        break;
      case 'Cast':
        return op(`Cast${node.intAttribute('to')}`, operands);
    }
    return op(node.op + attributesOf(node), operands, COMMUTATIVE.has(node.opType));
  }

  #linear(linear: Linear): Tree {
    const tree: Tree = { kind: 'linear', linear };
    if (linear.outWidth !== this.width) {
      throw new Mismatch(
        `${describe(linear.node)} is ${linear.outWidth} wide, the down projection takes ${this.width}`,
      );
    }
    return linear.bias ? op('Add', [tree, { kind: 'vector', slot: linear.bias }]) : tree;
  }

  #operand(node: Node, operand: Value, index: number): Tree {
    const weight = constantOf(operand);
    if (!weight) return this.read(operand);
    const scalar = scalarOf(operand);
    if (scalar !== null) return { kind: 'text', text: String(scalar) };
    if (weight.dims.at(-1) === this.width && elementCount(weight.dims) === this.width) {
      return { kind: 'vector', slot: { node, index, weight } };
    }
    throw new Mismatch(`${describe(node)} uses a constant of shape [${weight.dims}]`);
  }
}

function op(name: string, operands: readonly Tree[], commutes = name === 'Add' || name === 'Mul'): Tree {
  const flat = commutes ? operands.flatMap((x) => (x.kind === 'op' && x.name === name ? x.operands : [x])) : operands;
  return { kind: 'op', name, operands: flat, commutes };
}

function attributesOf(node: Node): string {
  const parts: string[] = [];
  for (const [name, attribute] of [...node.attributes].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (attribute.kind === 'float' || attribute.kind === 'int') parts.push(`${name}=${attribute.value}`);
    else if (attribute.kind === 'string') parts.push(`${name}=${node.stringAttribute(name)}`);
    else parts.push(`${name}=?${node.name}`);
  }
  return parts.length > 0 ? `{${parts.join()}}` : '';
}

/** Text without telling linears or vectors apart: the sort key of commutative operands. */
function shapeOf(tree: Tree): string {
  switch (tree.kind) {
    case 'linear':
      return '$';
    case 'vector':
      return '#';
    case 'text':
      return tree.text;
    case 'op': {
      const inner = tree.operands.map(shapeOf);
      return `${tree.name}(${(tree.commutes ? inner.sort(compare) : inner).join()})`;
    }
  }
}

/** Longer first, so that the argument of the non-linearity (the gate) is numbered before the bare factor (up). */
function compare(a: string, b: string): number {
  return b.length - a.length || (a < b ? -1 : a > b ? 1 : 0);
}

function canonical(tree: Tree): { text: string; linears: Linear[]; vectors: Slot[] } {
  const linears: Linear[] = [];
  const vectors: Slot[] = [];
  const print = (at: Tree): string => {
    switch (at.kind) {
      case 'linear': {
        let index = linears.findIndex((linear) => linear.node === at.linear.node);
        if (index < 0) index = linears.push(at.linear) - 1;
        return `$${index}`;
      }
      case 'vector': {
        // One that is read twice keeps its number: another FFN may have two in its place.
        let index = vectors.findIndex((slot) => slot.node === at.slot.node && slot.index === at.slot.index);
        if (index < 0) index = vectors.push(at.slot) - 1;
        return `#${index}`;
      }
      case 'text':
        return at.text;
      case 'op': {
        if (!at.commutes) return `${at.name}(${at.operands.map(print).join()})`;
        const numbered = (x: Tree) => (x.kind === 'linear' && linears.some((l) => l.node === x.linear.node) ? 0 : 1);
        const rest = [...at.operands].sort((a, b) => compare(shapeOf(a), shapeOf(b)));
        const printed: string[] = [];
        while (rest.length > 0) {
          // Among equals, the linear that already has a number comes first.
          const key = shapeOf(rest[0] as Tree);
          let pick = 0;
          for (let i = 1; i < rest.length && shapeOf(rest[i] as Tree) === key; i++) {
            if (numbered(rest[i] as Tree) < numbered(rest[pick] as Tree)) pick = i;
          }
          printed.push(print(rest.splice(pick, 1)[0] as Tree));
        }
        return `${at.name}(${printed.join()})`;
      }
    }
  };
  return { text: print(tree), linears, vectors };
}

/** 0.00001 for the float32 nearest to it, not the digits of the double behind it. */
function shortest(value: number): string {
  return Math.fround(value) === value ? floatText(value) : String(value);
}

/** FFNs with equal keys can be concatenated: only widths, weights and gammas may differ. */
export function compatibilityKey(ffn: Ffn): string {
  const { norm } = ffn;
  return [
    `norm ${norm.kind} eps ${shortest(norm.eps)}${norm.gamma ? ' gamma' : ''}${norm.beta ? ' beta' : ''}`,
    `activation ${ffn.activation}`,
    `tail ${ffn.tail || 'none'}${ffn.downBias ? ' bias' : ''}`,
    `dtype ${ffn.down.weight.dtype}`,
    `linears ${ffn.linears.map((linear) => `${linear.op}${linear.inAxis}`).join()} down ${ffn.down.op}${ffn.down.inAxis}`,
  ].join('; ');
}
