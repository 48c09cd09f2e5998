/** Operators that treat every element alike, by their formulas in the ONNX and onnxruntime documents. */
import { BOOL, elementwise, FLOAT, type Operator, operand, type Tensor } from './tensor.js';

const unary =
  (work: (x: number) => number): Operator =>
  (call) => {
    const x = operand(call, 0);
    return [{ dims: x.dims, data: x.data.map(work), type: x.type }];
  };

const binary =
  (work: (a: number, b: number, type: number) => number): Operator =>
  (call) => {
    const [a, b] = [operand(call, 0), operand(call, 1)];
    return [elementwise([a, b], a.type, (x, y) => work(x as number, y as number, a.type))];
  };

const comparison =
  (work: (a: number, b: number) => boolean): Operator =>
  (call) => [elementwise([operand(call, 0), operand(call, 1)], BOOL, (x, y) => Number(work(x as number, y as number)))];

const folded =
  (work: (a: number, b: number) => number): Operator =>
  ({ inputs }) => {
    const all = inputs.filter((each): each is Tensor => each !== null);
    return [elementwise(all, all[0]?.type ?? FLOAT, (...values) => values.reduce(work))];
  };

export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const geluTanh = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
export const geluErf = (x: number): number => 0.5 * x * (1 + erf(x / Math.SQRT2));

/** By the Taylor series near zero and the continued fraction of the complement far from it: full double precision. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z < 2.5) {
    let [term, sum] = [z, z];
    for (let n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 120; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}

const isInteger = (type: number): boolean => ![1, 10, 11, 16].includes(type);

/** The largest magnitude that `type` holds where a Cast must not leave it; the evaluator rounds only integers. */
const cast: Operator = (call) => {
  const x = operand(call, 0);
  const type = call.number('to') as number;
  const isBool = type === BOOL;
  return [
    {
      dims: x.dims,
      type,
      data: isInteger(type) ? x.data.map((v) => (isBool ? Number(v !== 0) : Math.trunc(v))) : x.data,
    },
  ];
};

const clip: Operator = (call) => {
  const x = operand(call, 0);
  const low = call.inputs[1]?.data[0] ?? call.number('min') ?? Number.NEGATIVE_INFINITY;
  const high = call.inputs[2]?.data[0] ?? call.number('max') ?? Number.POSITIVE_INFINITY;
  return [{ ...x, data: x.data.map((v) => Math.min(Math.max(v, low), high)) }];
};

const alpha =
  (fallback: number, work: (x: number, alpha: number) => number): Operator =>
  (call) => {
    const x = operand(call, 0);
    const a = call.number('alpha') ?? fallback;
    return [{ ...x, data: x.data.map((v) => work(v, a)) }];
  };

export const ELEMENTWISE: Readonly<Record<string, Operator>> = {
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b, type) => (isInteger(type) ? Math.trunc(a / b) : a / b)),
  Pow: binary((a, b) => a ** b),
  Min: folded(Math.min),
  Max: folded(Math.max),
  Sum: folded((a, b) => a + b),
  Equal: comparison((a, b) => a === b),
  Less: comparison((a, b) => a < b),
  LessOrEqual: comparison((a, b) => a <= b),
  Greater: comparison((a, b) => a > b),
  GreaterOrEqual: comparison((a, b) => a >= b),
  And: comparison((a, b) => a !== 0 && b !== 0),
  Not: unary((x) => Number(x === 0)),
  Neg: unary((x) => -x),
  Abs: unary(Math.abs),
  Sqrt: unary(Math.sqrt),
  Reciprocal: unary((x) => 1 / x),
  Exp: unary(Math.exp),
  Erf: unary(erf),
  Sigmoid: unary(sigmoid),
  Tanh: unary(Math.tanh),
  Relu: unary((x) => Math.max(x, 0)),
  Softplus: unary(softplus),
  HardSwish: unary((x) => x * Math.max(0, Math.min(1, x / 6 + 0.5))),
  Mish: unary((x) => x * Math.tanh(softplus(x))),
  Identity: unary((x) => x),
  Dropout: unary((x) => x),
  LeakyRelu: alpha(0.01, (x, a) => (x < 0 ? a * x : x)),
  Elu: alpha(1, (x, a) => (x < 0 ? a * Math.expm1(x) : x)),
  Swish: alpha(1, (x, a) => x * sigmoid(a * x)),
  'com.microsoft.QuickGelu': alpha(1.702, (x, a) => x * sigmoid(a * x)),
  Gelu: (call) => [
    { ...operand(call, 0), data: operand(call, 0).data.map(call.text('approximate') === 'tanh' ? geluTanh : geluErf) },
  ],
  'com.microsoft.Gelu': unary(geluErf),
  'com.microsoft.FastGelu': (call) => {
    const bias = call.inputs[1];
    const x = operand(call, 0);
    const shifted = bias ? elementwise([x, bias], x.type, (a, b) => (a as number) + (b as number)) : x;
    return [{ ...shifted, data: shifted.data.map(geluTanh) }];
  },
  'com.microsoft.BiasGelu': (call) => {
    const [x, bias] = [operand(call, 0), operand(call, 1)];
    return [elementwise([x, bias], x.type, (a, b) => geluErf((a as number) + (b as number)))];
  },
  Cast: cast,
  Clip: clip,
  Where: (call) => {
    const [condition, a, b] = [operand(call, 0), operand(call, 1), operand(call, 2)];
    return [elementwise([condition, a, b], a.type, (c, x, y) => (c ? x : y) as number)];
  },
};
