/** The graph of a random decoder, as an exporter might have written it. */
import { type Attribute, Graph, Model, Tensor, type Value } from '../../../ir/core.js';
import { referenceBytes } from '../../../ir/disk/model.js';
import { type DataType, type Dim, tensorType } from '../../../ir/type.js';
import { inlineWeight, type Weight } from '../../../ir/weight.js';
import { SPELLED } from './activations.js';
import { buildAttention, type Lengths } from './build-attention.js';
import { buildLinear } from './build-linear.js';
import { type DecoderSpec, type FfnSpec, type LayerSpec, layerNumber } from './spec.js';
import { Weights } from './weights.js';

export const int = (value: number): Attribute => ({ kind: 'int', value: BigInt(value) });
export const ints = (value: readonly number[]): Attribute => ({ kind: 'ints', value: value.map(BigInt) });
export const float = (value: number): Attribute => ({ kind: 'float', value: Math.fround(value) });

/** The bytes of the decoder's file, weights inside. */
export function decoderBytes(spec: DecoderSpec, weights = new Weights(spec)): Uint8Array {
  return referenceBytes(new Builder(spec, weights).build(), '.');
}

export class Builder {
  readonly graph = new Graph();
  readonly opset: number;
  readonly presents: Value[] = [];
  readonly #known = new Map<string, Value>();
  #place = '';
  #count = 0;

  constructor(
    readonly spec: DecoderSpec,
    readonly weights: Weights,
  ) {
    this.opset = spec.opset;
    this.graph.name = 'decoder';
  }

  build(): Model {
    const { spec, graph } = this;
    const ids = graph.addInput('input_ids', tensorType('int64', ['batch', 'tokens']));
    const lengths: Lengths = { ids, mask: null, last: null, total: null, positions: null };
    if (spec.positions || spec.attention.rotary === 'operator') {
      lengths.positions = graph.addInput('position_ids', tensorType('int64', ['batch', 'tokens']));
    }
    if (spec.attention.form === 'group-query') {
      lengths.last = graph.addInput('seqlens_k', tensorType('int32', ['batch']));
      lengths.total = graph.addInput('total_sequence_length', tensorType('int32', []));
    }
    if (spec.attention.masked) {
      lengths.mask = graph.addInput('attention_bias', tensorType('float', ['batch', 1, 'tokens', 'total']));
    }
    this.#place = '/model/embed_tokens';
    const table = this.floats(
      'model.embed_tokens.weight',
      [spec.vocabulary, spec.hidden],
      this.weights.matrix('embed', spec.vocabulary, spec.hidden, 2),
    );
    let stream = this.op('Gather', [table, ids]);
    if (spec.positions) {
      const places = this.floats(
        'model.wpe.weight',
        [16, spec.hidden],
        this.weights.matrix('positions', 16, spec.hidden),
      );
      stream = this.op('Add', [stream, this.op('Gather', [places, lengths.positions as Value])]);
    }
    if (spec.embeddingFactor !== 1) stream = this.op('Mul', [stream, this.number(spec.embeddingFactor)]);
    const rest = new Residual(this, stream);
    for (const [i, layer] of spec.layers.entries()) this.#layer(layer, i, rest, lengths);
    this.#place = '/model/norm';
    const normed = spec.finalNorm ? rest.normed('model.norm', 'final') : rest.settled();
    this.#place = '/lm_head';
    const head = this.floats(
      'lm_head.weight',
      [spec.hidden, spec.vocabulary],
      this.weights.matrix('head', spec.hidden, spec.vocabulary),
    );
    let logits = this.op('MatMul', [normed, head]);
    if (spec.headBias)
      logits = this.op('Add', [
        logits,
        this.floats('lm_head.bias', [spec.vocabulary], this.weights.shift('head.bias', spec.vocabulary)),
      ]);
    graph.renameValue(logits, 'logits');
    logits.type = tensorType('float', ['batch', 'tokens', spec.vocabulary]);
    for (const value of [logits, ...this.presents]) graph.addOutput(value);
    return new Model(
      10,
      [
        { domain: '', version: spec.opset },
        { domain: 'com.microsoft', version: 1 },
      ],
      graph,
    );
  }

  #layer(layer: LayerSpec, i: number, stream: Residual, lengths: Lengths): void {
    const { spec } = this;
    const base = `layers.${layerNumber(spec, i)}`;
    const [own, norms] = [`${layer.weights}`, layer.norms];
    const enter = (part: string): void => {
      this.#place = spec.named ? `/model/${base}/${part}` : '';
    };
    const attend = (input: Value): Value => {
      enter('self_attn');
      return buildAttention(this, input, layerNumber(spec, i), own, lengths);
    };
    const feed = (input: Value, ffn: FfnSpec): Value => {
      enter('mlp');
      return this.#ffn(input, ffn, own);
    };
    const normed = (part: string): Value => {
      enter(part);
      return stream.normed(this.#weightName(norms, part), `${norms}.${part}`);
    };
    const after = (value: Value, part: string): Value => {
      if (spec.residual !== 'sandwich') return value;
      enter(part);
      return this.norm(value, this.#weightName(norms, part), `${norms}.${part}`);
    };
    const settle = (part: string): void => {
      if (spec.residual !== 'post') return;
      enter(part);
      stream.replace(this.norm(stream.settled(), this.#weightName(norms, part), `${norms}.${part}`));
    };
    if (spec.residual === 'parallel' || spec.residual === 'parallel-one-norm') {
      const first = layer.attention || spec.residual === 'parallel-one-norm' ? normed('input_layernorm') : null;
      const second = spec.residual === 'parallel' && layer.ffn ? normed('post_attention_layernorm') : first;
      const terms = [
        ...(layer.attention ? [attend(first as Value)] : []),
        ...(layer.ffn ? [feed(second as Value, layer.ffn)] : []),
      ];
      this.#place = spec.named ? `/model/${base}` : '';
      if (terms.length > 0) stream.add(terms);
      return;
    }
    if (layer.attention) {
      const input = spec.residual === 'post' ? stream.settled() : normed('input_layernorm');
      const branch = after(attend(input), 'attention_out_layernorm');
      this.#place = spec.named ? `/model/${base}/self_attn` : '';
      stream.add([branch]);
      settle('attention_layernorm');
    }
    if (layer.ffn) {
      const input = spec.residual === 'post' ? stream.settled() : normed('post_attention_layernorm');
      const branch = after(feed(input, layer.ffn), 'ffn_out_layernorm');
      this.#place = spec.named ? `/model/${base}/mlp` : '';
      stream.add([branch]);
      settle('output_layernorm');
    }
  }

  #weightName(key: string, part: string): string {
    const number = /^own(\d+)$/.exec(key)?.[1];
    if (number === undefined || !this.spec.named) return `norms.${key}.${part}`;
    return `model.layers.${layerNumber(this.spec, Number(number))}.${part}`;
  }

  #ffn(input: Value, ffn: FfnSpec, own: string): Value {
    const { hidden } = this.spec;
    const { width, form, format, gated } = ffn;
    const isFlat = form === 'gemm';
    const x = isFlat ? this.op('Reshape', [input, this.integers([-1, hidden])]) : input;
    const linear = (from: Value, part: string, rows: number, columns: number, bias: boolean): Value =>
      buildLinear(this, from, `${own}.${part}`, rows, columns, { format, bias, isGemm: isFlat });
    let parts: Value[];
    if (gated && (form === 'split' || form === 'slice')) {
      const packed = linear(x, 'gate_up', hidden, 2 * width, ffn.bias);
      parts =
        form === 'split'
          ? this.split(packed, [width, width])
          : [0, 1].map((k) => this.slice(packed, k * width, (k + 1) * width));
    } else {
      parts = (gated ? ['gate', 'up'] : ['up']).map((part) => linear(x, part, hidden, width, ffn.bias));
    }
    let active = SPELLED[ffn.activation].spell(this, parts[0] as Value);
    if (ffn.channels === 'vector')
      active = this.op('Mul', [
        active,
        this.floats(this.named(own, 'channels'), [width], this.weights.gamma(`${own}.channels`, width)),
      ]);
    if (ffn.channels === 'scalar') active = this.op('Mul', [active, this.number(this.weights.scalar(`${own}.scalar`))]);
    const inner = gated ? this.op('Mul', [active, parts[1] as Value]) : active;
    const early = ffn.downBias === 'plain' || ffn.downBias === 'before-factor';
    let result = linear(inner, 'down', width, hidden, early);
    if (ffn.factor !== 1) result = this.op('Mul', [result, this.number(ffn.factor)]);
    if (ffn.downBias === 'after-factor') {
      const late = this.floats(this.named(own, 'late.bias'), [hidden], this.weights.shift(`${own}.late.bias`, hidden));
      result = this.op('Add', [result, late]);
    }
    if (!isFlat) return result;
    // The model's own sizes: batch and tokens as they come.
    return this.op('Reshape', [result, this.op('Shape', [input])]);
  }

  /** A norm of any value, as an operator or spelled out. */
  norm(x: Value, name: string, key: string): Value {
    const { hidden, norm } = this.spec;
    const gamma = this.floats(`${name}.weight`, [hidden], this.weights.gamma(`${key}.gamma`, hidden));
    const beta = norm.beta ? this.floats(`${name}.bias`, [hidden], this.weights.shift(`${key}.beta`, hidden)) : null;
    if (norm.form !== 'formula') {
      const attributes = { axis: int(-1), epsilon: float(norm.eps) };
      const op =
        norm.kind === 'layer'
          ? 'LayerNormalization'
          : this.opset >= 23
            ? 'RMSNormalization'
            : 'SimplifiedLayerNormalization';
      return this.op(op, beta ? [x, gamma, beta] : [x, gamma], attributes);
    }
    const mean = (of: Value): Value =>
      this.opset >= 18
        ? this.op('ReduceMean', [of, this.integers([-1])])
        : this.op('ReduceMean', [of], { axes: ints([-1]) });
    const centre = norm.kind === 'layer' ? this.op('Sub', [x, mean(x)]) : x;
    const variance = this.op('Add', [mean(this.op('Pow', [centre, this.number(2)])), this.number(norm.eps)]);
    const normed = this.op('Mul', [this.op('Div', [centre, this.op('Sqrt', [variance])]), gamma]);
    return beta ? this.op('Add', [normed, beta]) : normed;
  }

  // What the parts are made of.

  readonly op = (
    opType: string,
    inputs: readonly (Value | null)[],
    attributes: Readonly<Record<string, Attribute>> = {},
    domain = '',
    outputs = 1,
  ): Value => {
    const name = this.#place === '' ? `node_${this.#count++}` : `${this.#place}/${opType}`;
    const results = Array.from({ length: outputs }, (_, i) => `${name}_output_${i}`);
    const result = this.graph
      .addNode({ opType, domain, name, inputs, outputs: results, attributes })
      .output(0) as Value;
    const isCopied =
      this.spec.copies && outputs === 1 && ['MatMul', 'Add', 'Mul'].includes(opType) && this.#count++ % 7 === 0;
    return isCopied ? this.op('Identity', [result]) : result;
  };

  split(x: Value, sizes: readonly number[]): Value[] {
    const first = this.op('Split', [x, this.integers(sizes)], { axis: int(-1) }, '', sizes.length);
    return [...(first.producer?.outputs ?? [])] as Value[];
  }

  slice(x: Value, start: number, end: number): Value {
    return this.op('Slice', [x, this.integers([start]), this.integers([end]), this.integers([-1])]);
  }

  /** The name of a matrix: its layer's number where the exporter would have known one. */
  named(key: string, part: string): string {
    const match = /^own(\d+)\.?(.*)$/.exec(key);
    const name =
      match && this.spec.named
        ? `model.layers.${layerNumber(this.spec, Number(match[1]))}.${match[2] || 'x'}`
        : `tables.${key}`;
    return `${name}.${part}`;
  }

  floats(name: string, dims: readonly number[], values: Float64Array): Value {
    return this.constant(name, 'float', dims, new Uint8Array(Float32Array.from(values).buffer));
  }
  readonly number = (value: number): Value => this.floats(`number_${value}`, [], Float64Array.of(value));
  integers(values: readonly number[]): Value {
    return this.constant(
      `integers_${values.join('_')}`,
      'int64',
      [values.length],
      new Uint8Array(new BigInt64Array(values.map(BigInt)).buffer),
    );
  }
  constant(name: string, dtype: DataType, dims: readonly number[], bytes: Uint8Array): Value {
    const known = this.#known.get(name) ?? this.#initializer(name, inlineWeight(bytes, dtype, dims));
    this.#known.set(name, known);
    return known;
  }
  #initializer(name: string, weight: Weight): Value {
    return this.graph.addInitializer(name, new Tensor(name, weight.dtype, weight.dims, weight));
  }
  input(name: string, shape: readonly Dim[]): Value {
    return this.graph.addInput(name, tensorType('float', shape));
  }
}

/** The residual stream while it is built: with skip norms, what is to be added waits for the next norm. */
class Residual {
  #waiting: Value | null = null;
  constructor(
    readonly builder: Builder,
    private stream: Value,
  ) {}

  replace(value: Value): void {
    this.stream = value;
  }

  settled(): Value {
    if (this.#waiting) this.stream = this.builder.op('Add', [this.stream, this.#waiting]);
    this.#waiting = null;
    return this.stream;
  }

  add(terms: readonly Value[]): void {
    const { builder } = this;
    const { order, norm } = builder.spec;
    this.settled();
    if (norm.form === 'skip' && terms.length === 1) this.#waiting = terms[0] as Value;
    else if (order === 'sum') this.stream = builder.op('Sum', [this.stream, ...terms]);
    else if (order === 'branch') {
      const sum = terms.length > 1 ? builder.op('Add', [...terms]) : (terms[0] as Value);
      this.stream = builder.op('Add', [sum, this.stream]);
    } else for (const term of terms) this.stream = builder.op('Add', [this.stream, term]);
  }

  normed(name: string, key: string): Value {
    const { builder } = this;
    const { spec, weights } = builder;
    if (!this.#waiting) return builder.norm(this.stream, name, key);
    const { hidden, norm } = spec;
    const gamma = builder.floats(`${name}.weight`, [hidden], weights.gamma(`${key}.gamma`, hidden));
    const beta = norm.beta ? builder.floats(`${name}.bias`, [hidden], weights.shift(`${key}.beta`, hidden)) : null;
    const isLayer = norm.kind === 'layer';
    const { branch, bias } = this.#withoutBias(this.#waiting);
    const shifts = bias ? [beta, bias] : beta ? [beta] : [];
    const inputs = [this.stream, branch, gamma, ...(isLayer ? shifts : bias ? [bias] : [])];
    const op = isLayer ? 'SkipLayerNormalization' : 'SkipSimplifiedLayerNormalization';
    const normed = builder.op(op, inputs, { epsilon: float(norm.eps) }, 'com.microsoft', 4);
    this.#waiting = null;
    this.stream = normed.producer?.output(3) as Value;
    return normed;
  }
  /** What waits to be added, and the bias in it where the skip norm is to add that. */
  #withoutBias(waiting: Value): { branch: Value; bias: Value | null } {
    const { graph, spec } = this.builder;
    const node = waiting.producer;
    const at =
      node?.opType === 'Add' && spec.norm.takesBias ? [0, 1].find((i) => node.input(i)?.initializer) : undefined;
    if (!node || at === undefined || !waiting.isUnused) return { branch: waiting, bias: null };
    const [branch, bias] = [node.input(1 - at) as Value, node.input(at)];
    graph.removeNode(node);
    return { branch, bias };
  }
}
