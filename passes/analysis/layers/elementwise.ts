/**
 * The element-wise part of an FFN as a small expression over the outputs of its input linears (`$0`, `$1`, gate before
 * up) and over per-channel constants (`#0`), with commutative operands in a canonical order. SiLU as x*Sigmoid(x), a
 * decomposed GELU, QuickGelu and friends need no table each: two FFNs compute the same function of their linears
 * exactly when their expressions are equal strings.
 */

import type { Node, Value } from '../../../ir/core.js';
import { elementCount } from '../../../ir/type.js';
import { type Linear, matchLinear } from '../matrices/linear.js';
import { describe, Refusal } from '../refusal.js';
import { constantOf, type Slot, scalarOf } from '../values/constants.js';
import type { ElementTypes } from '../values/element-types.js';
import { throughAliases } from './residual-stream.js';

/** What lies between the input projections and the down projection. */
export interface Elementwise {
  readonly text: string;
  readonly linears: readonly Linear[];
  /** Per-channel constants, [width] each, in the order of the text. */
  readonly vectors: readonly Slot[];
  /** Values of this part, the linears' outputs among them: their last dimension is the width. */
  readonly values: readonly Value[];
  /** True when zeros from all linears give zero: padding channels is then exact. */
  readonly keepsZero: boolean;
}

const ELEMENTWISE = new Set(
  (
    'Add Sub Mul Div Pow Sqrt Sigmoid Tanh Erf Relu Gelu FastGelu QuickGelu BiasGelu Swish Silu HardSwish HardSigmoid ' +
    'Softplus Softsign Mish Elu Selu Celu LeakyRelu ThresholdedRelu Exp Log Neg Abs Min Max Clip Reciprocal Cast ' +
    'Identity Sum'
  ).split(' '),
);
const COMMUTATIVE = new Set(['Add', 'Mul', 'Min', 'Max', 'Sum']);
const MOST_NODES = 200;

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
  | { readonly kind: 'vector'; readonly slot: Slot }
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
    const linear = matchLinear(value);
    if (!linear) return null;
    if (linear.outWidth !== this.width) {
      throw new Refusal(`${describe(linear.node)} is ${linear.outWidth} wide, the down projection takes ${this.width}`);
    }
    return { kind: 'linear', linear };
  }

  #readNode(value: Value, node: Node | null): Tree {
    if (!node) throw new Refusal(`'${value.name}' feeds its element-wise part from outside`);
    if (node.opType === 'DequantizeLinear' || node.opType === 'QuantizeLinear')
      throw quantisedActivations(node, 'one wide FFN');
    if (!ELEMENTWISE.has(node.opType)) throw new Refusal(`${describe(node)} is not element-wise`, node);
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

  #operand(node: Node, operand: Value, index: number): Tree {
    const scalar = scalarOf(operand);
    if (scalar !== null) return { kind: 'text', text: String(scalar) };
    const weight = constantOf(operand);
    if (!weight) return this.read(operand);
    if (weight.dims.at(-1) === this.width && elementCount(weight.dims) === this.width) {
      return { kind: 'vector', slot: { node, index, weight } };
    }
    throw new Refusal(`${describe(node)} uses a constant of shape [${weight.dims}]`, node);
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
  const indexOf = (linear: Linear): number =>
    linears.findIndex((known) => known.node === linear.node && known.start === linear.start);
  const print = (at: Tree): string => {
    switch (at.kind) {
      case 'linear': {
        const known = indexOf(at.linear);
        return `$${known < 0 ? linears.push(at.linear) - 1 : known}`;
      }
      case 'vector': {
        // One that is read twice keeps its number: another FFN may have two in its place.
        const known = vectors.findIndex(({ node, index }) => node === at.slot.node && index === at.slot.index);
        return `#${known < 0 ? vectors.push(at.slot) - 1 : known}`;
      }
      case 'text':
        return at.text;
      case 'op':
        return `${at.name}(${(at.commutes ? printSorted(at.operands) : at.operands.map(print)).join()})`;
    }
  };
  const printSorted = (operands: readonly Tree[]): string[] => {
    const rest = [...operands].sort((a, b) => compare(shapeOf(a), shapeOf(b)));
    const printed: string[] = [];
    while (rest.length > 0) {
      // Among equals, the linear that already has a number comes first.
      const key = shapeOf(rest[0] as Tree);
      const equals = rest.filter((x) => shapeOf(x) === key);
      const pick = equals.find((x) => x.kind === 'linear' && indexOf(x.linear) >= 0) ?? (equals[0] as Tree);
      rest.splice(rest.indexOf(pick), 1);
      printed.push(print(pick));
    }
    return printed;
  };
  return { text: print(tree), linears, vectors };
}

/** What the expression gives when every linear gives 0: a number, or null when that is not known. */
function valueAtZero(tree: Tree): number | null {
  switch (tree.kind) {
    case 'linear':
      return 0;
    case 'vector':
      return null;
    case 'text':
      return Number(tree.text);
    case 'op': {
      const operands = tree.operands.map(valueAtZero);
      const name = tree.name.replace(/\{.*/, '').replace(/^com\.microsoft\./, '');
      if (name === 'Mul' && operands.includes(0)) return 0;
      if (operands.some((operand) => operand === null)) return null;
      const [a = 0, b = 0] = operands as number[];
      if (name === 'Mul') return (operands as number[]).reduce((x, y) => x * y, 1);
      if (name === 'Add' || name === 'Sum') return (operands as number[]).reduce((x, y) => x + y, 0);
      if (name === 'Sub') return a - b;
      if (name === 'Div') return a / b;
      if (name === 'Pow') return a ** b;
      if (name === 'Sigmoid') return 1 / (1 + Math.exp(-a));
      return a === 0 && (ZERO_AT_ZERO.has(name) || name.startsWith('Cast')) ? 0 : null;
    }
  }
}

const ZERO_AT_ZERO = new Set(
  'Tanh Erf Relu Gelu FastGelu HardSwish Mish Elu Selu Celu LeakyRelu Softsign Sqrt Neg Abs'.split(' '),
);
