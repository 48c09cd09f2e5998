/** The attention of the benchmark decoders, spelled out. */
import type { Attribute, Value } from '../../ir/core.js';
import type { DecoderBuilder } from './decoder.js';

const int = (value: number): Attribute => ({ kind: 'int', value: BigInt(value) });

/** Attention as TorchScript writes it: about 90 nodes a layer, most of them about shapes. */
export class DecomposedAttention {
  readonly #cos: Value;
  readonly #sin: Value;
  readonly #mask: Value;

  constructor(
    readonly builder: DecoderBuilder,
    ids: Value,
    mask: Value,
  ) {
    const { headSize } = builder.spec;
    const b = builder;
    const size = (value: Value, axis: number, name: string): Value =>
      b.op('Gather', [b.op('Shape', [value], `/model/${name}/Shape`), b.integers([axis], [])], `/model/${name}/Gather`);
    // Positions of the new tokens, and of all.
    const total = size(mask, 1, 'total');
    const past = b.op('Sub', [total, size(ids, 1, 'new')], '/model/past/Sub');
    const range = (from: Value, name: string): Value =>
      b.op('Range', [from, total, b.integers([1], [])], `/model/${name}/Range`);
    const fresh = range(past, 'positions');
    const unsqueeze = (value: Value, axes: readonly number[], name: string): Value =>
      b.op('Unsqueeze', [value, b.integers(axes)], `/model/${name}/Unsqueeze`);
    const later = b.op(
      'Greater',
      [unsqueeze(range(b.integers([0], []), 'all'), [0], 'columns'), unsqueeze(fresh, [1], 'rows')],
      '/model/mask/Greater',
    );
    const hidden = b.op('Equal', [unsqueeze(mask, [1, 2], 'padding'), b.integers([0], [])], '/model/mask/Equal');
    const either = b.op('Or', [later, hidden], '/model/mask/Or');
    this.#mask = b.op('Where', [either, b.number(-10000), b.number(0)], '/model/mask/Where');
    const rotary = (part: string): Value => {
      const table = b.weight(`model.rotary_emb.${part}_cached`, [4096, headSize]);
      return unsqueeze(
        b.op('Gather', [table, fresh], `/model/rotary_emb/${part}/Gather`),
        [0, 1],
        `rotary_emb/${part}`,
      );
    };
    [this.#cos, this.#sin] = [rotary('cos'), rotary('sin')];
  }

  layer(input: Value, i: number, [pastKey, pastValue]: readonly [Value, Value]) {
    const { hidden, heads, kvHeads, headSize } = this.builder.spec;
    const b = this.builder;
    const at = `layers.${i}/self_attn`;
    const name = (text: string): string => `/model/${at}/${text}`;
    const heading = (part: string, count: number): Value => {
      const flat = b.project(input, at, `${part}_proj`, hidden, count * headSize);
      const bias = b.weight(`model.${at.replaceAll('/', '.')}.${part}_proj.bias`, [count * headSize]);
      const biased = part === 'q' ? flat : b.op('Add', [flat, bias], name(`${part}_proj/Add`));
      const split = this.#reshape(input, biased, [count, headSize], name(part));
      return b.op('Transpose', [split], name(`${part}/Transpose`), { perm: { kind: 'ints', value: [0n, 2n, 1n, 3n] } });
    };
    const query = this.#rotate(heading('q', heads), name('q_rotary'));
    const key = this.#join(pastKey, this.#rotate(heading('k', kvHeads), name('k_rotary')), name('key/Concat'));
    const value = this.#join(pastValue, heading('v', kvHeads), name('value/Concat'));
    const keys = b.op('Transpose', [this.#repeat(key, name('keys'))], name('Transpose'), {
      perm: { kind: 'ints', value: [0n, 1n, 3n, 2n] },
    });
    const scores = b.op('MatMul', [query, keys], name('MatMul'));
    const scaled = b.op('Div', [scores, b.number(Math.sqrt(headSize))], name('Div'));
    const weights = b.op('Softmax', [b.op('Add', [scaled, this.#mask], name('Add'))], name('Softmax'), {
      axis: int(-1),
    });
    const mixed = b.op('MatMul', [weights, this.#repeat(value, name('values'))], name('MatMul_1'));
    const back = b.op('Transpose', [mixed], name('Transpose_1'), { perm: { kind: 'ints', value: [0n, 2n, 1n, 3n] } });
    const merged = this.#reshape(input, back, [heads * headSize], name('out'));
    return { key, value, output: b.project(merged, at, 'o_proj', heads * headSize, hidden) };
  }

  #join(past: Value, fresh: Value, name: string): Value {
    return this.builder.op('Concat', [past, fresh], name, { axis: int(-2) });
  }

  /** [batch and tokens of `like`, ...rest] spelled out with Shape, Gather, Unsqueeze and Concat. */
  #reshape(like: Value, value: Value, rest: readonly number[], name: string): Value {
    const b = this.builder;
    const sizes = [0, 1].map((axis) => {
      const shape = b.op('Shape', [like], `${name}/Shape_${axis}`);
      const size = b.op('Gather', [shape, b.integers([axis], [])], `${name}/Gather_${axis}`);
      return b.op('Unsqueeze', [size, b.integers([0])], `${name}/Unsqueeze_${axis}`);
    });
    const parts = [...sizes, ...rest.map((size) => b.integers([size]))];
    const target = b.op('Concat', parts, `${name}/Concat`, { axis: int(0) });
    return b.op('Reshape', [value, target], `${name}/Reshape`);
  }

  #rotate(value: Value, name: string): Value {
    const b = this.builder;
    const { headSize } = b.spec;
    const half = (from: number, to: number, part: string): Value =>
      b.op('Slice', [value, b.integers([from]), b.integers([to]), b.integers([-1])], `${name}/${part}`);
    const minus = b.op('Neg', [half(headSize / 2, headSize, 'Slice_1')], `${name}/Neg`);
    const turned = b.op('Concat', [minus, half(0, headSize / 2, 'Slice')], `${name}/Concat`, { axis: int(-1) });
    const straight = b.op('Mul', [value, this.#cos], `${name}/Mul`);
    return b.op('Add', [straight, b.op('Mul', [turned, this.#sin], `${name}/Mul_1`)], `${name}/Add`);
  }

  /** repeat_kv: [b, kv, t, d] -> [b, heads, t, d]. */
  #repeat(value: Value, name: string): Value {
    const b = this.builder;
    const { heads, kvHeads, headSize } = b.spec;
    const size = (axis: number): Value => {
      const shape = b.op('Shape', [value], `${name}/Shape_${axis}`);
      const found = b.op('Gather', [shape, b.integers([axis], [])], `${name}/Gather_${axis}`);
      return b.op('Unsqueeze', [found, b.integers([0])], `${name}/Unsqueeze_${axis}`);
    };
    const [batch, tokens] = [size(0), size(2)];
    const fixed = (...sizes: number[]): Value[] => sizes.map((each) => b.integers([each]));
    const wide = b.op(
      'Concat',
      [batch, ...fixed(kvHeads, heads / kvHeads), tokens, ...fixed(headSize)],
      `${name}/Concat`,
      {
        axis: int(0),
      },
    );
    const open = b.op('Unsqueeze', [value, b.integers([2])], `${name}/Unsqueeze`);
    const expanded = b.op('Expand', [open, wide], `${name}/Expand`);
    const target = b.op('Concat', [batch, ...fixed(heads), tokens, ...fixed(headSize)], `${name}/Concat_1`, {
      axis: int(0),
    });
    return b.op('Reshape', [expanded, target], `${name}/Reshape`);
  }
}
