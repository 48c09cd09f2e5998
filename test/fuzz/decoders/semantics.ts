/**
 * What a decoder computes, from its description alone: no graph, no operator, plain loops over the numbers. The order of
 * sums is data (`Sum`), so that a plan is an edit of that list: leave a term out, let several read one input.
 */
import { SPELLED } from './activations.js';
import { rotaryTable } from './build-attention.js';
import { type DecoderSpec, type FfnSpec, type LayerSpec, layerNumber } from './spec.js';
import type { Weights } from './weights.js';

export interface Term {
  /** Place among the layers. */
  readonly layer: number;
  readonly role: 'attention' | 'ffn';
  /** Place of the layer whose norm it reads. */
  readonly normOf: number;
  /** It reads the stream plus its own layer's attention (parallel blocks in their literal form). */
  readonly afterAttention: boolean;
}

/** Terms that are added to the stream together; all read the stream as it was before. */
export interface Sum {
  readonly terms: readonly Term[];
  /** The norm that the stream itself passes afterwards, in post-norm networks. */
  readonly norm: string | null;
}

/** The sums of the decoder as it was made. */
export function sumsOf({ layers, residual }: DecoderSpec): Sum[] {
  const normOf = ({ norms }: LayerSpec, role: Term['role']): string | null =>
    residual === 'post' ? `${norms}.${role === 'ffn' ? 'output_layernorm' : 'attention_layernorm'}` : null;
  return layers.flatMap((spec, layer): Sum[] => {
    const term = (role: Term['role']): Term => ({ layer, role, normOf: layer, afterAttention: false });
    const terms = [...(spec.attention ? [term('attention')] : []), ...(spec.ffn ? [term('ffn')] : [])];
    if (residual === 'parallel' || residual === 'parallel-one-norm')
      return terms.length > 0 ? [{ terms, norm: null }] : [];
    return terms.map((each) => ({ terms: [each], norm: normOf(spec, each.role) }));
  });
}

/** What goes in: token ids, [batch][tokens], and caches of so many positions, by layer number. */
export interface Question {
  readonly ids: readonly (readonly number[])[];
  readonly past: number;
  /** Elements of a cache [batch, heads, past, size]. */
  readonly cache: (number: number, part: 'key' | 'value') => Float64Array;
  /** What is added to the scores, [batch, 1, tokens, total]. */
  readonly mask: Float64Array;
}

export interface Answer {
  /** [batch, tokens, vocabulary]. */
  readonly logits: Float64Array;
  /** [batch, heads, total, size] by `layer number.key` and `layer number.value`, of the attentions that are left. */
  readonly presents: ReadonlyMap<string, Float64Array>;
}

type Rows = Float64Array<ArrayBuffer>;

/** What the decoder with these sums gives. */
export function answer(spec: DecoderSpec, weights: Weights, sums: readonly Sum[], question: Question): Answer {
  return new Decoder(spec, weights, question).run(sums);
}

class Decoder {
  readonly count: number;
  readonly tokens: number;
  readonly presents = new Map<string, Float64Array>();

  constructor(
    readonly spec: DecoderSpec,
    readonly weights: Weights,
    readonly question: Question,
  ) {
    this.tokens = (question.ids[0] as readonly number[]).length;
    this.count = question.ids.length * this.tokens;
  }

  run(sums: readonly Sum[]): Answer {
    const { spec, weights, question, count, tokens } = this;
    const { hidden, vocabulary } = spec;
    const table = weights.matrix('embed', vocabulary, hidden, 2);
    const places = weights.matrix('positions', 16, hidden);
    let stream = new Float64Array(count * hidden);
    for (let row = 0; row < count; row++) {
      const id = question.ids[Math.floor(row / tokens)]?.[row % tokens] as number;
      for (let i = 0; i < hidden; i++) {
        const place = spec.positions ? (places[(question.past + (row % tokens)) * hidden + i] as number) : 0;
        stream[row * hidden + i] = ((table[id * hidden + i] as number) + place) * spec.embeddingFactor;
      }
    }
    for (const { terms, norm } of sums) {
      const results = terms.map((term) => this.#term(term, terms, stream));
      stream = stream.map((value, i) => results.reduce((total, result) => total + (result[i] as number), value));
      if (norm !== null) stream = this.#norm(stream, norm);
    }
    if (spec.finalNorm) stream = this.#norm(stream, 'final');
    const logits = this.#product(stream, weights.matrix('head', hidden, vocabulary), hidden, vocabulary);
    const bias = weights.shift('head.bias', vocabulary);
    return {
      logits: spec.headBias ? logits.map((x, i) => x + (bias[i % vocabulary] as number)) : logits,
      presents: this.presents,
    };
  }

  #term({ layer, role, normOf, afterAttention }: Term, sum: readonly Term[], stream: Rows): Rows {
    const { residual } = this.spec;
    const own = this.spec.layers[layer] as LayerSpec;
    let input = stream;
    if (afterAttention) {
      const attention = sum.find((each) => each.layer === layer && each.role === 'attention') as Term;
      const result = this.#term(attention, sum, stream);
      input = stream.map((value, i) => value + (result[i] as number));
    }
    const { norms } = this.spec.layers[normOf] as LayerSpec;
    const isShared = residual === 'parallel-one-norm' || role === 'attention';
    if (residual !== 'post')
      input = this.#norm(input, `${norms}.${isShared ? 'input_layernorm' : 'post_attention_layernorm'}`);
    const result =
      role === 'ffn' ? this.#ffn(input, own.ffn as FfnSpec, own.weights) : this.#attention(input, layer, own.weights);
    if (residual !== 'sandwich') return result;
    return this.#norm(result, `${own.norms}.${role === 'ffn' ? 'ffn_out_layernorm' : 'attention_out_layernorm'}`);
  }

  #norm(x: Rows, key: string): Rows {
    const { hidden, norm } = this.spec;
    const gamma = this.weights.gamma(`${key}.gamma`, hidden);
    const beta = norm.beta ? this.weights.shift(`${key}.beta`, hidden) : null;
    const eps = Math.fround(norm.eps);
    const result = new Float64Array(x.length);
    for (let row = 0; row < x.length; row += hidden) {
      let [mean, square] = [0, 0];
      if (norm.kind === 'layer') for (let i = 0; i < hidden; i++) mean += (x[row + i] as number) / hidden;
      for (let i = 0; i < hidden; i++) square += ((x[row + i] as number) - mean) ** 2 / hidden;
      for (let i = 0; i < hidden; i++) {
        const normed = ((x[row + i] as number) - mean) / Math.sqrt(square + eps);
        result[row + i] = normed * (gamma[i] as number) + (beta ? (beta[i] as number) : 0);
      }
    }
    return result;
  }

  #product(x: Rows, matrix: Float64Array, rows: number, columns: number): Rows {
    const count = x.length / rows;
    const result = new Float64Array(count * columns);
    for (let r = 0; r < count; r++) {
      for (let k = 0; k < rows; k++) {
        const factor = x[r * rows + k] as number;
        for (let c = 0; c < columns; c++) {
          result[r * columns + c] = (result[r * columns + c] as number) + factor * (matrix[k * columns + c] as number);
        }
      }
    }
    return result;
  }

  #linear(x: Rows, key: string, rows: number, columns: number, format: FfnSpec['format'], hasBias: boolean): Rows {
    const matrix =
      format.kind === 'dense'
        ? this.weights.matrix(key, rows, columns)
        : this.weights.quantised(key, rows, columns, format).dense;
    const result = this.#product(x, matrix, rows, columns);
    if (!hasBias) return result;
    const bias = this.weights.shift(`${key}.bias`, columns);
    return result.map((value, i) => value + (bias[i % columns] as number));
  }

  #ffn(x: Rows, ffn: FfnSpec, own: string): Rows {
    const { hidden } = this.spec;
    const { width, gated, format, bias } = ffn;
    const isPacked = gated && (ffn.form === 'split' || ffn.form === 'slice');
    const input = (part: string, columns: number): Rows =>
      this.#linear(x, `${own}.${part}`, hidden, columns, format, bias);
    const packed = isPacked ? input('gate_up', 2 * width) : null;
    const half = (k: number): Rows =>
      Float64Array.from(
        { length: (x.length / hidden) * width },
        (_, i) => (packed as Rows)[Math.floor(i / width) * 2 * width + k * width + (i % width)] as number,
      );
    const gate = packed ? half(0) : input(gated ? 'gate' : 'up', width);
    const up = !gated ? null : packed ? half(1) : input('up', width);
    const { at } = SPELLED[ffn.activation];
    const vector = this.weights.gamma(`${own}.channels`, width);
    const scalar = this.weights.scalar(`${own}.scalar`);
    const inner = gate.map((value, i) => {
      const factor = ffn.channels === 'vector' ? (vector[i % width] as number) : ffn.channels === 'scalar' ? scalar : 1;
      return at(value) * factor * (up ? (up[i] as number) : 1);
    });
    const early = ffn.downBias === 'plain' || ffn.downBias === 'before-factor';
    const down = this.#linear(inner, `${own}.down`, width, hidden, format, early).map((value) => value * ffn.factor);
    if (ffn.downBias !== 'after-factor') return down;
    const late = this.weights.shift(`${own}.late.bias`, hidden);
    return down.map((value, i) => value + (late[i % hidden] as number));
  }

  #attention(x: Rows, layer: number, own: string): Rows {
    const { spec, question, tokens, count } = this;
    const { hidden, attention } = spec;
    const { heads, kvHeads, size, format, bias } = attention;
    const widths = [heads * size, kvHeads * size, kvHeads * size];
    const whole = widths.reduce((sum, width) => sum + width, 0);
    const packed = attention.packed ? this.#linear(x, `${own}.qkv`, hidden, whole, format, bias) : null;
    const [query, key, value] = ['q', 'k', 'v'].map((part, i) => {
      const width = widths[i] as number;
      if (!packed) return this.#linear(x, `${own}.${part}`, hidden, width, format, bias);
      const start = widths.slice(0, i).reduce((sum, each) => sum + each, 0);
      return Float64Array.from(
        { length: count * width },
        (_, k) => packed[Math.floor(k / width) * whole + start + (k % width)] as number,
      );
    }) as [Rows, Rows, Rows];
    if (attention.rotary !== 'none')
      for (const [rows, n] of [
        [query, heads],
        [key, kvHeads],
      ] as const)
        this.#rotate(rows, n);
    const past = attention.cache ? question.past : 0;
    const total = past + tokens;
    const number = layerNumber(spec, layer);
    const batch = question.ids.length;
    const [keys, values] = (['key', 'value'] as const).map((part) => {
      const before = attention.cache ? question.cache(number, part) : new Float64Array(0);
      const fresh = part === 'key' ? key : value;
      const present = Float64Array.from({ length: batch * kvHeads * total * size }, (_, i) => {
        const [d, t] = [i % size, Math.floor(i / size) % total];
        const [h, b] = [Math.floor(i / (size * total)) % kvHeads, Math.floor(i / (size * total * kvHeads))];
        if (t < past) return before[((b * kvHeads + h) * past + t) * size + d] as number;
        return fresh[(b * tokens + t - past) * kvHeads * size + h * size + d] as number;
      });
      if (attention.cache) this.presents.set(`${number}.${part}`, present);
      return present;
    }) as [Rows, Rows];
    const scale = attention.form === 'decomposed' ? 1 / Math.fround(Math.sqrt(size)) : 1 / Math.sqrt(size);
    const mixed = new Float64Array(count * heads * size);
    for (let row = 0; row < count; row++) {
      const [b, t] = [Math.floor(row / tokens), row % tokens];
      for (let h = 0; h < heads; h++) {
        const from = (b * kvHeads + Math.floor((h * kvHeads) / heads)) * total;
        const last = attention.form === 'decomposed' ? total - 1 : past + t;
        const weights: number[] = [];
        for (let j = 0; j <= last; j++) {
          let score = 0;
          for (let d = 0; d < size; d++)
            score += (query[row * heads * size + h * size + d] as number) * (keys[(from + j) * size + d] as number);
          weights.push(
            score * scale + (attention.masked ? (question.mask[(b * tokens + t) * total + j] as number) : 0),
          );
        }
        const most = Math.max(...weights);
        const powers = weights.map((score) => Math.exp(score - most));
        const sum = powers.reduce((a, c) => a + c, 0);
        for (let d = 0; d < size; d++) {
          let mix = 0;
          for (const [j, power] of powers.entries()) mix += (power / sum) * (values[(from + j) * size + d] as number);
          mixed[row * heads * size + h * size + d] = mix;
        }
      }
    }
    return this.#linear(mixed, `${own}.o`, heads * size, hidden, format, attention.outBias);
  }

  /** Rotates the halves of every head by its position, in place. */
  #rotate(rows: Rows, heads: number): void {
    const { size } = this.spec.attention;
    const half = size / 2;
    const [cos, sin] = [rotaryTable('cos', size), rotaryTable('sin', size)];
    for (let at = 0; at < rows.length; at += size) {
      const row = Math.floor(at / (heads * size));
      const position = this.question.past + (row % this.tokens);
      for (let k = 0; k < half; k++) {
        const [a, b] = [rows[at + k] as number, rows[at + half + k] as number];
        const [c, s] = [cos[position * half + k] as number, sin[position * half + k] as number];
        rows[at + k] = a * c - b * s;
        rows[at + half + k] = b * c + a * s;
      }
    }
  }
}
