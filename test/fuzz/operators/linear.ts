/** Products with matrices, stored densely or in blocks, and norms. */
import { geluErf } from './elementwise.js';
import { transposed } from './shapes.js';
import {
  axisOf,
  broadcast,
  type Call,
  elementwise,
  type Operator,
  operand,
  places,
  sizeOf,
  type Tensor,
} from './tensor.js';

/** A product over the last two dimensions; the others are broadcast. */
export function product(a: Tensor, b: Tensor): Tensor {
  const [rows, inner] = [a.dims.at(-2) as number, a.dims.at(-1) as number];
  const columns = b.dims.at(-1) as number;
  if (b.dims.at(-2) !== inner) throw new RangeError(`MatMul of [${a.dims}] and [${b.dims}]`);
  const batch = broadcast([a.dims.slice(0, -2), b.dims.slice(0, -2)]);
  const [atA, atB] = [places(a.dims.slice(0, -2), batch), places(b.dims.slice(0, -2), batch)];
  const data = new Float64Array(sizeOf(batch) * rows * columns);
  for (let n = 0; n < atA.length; n++) {
    const [left, right] = [(atA[n] as number) * rows * inner, (atB[n] as number) * inner * columns];
    for (let i = 0; i < rows; i++) {
      const to = (n * rows + i) * columns;
      for (let k = 0; k < inner; k++) {
        const factor = a.data[left + i * inner + k] as number;
        const from = right + k * columns;
        for (let j = 0; j < columns; j++)
          data[to + j] = (data[to + j] as number) + factor * (b.data[from + j] as number);
      }
    }
  }
  return { dims: [...batch, rows, columns], data, type: a.type };
}

const lastTwoSwapped = (x: Tensor): Tensor => {
  const rank = x.dims.length;
  return transposed(x, [...Array.from({ length: rank - 2 }, (_, i) => i), rank - 1, rank - 2]);
};
const add = (a: Tensor, b: Tensor): Tensor => elementwise([a, b], a.type, (x, y) => (x as number) + (y as number));
const times = (a: Tensor, factor: number): Tensor => ({ ...a, data: a.data.map((x) => x * factor) });

const gemm: Operator = (call) => {
  const a = call.number('transA') === 1 ? lastTwoSwapped(operand(call, 0)) : operand(call, 0);
  const b = call.number('transB') === 1 ? lastTwoSwapped(operand(call, 1)) : operand(call, 1);
  const result = times(product(a, b), call.number('alpha') ?? 1);
  const c = call.inputs[2];
  return [c ? add(result, times(c, call.number('beta') ?? 1)) : result];
};

const fusedMatMul: Operator = (call) => {
  const a = call.number('transA') === 1 ? lastTwoSwapped(operand(call, 0)) : operand(call, 0);
  const b = call.number('transB') === 1 ? lastTwoSwapped(operand(call, 1)) : operand(call, 1);
  return [times(product(a, b), call.number('alpha') ?? 1)];
};

/** Integer `index` of the packed ones from byte `start` on, the low bits first. */
function packedAt(bytes: Float64Array, start: number, index: number, bits: number): number {
  const bit = index * bits;
  return ((bytes[start + (bit >> 3)] as number) >> (bit & 7)) & ((1 << bits) - 1);
}

/** com.microsoft MatMulNBits: the stored matrix is [N, K] in blocks along K. */
const matMulNBits: Operator = (call) => {
  const [x, b, scales, zeros] = [operand(call, 0), operand(call, 1), operand(call, 2), call.inputs[3]];
  const [n, k, block] = ['N', 'K', 'block_size'].map((name) => call.number(name)) as [number, number, number];
  const bits = call.number('bits') ?? 4;
  const blocks = Math.ceil(k / block);
  const rowBytes = (blocks * block * bits) / 8;
  if (b.data.length !== n * rowBytes || scales.data.length !== n * blocks) {
    throw new RangeError(`MatMulNBits of ${n} x ${k} with [${b.dims}] and [${scales.dims}]`);
  }
  const isPacked = zeros?.type === 2;
  const zeroBytes = Math.ceil((blocks * bits) / 8);
  const dense = new Float64Array(k * n);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      const at = Math.floor(column / block);
      let zero = 2 ** (bits - 1);
      if (zeros && isPacked) zero = packedAt(zeros.data, row * zeroBytes, at, bits);
      else if (zeros) zero = zeros.data[row * blocks + at] as number;
      dense[column * n + row] =
        (packedAt(b.data, row * rowBytes, column, bits) - zero) * (scales.data[row * blocks + at] as number);
    }
  }
  const result = product(x.dims.length === 1 ? { ...x, dims: [1, ...x.dims] } : x, {
    dims: [k, n],
    data: dense,
    type: x.type,
  });
  const bias = call.inputs[5];
  return [bias ? add(result, bias) : result];
};

/** Per tensor, per axis, or in blocks along the axis. */
const dequantize: Operator = (call) => {
  const [x, scale, zero] = [operand(call, 0), operand(call, 1), call.inputs[2]];
  const isPerTensor = sizeOf(scale.dims) === 1;
  const axis = isPerTensor ? 0 : axisOf(call.number('axis') ?? 1, x.dims.length);
  const block = call.number('block_size') ?? 0;
  const inner = sizeOf(x.dims.slice(axis + 1));
  const size = x.dims[axis] as number;
  const blocks = block > 0 ? Math.ceil(size / block) : size;
  const data = x.data.map((value, i) => {
    const along = Math.floor(i / inner) % size;
    const outer = Math.floor(i / (inner * size));
    const at = isPerTensor ? 0 : block > 0 ? (outer * blocks + Math.floor(along / block)) * inner + (i % inner) : along;
    return (value - (zero?.data[at] ?? 0)) * (scale.data[at] as number);
  });
  return [{ dims: x.dims, data, type: scale.type }];
};

/** Over the axes from `axis` on: mean removed (LayerNorm) or not (RMSNorm), then scale and shift. */
export function normalise(
  x: Tensor,
  {
    axis = -1,
    eps,
    gamma,
    beta,
    centred,
  }: { axis?: number; eps: number; gamma: Tensor | null; beta: Tensor | null; centred: boolean },
): Tensor {
  const width = sizeOf(x.dims.slice(axisOf(axis, x.dims.length)));
  const data = new Float64Array(x.data.length);
  for (let row = 0; row < data.length; row += width) {
    const values = x.data.subarray(row, row + width);
    const mean = centred ? values.reduce((a, b) => a + b, 0) / width : 0;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    const factor = 1 / Math.sqrt(variance + eps);
    for (let i = 0; i < width; i++) {
      const scaled = ((values[i] as number) - mean) * factor * (gamma ? (gamma.data[i] as number) : 1);
      data[row + i] = scaled + (beta ? (beta.data[i] as number) : 0);
    }
  }
  return { dims: x.dims, data, type: x.type };
}

const norm =
  (centred: boolean): Operator =>
  (call) => {
    const beta = centred ? (call.inputs[2] ?? null) : null;
    const [axis, eps] = [call.number('axis') ?? -1, call.number('epsilon') ?? 1e-5];
    return [normalise(operand(call, 0), { axis, eps, gamma: operand(call, 1), beta, centred })];
  };

/** input + skip (+ bias), which is output 3, and its norm. */
const skipNorm =
  (centred: boolean): Operator =>
  (call) => {
    const beta = centred ? (call.inputs[3] ?? null) : null;
    const bias = call.inputs[centred ? 4 : 3];
    let sum = add(operand(call, 0), operand(call, 1));
    if (bias) sum = add(sum, bias);
    const normed = normalise(sum, { eps: call.number('epsilon') ?? 1e-12, gamma: operand(call, 2), beta, centred });
    return [normed, sum, sum, sum];
  };

export function softmaxRows(x: Tensor): Tensor {
  const width = x.dims.at(-1) as number;
  const data = new Float64Array(x.data.length);
  for (let row = 0; row < data.length; row += width) {
    const values = x.data.subarray(row, row + width);
    const most = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const powers = values.map((value) => Math.exp(value - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    data.set(
      powers.map((power) => power / sum),
      row,
    );
  }
  return { ...x, data };
}

const softmax: Operator = (call: Call) => {
  const x = operand(call, 0);
  const axis = axisOf(call.number('axis') ?? -1, x.dims.length);
  if (axis !== x.dims.length - 1) throw new RangeError('a Softmax along another axis than the last');
  return [softmaxRows(x)];
};

export const LINEAR: Readonly<Record<string, Operator>> = {
  MatMul: (call) => [product(operand(call, 0), operand(call, 1))],
  Gemm: gemm,
  Softmax: softmax,
  LayerNormalization: norm(true),
  RMSNormalization: norm(false),
  SimplifiedLayerNormalization: norm(false),
  DequantizeLinear: dequantize,
  'com.microsoft.FusedMatMul': fusedMatMul,
  'com.microsoft.MatMulNBits': matMulNBits,
  'com.microsoft.SkipLayerNormalization': skipNorm(true),
  'com.microsoft.SkipSimplifiedLayerNormalization': skipNorm(false),
  'com.microsoft.FusedGemm': (call) => {
    const [result] = gemm(call) as [Tensor];
    const activation = call.text('activation');
    if (activation === 'Gelu') return [{ ...result, data: result.data.map(geluErf) }];
    if (activation === 'Relu') return [{ ...result, data: result.data.map((x) => Math.max(x, 0)) }];
    throw new RangeError(`FusedGemm with ${activation}`);
  },
};
