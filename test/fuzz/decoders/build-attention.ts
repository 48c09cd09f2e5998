/** The attention of a random decoder as a graph. */
import type { Value } from '../../../ir/core.js';
import { tensorType } from '../../../ir/type.js';
import { type Builder, int, ints } from './build.js';
import { buildLinear } from './build-linear.js';

/** Inputs that attentions share. */
export interface Lengths {
  readonly ids: Value;
  mask: Value | null;
  last: Value | null;
  total: Value | null;
  positions: Value | null;
}

/** The branch that reads `input`, a norm; `number` names its caches, `own` its weights. */
export function buildAttention(builder: Builder, input: Value, number: number, own: string, lengths: Lengths): Value {
  const { spec } = builder;
  const { attention, hidden } = spec;
  const { heads, kvHeads, size, form, format, bias } = attention;
  const widths = [heads * size, kvHeads * size, kvHeads * size] as const;
  const linear = (part: string, columns: number): Value =>
    buildLinear(builder, input, `${own}.${part}`, hidden, columns, { format, bias });
  const cache = (part: 'key' | 'value'): Value | null =>
    attention.cache ? builder.input(`past_key_values.${number}.${part}`, ['batch', kvHeads, 'past', size]) : null;
  const isWhole = attention.packed && form === 'group-query';
  let qkv: readonly (Value | null)[];
  if (attention.packed) {
    const packed = linear('qkv', widths[0] + widths[1] + widths[2]);
    qkv = isWhole ? [packed, null, null] : builder.split(packed, widths);
  } else {
    qkv = ['q', 'k', 'v'].map((part, i) => linear(part, widths[i] as number));
  }
  if (attention.rotary === 'operator') {
    const turned = [heads, kvHeads].map((count, i) => rotaryOperator(builder, qkv[i] as Value, count, lengths));
    qkv = [...turned, qkv[2] as Value];
  }
  const past = [cache('key'), cache('value')] as const;
  const [mixed, presents] =
    form === 'decomposed'
      ? decomposed(builder, qkv as readonly Value[], past, lengths.mask)
      : operator(builder, qkv, past, lengths);
  for (const [i, part] of ['key', 'value'].entries()) {
    const present = presents[i];
    if (!attention.cache || !present) continue;
    builder.graph.renameValue(present, `present.${number}.${part}`);
    present.type = tensorType('float', ['batch', kvHeads, 'total', size]);
    builder.presents.push(present);
  }
  return buildLinear(builder, mixed, `${own}.o`, heads * size, hidden, { format, bias: attention.outBias });
}

/** Tables of cosines and sines, [16, half a head]. */
export function rotaryTable(part: 'cos' | 'sin', size: number): Float64Array {
  const half = size / 2;
  const angle = (i: number): number => Math.floor(i / half) / 100 ** ((i % half) / half);
  return Float64Array.from({ length: 16 * half }, (_, i) =>
    Math.fround(part === 'cos' ? Math.cos(angle(i)) : Math.sin(angle(i))),
  );
}

function tables(builder: Builder): Value[] {
  const { size } = builder.spec.attention;
  return (['cos', 'sin'] as const).map((part) =>
    builder.floats(`${part}_cache`, [16, size / 2], rotaryTable(part, size)),
  );
}

function rotaryOperator(builder: Builder, x: Value, heads: number, { positions }: Lengths): Value {
  const inputs = [x, positions as Value, ...tables(builder)];
  return builder.op(
    'RotaryEmbedding',
    inputs,
    { num_heads: int(heads), rotary_embedding_dim: int(0) },
    'com.microsoft',
  );
}

type Mixed = readonly [Value, readonly (Value | null)[]];

function operator(
  builder: Builder,
  qkv: readonly (Value | null)[],
  past: readonly (Value | null)[],
  { last, total }: Lengths,
): Mixed {
  const { heads, kvHeads, form, cache, rotary } = builder.spec.attention;
  const count = cache ? 3 : 1;
  const outputs = (first: Value): Mixed => [
    first,
    [first.producer?.output(1) ?? null, first.producer?.output(2) ?? null],
  ];
  switch (form) {
    case 'group-query': {
      const isInside = rotary === 'inside';
      const inputs = [...qkv, ...past, last, total, ...(isInside ? tables(builder) : [])];
      const attributes = {
        num_heads: int(heads),
        kv_num_heads: int(kvHeads),
        ...(isInside ? { do_rotary: int(1) } : {}),
      };
      // The operator gives its caches whether or not anybody wants them.
      return outputs(builder.op('GroupQueryAttention', inputs, attributes, 'com.microsoft', 3));
    }
    case 'multi-head': {
      const inputs = cache ? [...qkv, null, null, null, ...past] : qkv;
      const attributes = { num_heads: int(heads), unidirectional: int(1) };
      return outputs(builder.op('MultiHeadAttention', inputs, attributes, 'com.microsoft', count));
    }
  }
  const inputs = cache ? [...qkv, null, ...past] : qkv;
  const attributes = { q_num_heads: int(heads), kv_num_heads: int(kvHeads), is_causal: int(1) };
  return outputs(builder.op('Attention', inputs, attributes, '', count));
}

function decomposed(
  builder: Builder,
  [q, k, v]: readonly Value[],
  past: readonly (Value | null)[],
  mask: Value | null,
): Mixed {
  const { heads, kvHeads, size } = builder.spec.attention;
  const { op } = builder;
  const split = (x: Value, count: number): Value =>
    op('Transpose', [op('Reshape', [x, builder.integers([0, 0, count, size])])], { perm: ints([0, 2, 1, 3]) });
  const query = split(q as Value, heads);
  const presents = [k, v].map((x, i) => {
    const own = split(x as Value, kvHeads);
    const before = past[i];
    return before ? op('Concat', [before, own], { axis: int(2) }) : own;
  });
  const repeated = presents.map((x) => {
    if (heads === kvHeads) return x;
    const wide = op('Expand', [
      op('Unsqueeze', [x, builder.integers([2])]),
      builder.integers([1, 1, heads / kvHeads, 1, 1]),
    ]);
    return op('Reshape', [wide, builder.integers([0, heads, -1, size])]);
  });
  const [key, value] = repeated as [Value, Value];
  const turned = op('Transpose', [key], { perm: ints([0, 1, 3, 2]) });
  let scores = op('Div', [op('MatMul', [query, turned]), builder.number(Math.sqrt(size))]);
  if (mask) scores = op('Add', [scores, mask]);
  const shares = op('Softmax', [scores], { axis: int(-1) });
  const mixed = op('Transpose', [op('MatMul', [shares, value])], { perm: ints([0, 2, 1, 3]) });
  return [op('Reshape', [mixed, builder.integers([0, 0, heads * size])]), presents];
}
