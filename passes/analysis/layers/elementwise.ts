/**
 * The element-wise part of an FFN as a small expression over its input linears without their biases (`$0`, `$1`, gate
 * before up) and over constants (`#0`), of which there may be one for each channel, with commutative operands in a
 * canonical order. SiLU as x*Sigmoid(x), a
 * decomposed GELU, QuickGelu and friends need no table each: two FFNs compute the same function of their linears
 * exactly when their expressions are equal strings.
 */

import type { Attribute, Node, Value } from '../../../ir/core.js';
import { elementCount, isScalable } from '../../../ir/type.js';
import { type Linear, matchActivated } from '../matrices/linear.js';
import { constantVector } from '../matrices/vectors.js';
import { describe, operandOf, Refusal } from '../refusal.js';
import { constantOf, type Slot, scalarOf } from '../values/constants.js';
import type { ElementTypes } from '../values/element-types.js';
import { throughAliases } from './residual-stream.js';

/** A constant operand of the element-wise part. */
export interface ElementConstant {
  /** Where it is read; its weight, or, of a scalar, one number of its type. */
  readonly slot: Slot;
  /** The one number that serves all channels; null where there is one for each, [width]. */
  readonly scalar: number | null;
  /** The linear layer whose own bias it is. */
  readonly biasOf: Linear | null;
}

/** What lies between the input projections and the down projection. */
export interface Elementwise {
  /** Equal where one expression can do the work of both: constants are only counted. */
  readonly key: string;
  /** The same with the numbers, for people. */
  readonly text: string;
  /** The same without the biases of the linear layers. */
  readonly name: string;
  readonly linears: readonly Linear[];
  /** In the order of the key. */
  readonly constants: readonly ElementConstant[];
  /** Values of this part, the linears' outputs among them: their last dimension is the width. */
  readonly values: readonly Value[];
  /** True when zeros from all linears give zero: padding channels is then exact. */
  readonly keepsZero: boolean;
}

const ELEMENTWISE = new Set(
  (
    'Add Sub Mul Div Pow Sqrt Sigmoid Tanh Erf Relu Gelu FastGelu QuickGelu BiasGelu Swish Silu SwiGLU HardSwish ' +
    'HardSigmoid Softplus Softsign Mish Elu Selu Celu LeakyRelu PRelu ThresholdedRelu Shrink Exp Log Neg Abs Sign Min ' +
    'Max Clip Reciprocal Cast Identity Sum Where Greater GreaterOrEqual Less LessOrEqual Equal Not And Or Xor Floor ' +
    'Ceil Round Sin Cos IsNaN'
  ).split(' '),
);
const COMMUTATIVE = new Set(['Add', 'Mul', 'Min', 'Max', 'Sum', 'Equal', 'And', 'Or', 'Xor']);
/** Operators for which a number for all channels and one for each channel are the same: they broadcast. */
const BROADCASTS = new Set(
  'Add Sub Mul Div Min Max Sum Where Greater GreaterOrEqual Less LessOrEqual Equal PRelu'.split(' '),
);
/** Attributes as the operators define them where they are left out. */
const DEFAULTS: ReadonlyMap<string, Readonly<Record<string, number | string>>> = new Map(
  Object.entries<Readonly<Record<string, number | string>>>({
    LeakyRelu: { alpha: 0.01 },
    Elu: { alpha: 1 },
    Celu: { alpha: 1 },
    Selu: { alpha: 1.6732632, gamma: 1.050701 },
    HardSigmoid: { alpha: 0.2, beta: 0.5 },
    ThresholdedRelu: { alpha: 1 },
    Shrink: { bias: 0, lambd: 0.5 },
    Gelu: { approximate: 'none' },
  }),
);
const MOST_NODES = 200;
/** An operand that is left out. */
const ABSENT = '-';

/** Why a branch whose activations are quantised is left alone; `merged` is what it would become with others. */
export function quantisedActivations(node: Node, merged: string): Refusal {
  const reason = `its activations are quantised (QDQ) with scales of their own: ${merged} would round otherwise`;
  return new Refusal(reason, node, 'quantised');
}

/** Reads back from `value`, `width` channels wide, to the linears. Throws Refusal. */
export function readElementwise(value: Value, width: number, types: ElementTypes): Elementwise {
  const reader = new Reader(width, types);
  const tree = reader.read(value);
  return { ...canonical(tree), values: reader.values, keepsZero: valueAtZero(tree) === 0 };
}

/** True for an operator that treats every channel alike and by itself. */
export function isElementwise(node: Node): boolean {
  return ELEMENTWISE.has(node.opType) && (node.domain === '' || node.domain === 'com.microsoft');
}

type Tree =
  | { readonly kind: 'linear'; readonly linear: Linear }
  | ({ readonly kind: 'constant' } & ElementConstant)
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'op'; readonly name: string; readonly operands: readonly Tree[]; readonly commutes: boolean };

class Reader {
  readonly values: Value[] = [];
  readonly #seen = new Map<Value, Tree>();
  constructor(
    readonly width: number,
    readonly types: ElementTypes,
  ) {}

  read(value: Value): Tree {
    const known = this.#seen.get(value);
    if (known) return known;
    if (this.#seen.size > MOST_NODES) throw new Refusal('its element-wise part is too large to be one');
    const tree = this.#readLinear(value) ?? this.#readNode(value, value.producer);
    this.#seen.set(value, tree);
    this.values.push(value);
    return tree;
  }

  #readLinear(value: Value): Tree | null {
    const linear = matchActivated(value);
    if (!linear) return null;
    const { node, outWidth, bias, activation } = linear;
    if (outWidth !== this.width) {
      const reason = `${describe(node)} is ${outWidth} wide, the down projection takes ${this.width}`;
      throw new Refusal(reason, node);
    }
    const own: Tree = { kind: 'linear', linear };
    const sum = bias ? op('Add', [own, { kind: 'constant', slot: bias, scalar: null, biasOf: linear }]) : own;
    if (!activation) return sum;
    const { opType, domain, attributes } = activation;
    const name = domain === '' ? opType : `${domain}.${opType}`;
    return op(name + attributesText(opType, Object.entries(attributes)), [sum]);
  }

  #readNode(value: Value, node: Node | null): Tree {
    if (!node) throw new Refusal(`'${value.name}' feeds its element-wise part from outside`);
    if (node.opType === 'DequantizeLinear' || node.opType === 'QuantizeLinear')
      throw quantisedActivations(node, 'one wide FFN');
    if (!ELEMENTWISE.has(node.opType)) throw new Refusal(`${describe(node)} is not element-wise`, node);
    const first = operandOf(node, 0);
    if (throughAliases(value, this.types) !== value) return this.read(first);
    const last = node.inputs.reduce((at, operand, index) => (operand ? index : at), -1);
    // An operand that is left out is one: Clip(x, , 1) is not Clip(x, 1).
    const operands = node.inputs
      .slice(0, last + 1)
      .map((operand, index): Tree => (operand ? this.#operand(node, operand, index) : { kind: 'text', text: ABSENT }));
    const [x, y] = operands as [Tree, Tree];
    switch (node.opType) {
      case 'QuickGelu':
      case 'Swish':
        return swish(x, node.floatAttribute('alpha') ?? (node.opType === 'Swish' ? 1 : 1.702));
      case 'Silu':
        return swish(x, 1);
      case 'SwiGLU': {
        const alpha = SWIGLU_ALPHA[node.op] ?? 'alpha';
        const isKnown = [...node.attributes.keys()].every((name) => name === alpha || name === 'alpha');
        if (!isKnown || operands.length !== 2) break;
        return op('Mul', [swish(x, node.floatAttribute(alpha) ?? node.floatAttribute('alpha') ?? 1), y]);
      }
      case 'Pow':
        if (scalarOf(node.input(1)) === 2) return op('Mul', [x, x]);
        break;
      case 'Cast':
        return op(`Cast${node.intAttribute('to')}`, operands);
    }
    const attributes = attributesText(node.opType, node.attributes, node);
    return op(node.op + attributes, operands, COMMUTATIVE.has(node.opType));
  }

  #operand(node: Node, operand: Value, index: number): Tree {
    const scalar = scalarOf(operand);
    if (scalar !== null) {
      const dtype = this.types.get(operand) ?? constantOf(operand)?.dtype;
      const isBroadcast = BROADCASTS.has(node.opType) || node.inputs.length === 1;
      if (!dtype || !isScalable(dtype) || !isBroadcast) return { kind: 'text', text: String(scalar) };
      const slot = { node, index, weight: constantVector(scalar, dtype, 1) };
      return { kind: 'constant', slot, scalar, biasOf: null };
    }
    const weight = constantOf(operand);
    if (!weight) return this.read(operand);
    if (weight.dims.at(-1) === this.width && elementCount(weight.dims) === this.width) {
      return { kind: 'constant', slot: { node, index, weight }, scalar: null, biasOf: null };
    }
    throw new Refusal(`${describe(node)} uses a constant of shape [${weight.dims}]`, node);
  }
}

function op(name: string, operands: readonly Tree[], commutes = name === 'Add' || name === 'Mul'): Tree {
  const flat = commutes ? operands.flatMap((x) => (x.kind === 'op' && x.name === name ? x.operands : [x])) : operands;
  return { kind: 'op', name, operands: flat, commutes };
}

/** x * Sigmoid(alpha * x). */
function swish(x: Tree, alpha: number): Tree {
  const inner: Tree = alpha === 1 ? x : op('Mul', [x, { kind: 'text', text: String(Math.fround(alpha)) }]);
  return op('Mul', [x, op('Sigmoid', [inner])]);
}

/** The attribute of com.microsoft SwiGLU; ai.onnx calls it alpha. */
const SWIGLU_ALPHA: Readonly<Record<string, string>> = { 'com.microsoft.SwiGLU': 'activation_alpha' };

function attributesText(opType: string, attributes: Iterable<readonly [string, Attribute]>, node?: Node): string {
  const parts: string[] = [];
  for (const [name, attribute] of [...attributes].sort(([a], [b]) => (a < b ? -1 : 1))) {
    let value: number | string | null = null;
    if (attribute.kind === 'float' || attribute.kind === 'int') value = Number(attribute.value);
    else if (attribute.kind === 'string') value = new TextDecoder().decode(attribute.value);
    const defaults = DEFAULTS.get(opType);
    const fallback = defaults && Object.hasOwn(defaults, name) ? defaults[name] : undefined;
    const isDefault =
      typeof fallback === 'number' ? value === Math.fround(fallback) || value === fallback : value === fallback;
    if (fallback !== undefined && isDefault) continue;
    parts.push(value === null ? `${name}=?${node?.name ?? ''}` : `${name}=${value}`);
  }
  return parts.length > 0 ? `{${parts.join()}}` : '';
}

/** Text without telling linears or constants apart: the sort key of commutative operands. */
function shapeOf(tree: Tree): string {
  switch (tree.kind) {
    case 'linear':
      return '$';
    case 'constant':
      return '###';
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

function canonical(tree: Tree): Pick<Elementwise, 'key' | 'text' | 'name' | 'linears' | 'constants'> {
  const linears: Linear[] = [];
  const constants: ElementConstant[] = [];
  const indexOf = (linear: Linear): number =>
    linears.findIndex((known) => known.node === linear.node && known.start === linear.start);
  const isSlot = (a: Slot, b: Slot): boolean => a.node === b.node && a.index === b.index && a.weight === b.weight;
  // The same expression with its operands in order. What is read twice keeps its number.
  const order = (at: Tree): Tree => {
    if (at.kind === 'linear' && indexOf(at.linear) < 0) linears.push(at.linear);
    if (at.kind === 'constant' && !constants.some(({ slot }) => isSlot(slot, at.slot))) constants.push(at);
    if (at.kind !== 'op') return at;
    return { ...at, operands: at.commutes ? sorted(at.operands) : at.operands.map(order) };
  };
  const sorted = (operands: readonly Tree[]): Tree[] => {
    const rest = [...operands].sort((a, b) => compare(shapeOf(a), shapeOf(b)));
    const ordered: Tree[] = [];
    while (rest.length > 0) {
      // Among equals, the linear that already has a number comes first.
      const key = shapeOf(rest[0] as Tree);
      const equals = rest.filter((x) => shapeOf(x) === key);
      const pick = equals.find((x) => x.kind === 'linear' && indexOf(x.linear) >= 0) ?? (equals[0] as Tree);
      rest.splice(rest.indexOf(pick), 1);
      ordered.push(order(pick));
    }
    return ordered;
  };
  const root = order(tree);
  const print = (at: Tree, hasNumbers: boolean, hasBiases: boolean): string => {
    switch (at.kind) {
      case 'linear':
        return `$${indexOf(at.linear)}`;
      case 'constant':
        if (hasNumbers && at.scalar !== null) return String(at.scalar);
        return `#${constants.findIndex(({ slot }) => isSlot(slot, at.slot))}`;
      case 'text':
        return at.text;
      case 'op': {
        const { name, operands } = at;
        const linear = operands.find((x) => x.kind === 'linear');
        const isBias =
          name === 'Add' && operands.length === 2 && operands.some((x) => x.kind === 'constant' && x.scalar === null);
        if (!hasBiases && linear && isBias) return print(linear, hasNumbers, hasBiases);
        return `${name}(${operands.map((x) => print(x, hasNumbers, hasBiases)).join()})`;
      }
    }
  };
  return {
    key: print(root, false, true),
    text: print(root, true, true),
    name: print(root, true, false),
    linears,
    constants,
  };
}

/** What the expression gives when every linear gives 0: a number, or null when that is not known. */
function valueAtZero(tree: Tree): number | null {
  switch (tree.kind) {
    case 'linear':
      return 0;
    case 'constant':
      return tree.scalar;
    case 'text':
      return tree.text === ABSENT ? null : Number(tree.text);
    case 'op': {
      const operands = tree.operands.map(valueAtZero);
      const name = tree.name.replace(/\{.*/, '').replace(/^com\.microsoft\./, '');
      if (name === 'Mul' && operands.includes(0)) return 0;
      // Whichever of the two is chosen.
      if (name === 'Where' && operands[1] === operands[2]) return operands[1] ?? null;
      if (operands.some((operand) => operand === null)) return null;
      const [a = 0, b = 0] = operands as number[];
      if (name === 'Mul') return (operands as number[]).reduce((x, y) => x * y, 1);
      if (name === 'Add' || name === 'Sum') return (operands as number[]).reduce((x, y) => x + y, 0);
      if (name === 'Min' || name === 'Max') return Math[name === 'Min' ? 'min' : 'max'](...(operands as number[]));
      if (name === 'Exp') return Math.exp(a);
      if (name === 'Sub') return a - b;
      if (name === 'Div') return a / b;
      if (name === 'Pow') return a ** b;
      if (name === 'Sigmoid') return 1 / (1 + Math.exp(-a));
      return a === 0 && (ZERO_AT_ZERO.has(name) || name.startsWith('Cast')) ? 0 : null;
    }
  }
}

const ZERO_AT_ZERO = new Set(
  'Tanh Erf Relu Gelu FastGelu HardSwish Mish Elu Selu Celu LeakyRelu PRelu Softsign Sqrt Neg Abs Sign Floor Ceil Round Sin'.split(
    ' ',
  ),
);
