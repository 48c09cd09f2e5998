/** Attention operators and rotary embeddings, by the formulas of their documents. */

import { joined, rangeOf, transposed } from './shapes.js';
import { FLOAT, type Operator, operand, places, type Tensor } from './tensor.js';

/** [batch, tokens, heads x size] as [batch, heads, tokens, size]; what has four dimensions already has them. */
export function headsOf(x: Tensor, heads: number): Tensor {
  if (x.dims.length === 4) return x;
  const [batch, tokens, width] = x.dims as [number, number, number];
  return transposed({ ...x, dims: [batch, tokens, heads, width / heads] }, [0, 2, 1, 3]);
}
/** And back. */
export function flattened(x: Tensor): Tensor {
  const [batch, heads, tokens, size] = x.dims as [number, number, number, number];
  return { ...transposed(x, [0, 2, 1, 3]), dims: [batch, tokens, heads * size] };
}

export interface AttentionParts {
  /** [batch, heads, tokens, size]. */
  readonly query: Tensor;
  /** [batch, key-value heads, total, size], the past among them. */
  readonly key: Tensor;
  readonly value: Tensor;
  readonly scale: number;
  /** Positions before the first query: query i sees keys up to past + i. Null: it sees all. */
  readonly causalPast: number | null;
  /** How many positions back a query sees, itself included; 0 or less is all. */
  readonly window?: number;
  readonly softcap?: number;
  /** Added to the scores, broadcast to [batch, heads, tokens, total]. */
  readonly bias?: Tensor | null;
}

/** Scaled dot-product attention; query heads share key-value heads in groups. Returns [batch, heads, tokens, size]. */
export function attend({
  query,
  key,
  value,
  scale,
  causalPast,
  window = 0,
  softcap = 0,
  bias,
}: AttentionParts): Tensor {
  const [batch, heads, tokens, size] = query.dims as [number, number, number, number];
  const [, kvHeads, total] = key.dims as [number, number, number];
  const width = value.dims[3] as number;
  const group = heads / kvHeads;
  if (!Number.isInteger(group)) throw new RangeError(`${heads} query heads over ${kvHeads}`);
  const biasAt = bias ? places(bias.dims, [batch, heads, tokens, total]) : null;
  const data = new Float64Array(batch * heads * tokens * width);
  for (let row = 0; row < batch * heads * tokens; row++) {
    const i = row % tokens;
    const head = Math.floor(row / tokens) % heads;
    const b = Math.floor(row / (tokens * heads));
    const from = (b * kvHeads + Math.floor(head / group)) * total;
    const scores = new Float64Array(total);
    for (let j = 0; j < total; j++) {
      let score = 0;
      for (let d = 0; d < size; d++) {
        score += (query.data[row * size + d] as number) * (key.data[(from + j) * size + d] as number);
      }
      score *= scale;
      if (softcap > 0) score = softcap * Math.tanh(score / softcap);
      if (bias && biasAt) score += bias.data[biasAt[row * total + j] as number] as number;
      const isHidden = causalPast !== null && (j > causalPast + i || (window > 0 && j <= causalPast + i - window));
      scores[j] = isHidden ? Number.NEGATIVE_INFINITY : score;
    }
    const most = scores.reduce((x, y) => Math.max(x, y), Number.NEGATIVE_INFINITY);
    const powers = scores.map((score) => Math.exp(score - most));
    const sum = powers.reduce((x, y) => x + y, 0);
    for (let j = 0; j < total; j++) {
      const share = (powers[j] as number) / sum;
      for (let d = 0; d < width; d++) {
        const at = row * width + d;
        data[at] = (data[at] as number) + share * (value.data[(from + j) * width + d] as number);
      }
    }
  }
  return { dims: [batch, heads, tokens, width], data, type: FLOAT };
}

/** Rotates pairs of [batch, heads, tokens, size]; the tables are [positions, half of what is rotated]. */
export function rotate(
  x: Tensor,
  cos: Tensor,
  sin: Tensor,
  position: (batch: number, token: number) => number,
  interleaved: boolean,
): Tensor {
  const [, heads, tokens, size] = x.dims as [number, number, number, number];
  const half = cos.dims[1] as number;
  const data = Float64Array.from(x.data);
  for (let row = 0; row < x.data.length / size; row++) {
    const at = position(Math.floor(row / (heads * tokens)), row % tokens) * half;
    for (let k = 0; k < half; k++) {
      const first = row * size + (interleaved ? 2 * k : k);
      const second = interleaved ? first + 1 : first + half;
      const [a, b] = [x.data[first] as number, x.data[second] as number];
      const [c, s] = [cos.data[at + k] as number, sin.data[at + k] as number];
      data[first] = a * c - b * s;
      data[second] = b * c + a * s;
    }
  }
  return { ...x, data };
}

const rotaryEmbedding: Operator = (call) => {
  const [input, positions, cos, sin] = [operand(call, 0), operand(call, 1), operand(call, 2), operand(call, 3)];
  const size = 2 * (cos.dims[1] as number);
  const width = input.dims.at(-1) as number;
  const heads = input.dims.length === 4 ? (input.dims[1] as number) : call.number('num_heads') || width / size;
  const tokens = input.dims.length === 4 ? (input.dims[2] as number) : (input.dims[1] as number);
  const position = (b: number, t: number): number =>
    positions.data.length === 1 ? (positions.data[0] as number) + t : (positions.data[b * tokens + t] as number);
  const rotated = rotate(headsOf(input, heads), cos, sin, position, call.number('interleaved') === 1);
  return [input.dims.length === 4 ? rotated : flattened(rotated)];
};

/** com.microsoft GroupQueryAttention: causal; the lengths are those of whole rows without padding. */
const groupQueryAttention: Operator = (call) => {
  const [heads, kvHeads] = [call.number('num_heads') as number, call.number('kv_num_heads') as number];
  let [q, k, v] = [operand(call, 0), call.inputs[1] ?? null, call.inputs[2] ?? null];
  if (!k || !v) {
    const size = (q.dims[2] as number) / (heads + 2 * kvHeads);
    const [endOfQ, endOfK] = [heads * size, (heads + kvHeads) * size];
    [q, k, v] = [rangeOf(q, 2, 0, endOfQ), rangeOf(q, 2, endOfQ, endOfK), rangeOf(q, 2, endOfK, q.dims[2] as number)];
  }
  const tokens = q.dims[1] as number;
  const total = operand(call, 6).data[0] as number;
  const past = total - tokens;
  if (operand(call, 5).data.some((last) => last !== total - 1)) throw new RangeError('rows of different lengths');
  let [query, key] = [headsOf(q, heads), headsOf(k, kvHeads)];
  if (call.number('do_rotary') === 1) {
    const [cos, sin] = [operand(call, 7), operand(call, 8)];
    const interleaved = call.number('rotary_interleaved') === 1;
    query = rotate(query, cos, sin, (_, t) => past + t, interleaved);
    key = rotate(key, cos, sin, (_, t) => past + t, interleaved);
  }
  const value = headsOf(v, kvHeads);
  const keys = call.inputs[3] ? joined([call.inputs[3], key], 2) : key;
  const values = call.inputs[4] ? joined([call.inputs[4], value], 2) : value;
  const result = attend({
    query,
    key: keys,
    value: values,
    scale: call.number('scale') || 1 / Math.sqrt(query.dims[3] as number),
    causalPast: past,
    window: call.number('local_window_size') ?? -1,
    softcap: call.number('softcap') ?? 0,
    bias: call.inputs[10] ?? null,
  });
  return [flattened(result), keys, values];
};

/** com.microsoft MultiHeadAttention with separate projections. */
const multiHeadAttention: Operator = (call) => {
  const heads = call.number('num_heads') as number;
  const bias = call.inputs[3];
  const width = operand(call, 0).dims.at(-1) as number;
  const [query, key, value] = [0, 1, 2].map((i) => {
    const x = operand(call, i);
    if (!bias) return headsOf(x, heads);
    const own = bias.data.subarray(i * width, (i + 1) * width);
    return headsOf({ ...x, data: x.data.map((each, at) => each + (own[at % width] as number)) }, heads);
  }) as [Tensor, Tensor, Tensor];
  const keys = call.inputs[6] ? joined([call.inputs[6], key], 2) : key;
  const values = call.inputs[7] ? joined([call.inputs[7], value], 2) : value;
  const past = (keys.dims[2] as number) - (query.dims[2] as number);
  const result = attend({
    query,
    key: keys,
    value: values,
    scale: call.number('scale') || 1 / Math.sqrt(query.dims[3] as number),
    causalPast: call.number('unidirectional') === 1 ? past : null,
    bias: call.inputs[5] ?? null,
  });
  return [flattened(result), keys, values];
};

/** ai.onnx Attention, opset 23. */
const attention: Operator = (call) => {
  const isFlat = operand(call, 0).dims.length === 3;
  const [heads, kvHeads] = [call.number('q_num_heads') ?? 0, call.number('kv_num_heads') ?? 0];
  const query = headsOf(operand(call, 0), heads);
  const key = headsOf(operand(call, 1), kvHeads);
  const value = headsOf(operand(call, 2), kvHeads);
  const keys = call.inputs[4] ? joined([call.inputs[4], key], 2) : key;
  const values = call.inputs[5] ? joined([call.inputs[5], value], 2) : value;
  const mask = call.inputs[3];
  const isBool = mask?.type === 9;
  const bias = mask && isBool ? { ...mask, data: mask.data.map((x) => (x ? 0 : Number.NEGATIVE_INFINITY)) } : mask;
  const past = (keys.dims[2] as number) - (query.dims[2] as number);
  const result = attend({
    query,
    key: keys,
    value: values,
    scale: call.number('scale') ?? 1 / Math.sqrt(query.dims[3] as number),
    causalPast: call.number('is_causal') === 1 ? past : null,
    softcap: call.number('softcap') ?? 0,
    bias: bias ?? null,
  });
  return [isFlat ? flattened(result) : result, keys, values];
};

export const ATTENTION: Readonly<Record<string, Operator>> = {
  Attention: attention,
  'com.microsoft.GroupQueryAttention': groupQueryAttention,
  'com.microsoft.MultiHeadAttention': multiHeadAttention,
  'com.microsoft.RotaryEmbedding': rotaryEmbedding,
};
