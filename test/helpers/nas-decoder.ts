/**
 * Decoders as neural architecture search leaves them (Puzzle, Nemotron-NAS, DeciLM): each block has an attention, a linear in
 * its place or nothing, and an FFN, a linear or nothing. Written as two exporters do:
 *
 *     torch    names of modules, norms and attentions spelled out, sums are Adds, matrices are called `onnx::MatMul_17`
 *     genai    one operator for an attention with its caches, and one for each sum with the norm after it
 *
 * A weight depends on what it is of and on nothing else: a decoder without a branch is another's with the branch removed.
 */
import { type Attribute, Graph, Model, Tensor, type Value } from '../../ir/core.js';
import { tensorType } from '../../ir/type.js';
import { inlineWeight, type Weight } from '../../ir/weight.js';
import { hashOf, normal } from '../../runtime/run/random.js';

export interface NasBlock {
  readonly attention: 'attention' | 'linear' | 'none';
  readonly ffn: 'ffn' | 'linear' | 'none';
}

export type NasStyle = 'torch' | 'genai';

const WIDTH = 16;
const HEADS = 2;
const HEAD_SIZE = WIDTH / HEADS;
const VOCABULARY = 19;
const EPSILON = 1e-5;

/** Width of the FFN of a block: each has another one. */
export function nasWidth(block: number): number {
  return 24 + 8 * block;
}

/** The decoder of `blocks`, in memory. */
export function nasDecoder(blocks: readonly NasBlock[], style: NasStyle): Model {
  return new Writer(style).write(blocks);
}

/** The matrix of the linear in a place of a block, [16, 16]. */
export function nasLinear(block: number, part: 'attention' | 'ffn'): Weight {
  return weightOf(`layers.${block}.${part === 'attention' ? 'attn' : 'mlp'}.linear`, [WIDTH, WIDTH]);
}

const int = (value: number): Attribute => ({ kind: 'int', value: BigInt(value) });
const float = (value: number): Attribute => ({ kind: 'float', value });
const ints = (...values: number[]): Attribute => ({ kind: 'ints', value: values.map(BigInt) });

const made = new Map<string, Weight>();

/** The weight of a module, under whichever exporter's name: a matrix, or a gamma around 1. */
function weightOf(module: string, dims: readonly number[]): Weight {
  const seed = module.replace('self_attn', 'attn').replace(/linear_\w+/, 'linear');
  const count = dims.reduce((product, dim) => product * dim, 1);
  const centre = dims.length === 1 ? 1 : 0;
  const data = (): Float32Array => Float32Array.from({ length: count }, (_, i) => centre + normal(hashOf(seed), i) / 4);
  const weight = made.get(seed) ?? dense(data(), dims);
  made.set(seed, weight);
  return weight;
}

function dense(data: Float32Array, dims: readonly number[]): Weight {
  return inlineWeight(new Uint8Array(data.buffer), 'float', dims);
}

class Writer {
  readonly graph = new Graph();
  readonly #isTorch: boolean;
  #matrices = 700;
  /** What the next branch reads: the stream, and in genai's style the norm that came with its sum. */
  #stream!: Value;
  readonly #caches: Value[] = [];

  constructor(readonly style: NasStyle) {
    this.#isTorch = style === 'torch';
    this.graph.name = style;
  }

  write(blocks: readonly NasBlock[]): Model {
    const { graph } = this;
    const ids = graph.addInput('input_ids', tensorType('int64', ['batch', 'sequence']));
    const table = this.#tensor('model.embed_tokens.weight', 'embedding', [VOCABULARY, WIDTH]);
    this.#stream = this.#op('Gather', [table, ids], '/model/embed_tokens/Gather');
    const branches = blocks.flatMap(({ attention, ffn }, layer) => [
      ...(attention === 'none' ? [] : [{ layer, place: 'input_layernorm', kind: attention }]),
      ...(ffn === 'none' ? [] : [{ layer, place: 'post_attention_layernorm', kind: ffn }]),
    ]);
    // A sum is written with the norm after it in genai's style, so that it waits for it.
    let term: Value | null = null;
    for (const { layer, place, kind } of branches) {
      const normed = this.#sum(term, `model.layers.${layer}.${place}`);
      const isFirst = place === 'input_layernorm';
      if (kind === 'attention') term = this.#attention(layer, normed);
      else if (kind === 'ffn') term = this.#ffn(layer, normed);
      else term = this.#linear(layer, isFirst, normed);
      if (this.#isTorch)
        this.#stream = this.#op('Add', [this.#stream, term], `/model/layers.${layer}/Add${isFirst ? '' : '_1'}`);
      if (this.#isTorch) term = null;
    }
    const head = this.#matrix('lm_head', 'head', WIDTH, VOCABULARY);
    const logits = this.#op('MatMul', [this.#sum(term, 'model.norm'), head], '/lm_head/MatMul', 'logits');
    logits.type = tensorType('float', ['batch', 'sequence', VOCABULARY]);
    graph.addOutput(logits);
    for (const present of this.#caches) graph.addOutput(present);
    const opsets = [
      { domain: '', version: 17 },
      { domain: 'com.microsoft', version: 1 },
    ];
    return new Model(8, this.#isTorch ? opsets.slice(0, 1) : opsets, graph);
  }

  /** Adds `term` to the stream, where it is not there yet, and gives the norm of the stream. */
  #sum(term: Value | null, name: string): Value {
    const gamma = this.#tensor(`${name}.weight`, name, [WIDTH]);
    const scope = `/${name.replace(/^model\./, 'model/').replace(/layers\.(\d+)\./, 'layers.$1/')}`;
    if (this.#isTorch) return this.#spelledNorm(scope, gamma);
    const attributes = { epsilon: float(EPSILON) };
    if (!term) {
      const own = { ...attributes, axis: int(-1), stash_type: int(1) };
      return this.#op('SimplifiedLayerNormalization', [this.#stream, gamma], `${scope}/LayerNorm`, undefined, own);
    }
    const isLast = name === 'model.norm';
    const outputs = [`${scope}/output_0`, null, null, ...(isLast ? [] : [`${scope}/output_3`])];
    const node = this.graph.addNode({
      opType: 'SkipSimplifiedLayerNormalization',
      domain: 'com.microsoft',
      name: `${scope}/SkipLayerNorm`,
      inputs: [this.#stream, term, gamma],
      outputs,
      attributes,
    });
    if (!isLast) this.#stream = node.output(3) as Value;
    return node.output(0) as Value;
  }

  #spelledNorm(scope: string, gamma: Value): Value {
    const at = (name: string): string => `${scope}/${name}`;
    const two = this.#scalar('two', 2);
    const squares = this.#op('Pow', [this.#stream, two], at('Pow'));
    const mean = this.#op('ReduceMean', [squares], at('ReduceMean'), undefined, { axes: ints(-1), keepdims: int(1) });
    const shifted = this.#op('Add', [mean, this.#scalar('epsilon', EPSILON)], at('Add'));
    const inverse = this.#op('Reciprocal', [this.#op('Sqrt', [shifted], at('Sqrt'))], at('Reciprocal'));
    return this.#op('Mul', [this.#op('Mul', [this.#stream, inverse], at('Mul')), gamma], at('Mul_1'));
  }

  #linear(layer: number, isAttention: boolean, normed: Value): Value {
    const module = this.#isTorch
      ? `layers.${layer}.${isAttention ? 'self_attn.linear_attn' : 'mlp.linear_mlp'}`
      : `layers.${layer}.${isAttention ? 'attn' : 'mlp'}.linear`;
    return this.#project(module, normed, WIDTH, WIDTH);
  }

  #ffn(layer: number, normed: Value): Value {
    const module = `layers.${layer}.mlp`;
    const width = nasWidth(layer);
    const gate = this.#project(`${module}.gate_proj`, normed, WIDTH, width);
    const up = this.#project(`${module}.up_proj`, normed, WIDTH, width);
    const act = this.#op('Sigmoid', [gate], `/model/layers.${layer}/mlp/act_fn/Sigmoid`);
    const gated = this.#op('Mul', [gate, act], `/model/layers.${layer}/mlp/act_fn/Mul`);
    const hidden = this.#op('Mul', [gated, up], `/model/layers.${layer}/mlp/Mul`);
    return this.#project(`${module}.down_proj`, hidden, width, WIDTH);
  }

  #attention(layer: number, normed: Value): Value {
    const module = `layers.${layer}.${this.#isTorch ? 'self_attn' : 'attn'}`;
    const [q, k, v] = ['q', 'k', 'v'].map((name) => this.#project(`${module}.${name}_proj`, normed, WIDTH, WIDTH)) as [
      Value,
      Value,
      Value,
    ];
    const mixed = this.#isTorch ? this.#spelledAttention(layer, q, k, v) : this.#cachedAttention(layer, q, k, v);
    return this.#project(`${module}.o_proj`, mixed, WIDTH, WIDTH);
  }

  #spelledAttention(layer: number, q: Value, k: Value, v: Value): Value {
    const at = (name: string): string => `/model/layers.${layer}/self_attn/${name}`;
    const turned = this.#op('Transpose', [k], at('Transpose'), undefined, { perm: ints(0, 2, 1) });
    const scores = this.#op(
      'Mul',
      [this.#op('MatMul', [q, turned], at('MatMul')), this.#scalar('scale', 0.25)],
      at('Mul'),
    );
    const weights = this.#op('Softmax', [scores], at('Softmax'), undefined, { axis: int(-1) });
    return this.#op('MatMul', [weights, v], at('MatMul_1'));
  }

  #cachedAttention(layer: number, q: Value, k: Value, v: Value): Value {
    const { graph } = this;
    const cache = (when: string) => tensorType('float', ['batch', HEADS, when, HEAD_SIZE]);
    const input = (name: string, type: Value['type']): Value =>
      graph.value(name) ?? graph.addInput(name, type as never);
    const lengths = input('seqlens_k', tensorType('int32', ['batch']));
    const total = input('total_seq_len', tensorType('int32', []));
    const past = ['key', 'value'].map((part) => input(`past_key_values.${layer}.${part}`, cache('past')));
    const node = graph.addNode({
      opType: 'GroupQueryAttention',
      domain: 'com.microsoft',
      name: `/model/layers.${layer}/attn/GroupQueryAttention`,
      inputs: [q, k, v, ...past, lengths, total],
      outputs: [
        `/model/layers.${layer}/attn/GroupQueryAttention/output_0`,
        ...['key', 'value'].map((part) => ({ name: `present.${layer}.${part}`, type: cache('total') })),
      ],
      attributes: { num_heads: int(HEADS), kv_num_heads: int(HEADS) },
    });
    this.#caches.push(node.output(1) as Value, node.output(2) as Value);
    return node.output(0) as Value;
  }

  #project(module: string, input: Value, rows: number, columns: number): Value {
    const weight = this.#matrix(`model.${module}`, module, rows, columns);
    return this.#op(
      'MatMul',
      [input, weight],
      `/model/${module.replaceAll('.', '/').replace('layers/', 'layers.')}/MatMul`,
    );
  }

  #matrix(module: string, seed: string, rows: number, columns: number): Value {
    const name = this.#isTorch ? `onnx::MatMul_${this.#matrices++}` : `${module}.MatMul.weight`;
    return this.#tensor(name, seed, [rows, columns]);
  }

  #tensor(name: string, seed: string, dims: readonly number[]): Value {
    const known = this.graph.value(name);
    if (known) return known;
    return this.#initializer(name, weightOf(seed, dims), dims);
  }

  #scalar(name: string, value: number): Value {
    return this.graph.value(name) ?? this.#initializer(name, dense(Float32Array.of(value), []), []);
  }

  #initializer(name: string, weight: Weight, dims: readonly number[]): Value {
    return this.graph.addInitializer(name, new Tensor(name, 'float', dims, weight));
  }

  #op(
    opType: string,
    inputs: readonly Value[],
    name: string,
    output = `${name}_output_0`,
    attributes: Readonly<Record<string, Attribute>> = {},
  ): Value {
    return this.graph.addNode({ opType, name, inputs, outputs: [output], attributes }).output(0) as Value;
  }
}
