/**
 * Decoders for the benchmarks, of any size, as exporters write them: their graph, and where every tensor lies in one data
 * file. Nobody has to hold the weights: what fills the file is up to the caller.
 */
import { type Attribute, Graph, Model, Tensor, type Value } from '../../ir/core.js';
import { encodeModel } from '../../ir/proto/encode.js';
import { byteSize, type DataType, type Dim, tensorType } from '../../ir/type.js';
import { type ByteSource, inlineWeight, sourceWeight, type Weight } from '../../ir/weight.js';
import { DecomposedAttention } from './decomposed-attention.js';

export interface LayerSpec {
  readonly attention: boolean;
  /** Hidden units of the FFN. */
  readonly width: number;
}

/** `skip`: Skip*LayerNormalization and GroupQueryAttention; `adds`: the same with Adds; `decomposed`: TorchScript's way. */
export type Form = 'skip' | 'adds' | 'decomposed';

export interface DecoderSpec {
  readonly form: Form;
  readonly dtype: DataType;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly vocabulary: number;
  readonly layers: readonly LayerSpec[];
}

/** A tensor in the data file. */
export interface Placed {
  readonly name: string;
  readonly offset: number;
  readonly dims: readonly number[];
  readonly byteLength: number;
}

export interface Decoder {
  readonly model: Model;
  readonly tensors: readonly Placed[];
  readonly dataBytes: number;
}

const LARGE = 1024 * 1024;
const ALIGNMENT = 64 * 1024;
let sources = 0;

/** The model and the layout of its data file. */
export function buildDecoder(spec: DecoderSpec): Decoder {
  const builder = new DecoderBuilder(spec);
  const model = builder.build();
  return { model, tensors: builder.tensors, dataBytes: builder.end };
}

/** The bytes of the .onnx file over a data file called `location`. */
export function headerBytes(model: Model, location: string): Uint8Array {
  const rope = encodeModel(model, ({ weight }) =>
    weight?.op === 'source' ? { location, offset: weight.offset, length: weight.byteLength } : null,
  );
  return Buffer.concat(rope.chunks.filter((chunk) => chunk instanceof Uint8Array));
}

const int = (value: number): Attribute => ({ kind: 'int', value: BigInt(value) });
const float = (value: number): Attribute => ({ kind: 'float', value });

/** Adds nodes and tensors one after another. */
export class DecoderBuilder {
  readonly tensors: Placed[] = [];
  end = 0;
  readonly #graph = new Graph();
  readonly #source: ByteSource = { id: `layout:${sources++}`, size: Number.MAX_SAFE_INTEGER };
  readonly #constants = new Map<string, Value>();
  readonly #presents: Value[] = [];

  constructor(readonly spec: DecoderSpec) {}

  build(): Model {
    const { hidden, vocabulary, layers, form, dtype } = this.spec;
    const graph = this.#graph;
    graph.name = `decoder_${form}`;
    const ids = graph.addInput('input_ids', tensorType('int64', ['batch_size', 'sequence_length']));
    const table = this.weight('model.embed_tokens.weight', [vocabulary, hidden]);
    const mask = graph.addInput('attention_mask', tensorType('int64', ['batch_size', 'total_sequence_length']));
    let stream = this.op('Gather', [table, ids], '/model/embed_tokens/Gather');
    const attend = form === 'decomposed' ? this.#decomposedAttention(ids, mask) : this.#groupQueryAttention(mask);
    // With skip norms: the branch that has not been added yet.
    let branch: Value | null = null;
    const norm = (place: string): Value => {
      const gamma = this.weight(`model.${place.replaceAll('/', '.')}.weight`, [hidden]);
      if (branch === null) return this.#norm(stream, gamma, `/model/${place}`);
      if (form === 'skip') {
        const [normed, sum] = this.#skipNorm(stream, branch, gamma, `/model/${place}/SkipLayerNorm`);
        stream = sum;
        return normed;
      }
      stream = this.op('Add', [stream, branch], `/model/${place}/residual_Add`);
      return this.#norm(stream, gamma, `/model/${place}`);
    };
    for (const [i, layer] of layers.entries()) {
      const place = `layers.${i}`;
      if (layer.attention) branch = attend(norm(`${place}/input_layernorm`), i);
      branch = this.#ffn(norm(`${place}/post_attention_layernorm`), `${place}/mlp`, layer.width);
    }
    const head = norm(`layers.${layers.length}/final_norm_layernorm`);
    const logits = graph.addNode({
      opType: 'MatMul',
      name: '/lm_head/MatMul',
      inputs: [head, this.weight('lm_head.weight', [hidden, vocabulary])],
      outputs: [{ name: 'logits', type: tensorType(dtype, ['batch_size', 'sequence_length', vocabulary]) }],
    });
    for (const value of [logits.output(0) as Value, ...this.#presents]) graph.addOutput(value);
    const opsets = [{ domain: '', version: 17 }];
    if (form !== 'decomposed') opsets.push({ domain: 'com.microsoft', version: 1 });
    return new Model(10, opsets, graph);
  }

  weight(name: string, dims: readonly number[]): Value {
    const { dtype } = this.spec;
    const byteLength = byteSize(dtype, dims);
    const alignment = byteLength >= LARGE ? ALIGNMENT : 64;
    const offset = Math.ceil(this.end / alignment) * alignment;
    this.tensors.push({ name, offset, dims, byteLength });
    this.end = offset + byteLength;
    return this.#initializer(name, sourceWeight(this.#source, offset, dtype, dims));
  }

  #initializer(name: string, weight: Weight): Value {
    return this.#graph.addInitializer(name, new Tensor(name, weight.dtype, weight.dims, weight));
  }

  /** One initializer per distinct constant, as exporters fold them. */
  integers(values: readonly number[], dims: readonly number[] = [values.length]): Value {
    const bytes = new Uint8Array(new BigInt64Array(values.map(BigInt)).buffer);
    return this.#constant(`int_${values.join('_')}_${dims.length}`, inlineWeight(bytes, 'int64', dims));
  }
  number(value: number): Value {
    const bytes = new Uint8Array(new Float32Array([value]).buffer);
    return this.#constant(`float_${value}`, inlineWeight(bytes, 'float', []));
  }
  #constant(name: string, weight: Weight): Value {
    const known = this.#constants.get(name) ?? this.#initializer(`/model/constants/${name}`, weight);
    this.#constants.set(name, known);
    return known;
  }

  op(
    opType: string,
    inputs: readonly (Value | null)[],
    name: string,
    attributes: Readonly<Record<string, Attribute>> = {},
    domain = '',
  ): Value {
    const outputs = [`${name}/output_0`];
    return this.#graph.addNode({ opType, domain, name, inputs, outputs, attributes }).output(0) as Value;
  }

  #norm(input: Value, gamma: Value, place: string): Value {
    if (this.spec.form !== 'decomposed') {
      const attributes = { axis: int(-1), epsilon: float(1e-5), stash_type: int(1) };
      return this.op('SimplifiedLayerNormalization', [input, gamma], `${place}/LayerNorm`, attributes);
    }
    const square = this.op('Pow', [input, this.number(2)], `${place}/Pow`);
    const axes: Attribute = { kind: 'ints', value: [-1n] };
    const mean = this.op('ReduceMean', [square], `${place}/ReduceMean`, { axes });
    const sum = this.op('Add', [mean, this.number(1e-5)], `${place}/Add`);
    const normed = this.op('Div', [input, this.op('Sqrt', [sum], `${place}/Sqrt`)], `${place}/Div`);
    return this.op('Mul', [gamma, normed], `${place}/Mul`);
  }

  #skipNorm(stream: Value, branch: Value, gamma: Value, name: string): [Value, Value] {
    const node = this.#graph.addNode({
      opType: 'SkipSimplifiedLayerNormalization',
      domain: 'com.microsoft',
      name,
      inputs: [stream, branch, gamma],
      outputs: [`${name}/output_0`, null, null, `${name}/output_3`],
      attributes: { epsilon: float(1e-5) },
    });
    return [node.output(0) as Value, node.output(3) as Value];
  }

  project(input: Value, place: string, part: string, rows: number, columns: number): Value {
    const weight = this.weight(`model.${place.replaceAll('/', '.')}.${part}.weight`, [rows, columns]);
    return this.op('MatMul', [input, weight], `/model/${place}/${part}/MatMul`);
  }

  #ffn(input: Value, place: string, width: number): Value {
    const { hidden } = this.spec;
    const gate = this.project(input, place, 'gate_proj', hidden, width);
    const sigmoid = this.op('Sigmoid', [gate], `/model/${place}/act_fn/Sigmoid`);
    const active = this.op('Mul', [gate, sigmoid], `/model/${place}/act_fn/Mul`);
    const up = this.project(input, place, 'up_proj', hidden, width);
    const product = this.op('Mul', [active, up], `/model/${place}/Mul`);
    return this.project(product, place, 'down_proj', width, hidden);
  }

  /** The caches of layer `i` as they come in. */
  #past(i: number, part: 'key' | 'value'): Value {
    const { dtype, kvHeads, headSize } = this.spec;
    const shape: Dim[] = ['batch_size', kvHeads, 'past_sequence_length', headSize];
    return this.#graph.addInput(`past_key_values.${i}.${part}`, tensorType(dtype, shape));
  }
  #presentSpec(i: number, part: 'key' | 'value') {
    const { dtype, kvHeads, headSize } = this.spec;
    const shape: Dim[] = ['batch_size', kvHeads, 'total_sequence_length', headSize];
    return { name: `present.${i}.${part}`, type: tensorType(dtype, shape) };
  }

  /** As the onnxruntime-genai builder writes it. */
  #groupQueryAttention(mask: Value): (input: Value, i: number) => Value {
    const { hidden, heads, kvHeads, headSize } = this.spec;
    const place = '/model/attn_mask_reformat';
    const sum = this.op('ReduceSum', [mask, this.integers([1])], `${place}/ReduceSum`, { keepdims: int(0) });
    const last = this.op('Sub', [sum, this.integers([1])], `${place}/Sub`);
    const lengths = this.op('Cast', [last], `${place}/Cast`, { to: int(6) });
    const shape = this.op('Shape', [mask], `${place}/Shape`);
    const size = this.op('Gather', [shape, this.integers([1], [])], `${place}/Gather`, { axis: int(0) });
    const total = this.op('Cast', [size], `${place}/total/Cast`, { to: int(6) });
    const tables = ['cos', 'sin'].map((part) => this.weight(`${part}_cache`, [4096, headSize / 2]));
    return (input, i) => {
      const at = `layers.${i}/attn`;
      const q = this.project(input, at, 'q_proj', hidden, heads * headSize);
      const k = this.project(input, at, 'k_proj', hidden, kvHeads * headSize);
      const v = this.project(input, at, 'v_proj', hidden, kvHeads * headSize);
      const node = this.#graph.addNode({
        opType: 'GroupQueryAttention',
        domain: 'com.microsoft',
        name: `/model/${at}/GroupQueryAttention`,
        inputs: [q, k, v, this.#past(i, 'key'), this.#past(i, 'value'), lengths, total, ...tables],
        outputs: [`/model/${at}/output_0`, this.#presentSpec(i, 'key'), this.#presentSpec(i, 'value')],
        attributes: { num_heads: int(heads), kv_num_heads: int(kvHeads), do_rotary: int(1) },
      });
      this.#presents.push(node.output(1) as Value, node.output(2) as Value);
      return this.project(node.output(0) as Value, at, 'o_proj', heads * headSize, hidden);
    };
  }

  #decomposedAttention(ids: Value, mask: Value): (input: Value, i: number) => Value {
    const attention = new DecomposedAttention(this, ids, mask);
    return (input, i) => {
      const past = [this.#past(i, 'key'), this.#past(i, 'value')] as const;
      const made = attention.layer(input, i, past);
      for (const [value, part] of [
        [made.key, 'key'],
        [made.value, 'value'],
      ] as const) {
        const { name, type } = this.#presentSpec(i, part);
        const node = this.#graph.addNode({
          opType: 'Identity',
          name: `/${name}`,
          inputs: [value],
          outputs: [{ name, type }],
        });
        this.#presents.push(node.output(0) as Value);
      }
      return made.output;
    };
  }
}
