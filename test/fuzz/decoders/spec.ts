/**
 * What a random decoder is, as data: the graph is built from it (build.ts), and what it computes is computed from it
 * (semantics.ts). A case is such a description and what is asked of the passes.
 */
import type { Random } from '../random.js';

export const ACTIVATIONS = [
  'silu',
  'silu-operator',
  'gelu-operator',
  'gelu-erf',
  'gelu-tanh',
  'fast-gelu',
  'quick-gelu',
  'relu',
  'squared-relu',
  'leaky-relu',
  'elu',
  'tanh',
  'sigmoid',
  'softplus',
  'hard-swish',
  'clip',
  'silu-reversed',
] as const;
export type Activation = (typeof ACTIVATIONS)[number];

/** How a matrix is stored and multiplied by. */
export type Format =
  | { readonly kind: 'dense'; readonly behind: 'initializer' | 'constant' | 'transpose' | 'identity' | 'factor' }
  | {
      readonly kind: 'blocks';
      readonly bits: 4 | 8;
      readonly block: 16 | 32;
      readonly zeros: 'none' | 'packed' | 'float';
    }
  | { readonly kind: 'integers'; readonly scales: 'tensor' | 'column' | 'blocks'; readonly zeros: boolean };

export interface FfnSpec {
  readonly width: number;
  readonly gated: boolean;
  readonly activation: Activation;
  /** `gemm`: flattened, with transposed weights; `split`, `slice`: gate and up packed in one matrix. */
  readonly form: 'matmul' | 'gemm' | 'split' | 'slice';
  readonly format: Format;
  readonly bias: boolean;
  readonly downBias: 'none' | 'plain' | 'before-factor' | 'after-factor';
  /** Multiplies the result; 1 is no node. */
  readonly factor: number;
  /** A constant for every hidden channel, or one for the layer, after the activation. */
  readonly channels: 'none' | 'vector' | 'scalar';
}

export interface LayerSpec {
  /** Its number in names, which may have gaps. */
  readonly number: number;
  readonly attention: boolean;
  readonly ffn: FfnSpec | null;
  /** Whose matrices it has: equal keys share initializers. */
  readonly weights: string;
  /** Gamma (and beta) of its norms: equal keys are equal norms. */
  readonly norms: string;
}

export interface AttentionSpec {
  readonly form: 'group-query' | 'multi-head' | 'operator' | 'decomposed';
  readonly heads: number;
  readonly kvHeads: number;
  readonly size: number;
  readonly packed: boolean;
  readonly bias: boolean;
  readonly outBias: boolean;
  readonly cache: boolean;
  readonly rotary: 'none' | 'inside' | 'operator';
  /** A mask as a graph input, added to the scores. */
  readonly masked: boolean;
  readonly format: Format;
}

export interface DecoderSpec {
  readonly seed: number;
  readonly opset: 17 | 21 | 23;
  readonly hidden: number;
  readonly vocabulary: number;
  /** Weights have so few bits, and gammas are powers of two, that folding rounds nothing. */
  readonly coarse: boolean;
  readonly norm: {
    readonly kind: 'rms' | 'layer';
    readonly form: 'operator' | 'formula' | 'skip';
    readonly eps: number;
    readonly beta: boolean;
    /** Of `skip`: the operator adds the bias of the projection before it. */
    readonly takesBias: boolean;
  };
  /** `parallel-one-norm`: attention and FFN read one norm (GPT-J). */
  readonly residual: 'pre' | 'parallel' | 'parallel-one-norm' | 'sandwich' | 'post';
  /** Of the sum: stream first, branch first, or one Sum for all. */
  readonly order: 'stream' | 'branch' | 'sum';
  readonly attention: AttentionSpec;
  readonly layers: readonly LayerSpec[];
  readonly positions: boolean;
  readonly embeddingFactor: number;
  readonly finalNorm: boolean;
  readonly headBias: boolean;
  /** False: nothing in the file says which layer is which. */
  readonly named: boolean;
  /** Nodes that do nothing, here and there. */
  readonly copies: boolean;
}

const DENSE: Format = { kind: 'dense', behind: 'initializer' };

/** A random decoder. */
export function randomDecoder(random: Random): DecoderSpec {
  const opset = random.pick([17, 21, 23] as const);
  const format = randomFormat(random, opset);
  const isQuantised = format.kind !== 'dense';
  const hidden = isQuantised ? random.pick([16, 32]) : random.pick([4, 6, 8, 12, 16]);
  const skips = random.chance(0.3);
  const residual = skips
    ? 'pre'
    : random.weighted([
        ['pre', 6],
        ['parallel', 1],
        ['parallel-one-norm', 1],
        ['sandwich', 1],
        ['post', 1],
      ] as const);
  const kind = random.pick(['rms', 'layer'] as const);
  const base = randomFfn(random, format, isQuantised);
  const named = random.chance(0.8);
  const layers = randomLayers(random, base, isQuantised, named);
  return {
    seed: random.bits(),
    opset,
    hidden,
    vocabulary: random.pick([6, 8, 11, 12]),
    coarse: random.chance(0.7),
    norm: {
      kind,
      form: skips ? 'skip' : random.pick(['operator', 'operator', 'formula'] as const),
      eps: random.pick([1e-5, 1e-6]),
      beta: kind === 'layer' && random.chance(0.7),
      takesBias: skips && random.chance(0.3),
    },
    residual,
    order: random.pick(['stream', 'stream', 'branch', 'sum'] as const),
    attention: randomAttention(random, opset, hidden, isQuantised ? format : DENSE),
    layers,
    positions: random.chance(0.2),
    embeddingFactor: random.chance(0.2) ? 2 : 1,
    finalNorm: random.chance(0.9),
    headBias: random.chance(0.1),
    named,
    copies: random.chance(0.1),
  };
}

function randomFormat(random: Random, opset: number): Format {
  const kind = random.weighted([
    ['dense', 7],
    ['blocks', 3],
    ['integers', 1],
  ] as const);
  if (kind === 'dense') {
    return {
      kind,
      behind: random.weighted([
        ['initializer', 6],
        ['constant', 1],
        ['transpose', 1],
        ['identity', 1],
        ['factor', 1],
      ] as const),
    };
  }
  if (kind === 'integers') {
    return {
      kind,
      scales: random.pick(opset >= 21 ? ['tensor', 'column', 'blocks'] : ['tensor', 'column']),
      zeros: random.chance(0.4),
    };
  }
  return {
    kind,
    bits: random.pick([4, 4, 8] as const),
    block: random.pick([16, 16, 32] as const),
    zeros: random.pick(['none', 'packed', 'packed', 'float'] as const),
  };
}

function randomFfn(random: Random, format: Format, isQuantised: boolean): FfnSpec {
  const gated = random.chance(0.6);
  const form = random.weighted([
    ['matmul', 5],
    ['gemm', isQuantised ? 0 : 2],
    ['split', gated ? 1 : 0],
    ['slice', gated ? 1 : 0],
  ] as const);
  const factor = random.chance(0.2) ? random.pick([0.5, 0.25, 2]) : 1;
  return {
    width: 0,
    gated,
    activation: random.pick(ACTIVATIONS),
    form,
    format,
    bias: random.chance(0.3),
    downBias: random.chance(0.6)
      ? 'none'
      : factor === 1
        ? 'plain'
        : random.pick(['before-factor', 'after-factor'] as const),
    factor,
    channels: random.weighted([
      ['none', 8],
      ['vector', 1],
      ['scalar', 1],
    ] as const),
  };
}

/** Mostly alike, sometimes with one that differs, with gaps in the numbers, or without attention or FFN. */
function randomLayers(random: Random, base: FfnSpec, isQuantised: boolean, named: boolean): LayerSpec[] {
  const count = random.between(2, 7);
  const widths = isQuantised ? [16, 32, 32, 48, 24] : [4, 6, 8, 10];
  const width = random.pick(widths);
  const [sameWidth, isGapped, isNas] = [random.chance(0.6), random.chance(0.15), random.chance(0.2)];
  const [sharesTables, sharesNorms] = [random.chance(0.1), random.chance(0.1)];
  let number = isGapped ? random.below(3) : 0;
  return Array.from({ length: count }, (_, i): LayerSpec => {
    const own = { ...base, width: sameWidth ? width : random.pick(widths) };
    const odd = random.chance(0.06) ? { ...own, activation: random.pick(ACTIVATIONS) } : own;
    const layer = {
      number,
      attention: !(isNas && random.chance(0.4)),
      // Without names, an attention and the FFN after it are one layer, whatever they were.
      ffn: isNas && named && random.chance(0.25) ? null : odd,
      weights: sharesTables && sameWidth && random.chance(0.5) ? 'shared' : `own${i}`,
      norms: sharesNorms ? 'shared' : `own${i}`,
    };
    number += isGapped && random.chance(0.3) ? 2 : 1;
    return layer;
  });
}

function randomAttention(random: Random, opset: number, hidden: number, format: Format): AttentionSpec {
  const form = random.weighted([
    ['group-query', 3],
    ['multi-head', 2],
    ['operator', opset >= 23 ? 3 : 0],
    ['decomposed', 3],
  ] as const);
  const kvHeads = random.pick([1, 2, 2, 3]);
  const heads = form === 'multi-head' ? random.pick([2, 3, 4]) : kvHeads * random.pick([1, 2, 2]);
  const rotary =
    form === 'multi-head'
      ? 'none'
      : random.weighted([
          ['none', 3],
          ['operator', 1],
          ['inside', form === 'group-query' ? 1 : 0],
        ] as const);
  // What onnxruntime takes: whole blocks, and multiples of 8 for its own operator.
  const isWide = rotary === 'inside' || format.kind === 'blocks';
  const sizes = form === 'group-query' ? [8, 8, 16] : hidden >= 12 ? [2, 4, 8] : [2, 4];
  const size = isWide ? 16 : random.pick(sizes);
  return {
    form,
    heads,
    kvHeads: form === 'multi-head' ? heads : kvHeads,
    size,
    packed: form !== 'multi-head' && rotary !== 'operator' && random.chance(0.25),
    bias: random.chance(0.25),
    outBias: random.chance(0.2),
    cache: random.chance(0.75),
    rotary,
    masked: form === 'decomposed' && random.chance(0.5),
    format,
  };
}

/** The number by which options name layer `i`. */
export function layerNumber(spec: DecoderSpec, i: number): number {
  return spec.named ? (spec.layers[i] as LayerSpec).number : i;
}
