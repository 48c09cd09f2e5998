/** The activations of FFNs: how they are spelled in a graph, and what they are. */
import type { Attribute, Value } from '../../../ir/core.js';
import { geluErf, sigmoid } from '../operators/elementwise.js';
import type { Activation } from './spec.js';

/** What spelling an activation takes: an operator applied, and a constant. */
export interface Speller {
  op(
    opType: string,
    inputs: readonly Value[],
    attributes?: Readonly<Record<string, Attribute>>,
    domain?: string,
  ): Value;
  /** A scalar, rounded to float32. */
  number(value: number): Value;
  readonly opset: number;
}

interface Spelled {
  spell(speller: Speller, x: Value): Value;
  at(x: number): number;
}

const float = (value: number): Attribute => ({ kind: 'float', value: Math.fround(value) });
const CUBE = Math.fround(0.044715);
const ROOT = Math.fround(Math.sqrt(2 / Math.PI));
const QUICK = Math.fround(1.702);
const SLOPE = Math.fround(0.1);
const tanhGelu = (x: number, root: number, cube: number): number =>
  0.5 * x * (1 + Math.tanh(root * (x + cube * x ** 3)));

const one = (opType: string, at: (x: number) => number, domain = '', attributes = {}): Spelled => ({
  spell: (speller, x) => speller.op(opType, [x], attributes, domain),
  at,
});

export const SPELLED: Readonly<Record<Activation, Spelled>> = {
  silu: {
    spell: ({ op }, x) => op('Mul', [x, op('Sigmoid', [x])]),
    at: (x) => x * sigmoid(x),
  },
  'silu-reversed': {
    spell: ({ op }, x) => op('Mul', [op('Sigmoid', [x]), x]),
    at: (x) => x * sigmoid(x),
  },
  'silu-operator': one('QuickGelu', (x) => x * sigmoid(x), 'com.microsoft', { alpha: float(1) }),
  'gelu-operator': {
    spell: ({ op, opset }, x) => op('Gelu', [x], {}, opset >= 20 ? '' : 'com.microsoft'),
    at: geluErf,
  },
  'gelu-erf': {
    spell: ({ op, number }, x) => {
      const inner = op('Erf', [op('Div', [x, number(Math.SQRT2)])]);
      return op('Mul', [op('Mul', [x, op('Add', [inner, number(1)])]), number(0.5)]);
    },
    // The divisor is the float32 next to the root of 2.
    at: (x) => geluErf((x * Math.SQRT2) / Math.fround(Math.SQRT2)) * (Math.fround(Math.SQRT2) / Math.SQRT2),
  },
  'gelu-tanh': {
    spell: ({ op, number }, x) => {
      const cube = op('Mul', [op('Pow', [x, number(3)]), number(0.044715)]);
      const inner = op('Tanh', [op('Mul', [op('Add', [x, cube]), number(ROOT)])]);
      return op('Mul', [op('Mul', [number(0.5), x]), op('Add', [number(1), inner])]);
    },
    at: (x) => tanhGelu(x, ROOT, CUBE),
  },
  'fast-gelu': one('FastGelu', (x) => tanhGelu(x, Math.sqrt(2 / Math.PI), 0.044715), 'com.microsoft'),
  'quick-gelu': one('QuickGelu', (x) => x * sigmoid(QUICK * x), 'com.microsoft', { alpha: float(QUICK) }),
  relu: one('Relu', (x) => Math.max(x, 0)),
  'squared-relu': {
    spell: ({ op, number }, x) => op('Pow', [op('Relu', [x]), number(2)]),
    at: (x) => Math.max(x, 0) ** 2,
  },
  'leaky-relu': one('LeakyRelu', (x) => (x < 0 ? SLOPE * x : x), '', { alpha: float(SLOPE) }),
  elu: one('Elu', (x) => (x < 0 ? Math.expm1(x) : x), '', { alpha: float(1) }),
  tanh: one('Tanh', Math.tanh),
  sigmoid: one('Sigmoid', sigmoid),
  softplus: one('Softplus', (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
  'hard-swish': one('HardSwish', (x) => x * Math.max(0, Math.min(1, x / 6 + 0.5))),
  clip: {
    spell: ({ op, number }, x) => op('Clip', [x, number(-0.5), number(0.75)]),
    at: (x) => Math.min(Math.max(x, -0.5), 0.75),
  },
};
