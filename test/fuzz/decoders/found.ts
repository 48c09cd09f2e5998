/** Decoders that came out wrong once, as small as they could be made. Each fails without what was mended for it. */
import type { DecoderCase } from './check.js';
import type { FuzzRequest } from './request.js';
import type { AttentionSpec, DecoderSpec, FfnSpec, LayerSpec } from './spec.js';

export interface FoundCase extends DecoderCase {
  readonly name: string;
}

const ATTENTION: AttentionSpec = {
  form: 'decomposed',
  heads: 2,
  kvHeads: 2,
  size: 2,
  packed: false,
  bias: false,
  outBias: false,
  cache: false,
  rotary: 'none',
  masked: false,
  format: { kind: 'dense', behind: 'initializer' },
};
const FFN: FfnSpec = {
  width: 6,
  gated: false,
  activation: 'relu',
  form: 'matmul',
  format: { kind: 'dense', behind: 'initializer' },
  bias: false,
  downBias: 'none',
  factor: 1,
  channels: 'none',
};
const SPEC: DecoderSpec = {
  seed: 1,
  opset: 21,
  hidden: 8,
  vocabulary: 6,
  coarse: true,
  norm: { kind: 'rms', form: 'operator', eps: 1e-5, beta: false, takesBias: false },
  residual: 'pre',
  order: 'stream',
  attention: ATTENTION,
  layers: [],
  positions: false,
  embeddingFactor: 1,
  finalNorm: true,
  headBias: false,
  named: true,
  copies: false,
};
const REQUEST: FuzzRequest = {
  removeAttention: [],
  removeFfn: [],
  windows: [],
  blockForm: 'two-stage',
  runs: [],
  keepLast: 0,
  maxWidth: 0,
  lead: false,
  parallelOnly: false,
  norm: 'own',
  fuse: true,
  requantize: false,
  caches: 'merged',
  compact: false,
  shard: null,
  gates: null,
  annotate: false,
};

/** `count` layers that are alike. */
function layers(count: number, ffn: Partial<FfnSpec> = {}, attention = true): LayerSpec[] {
  return Array.from({ length: count }, (_, number) => {
    const own = `own${number}`;
    return { number, attention, ffn: { ...FFN, ...ffn }, weights: own, norms: own };
  });
}

/** The plain decoder with these differences, and the plain request with those. */
function found(name: string, spec: Partial<DecoderSpec>, request: Partial<FuzzRequest>): FoundCase {
  return { name, spec: { ...SPEC, ...spec }, request: { ...REQUEST, ...request } };
}

const EIGHT_BITS = { kind: 'blocks', bits: 8, block: 32, zeros: 'none' } as const;
const INTEGERS = { kind: 'integers', scales: 'blocks', zeros: false } as const;
const SHARD = {
  ranks: 2,
  style: 'none',
  lmHead: 'gather',
  refuse: false,
  replicateAttention: [],
  replicateFfn: [],
} as const;

export const FOUND: readonly FoundCase[] = [
  // shard-tensor-parallel added up the attentions of two blocks, of which one was read by the FFN of its block, too.
  found(
    'blocks side by side whose FFN cannot be cut',
    { attention: { ...SPEC.attention, heads: 3, kvHeads: 3, size: 2 }, layers: layers(2, { width: 4 }) },
    { windows: [[0, 1]], blockForm: 'literal', shard: { ...SHARD, ranks: 3 } },
  ),
  // shard-tensor-parallel put partial sums of two and of three dimensions side by side for one all-reduce.
  found(
    'an attention on one sum with an FFN between Reshapes',
    { residual: 'parallel-one-norm', layers: layers(1, { form: 'gemm' }) },
    { shard: SHARD },
  ),
  // concat-ffn looked for the readers of half a projection after it had been replaced.
  found(
    'halves of packed projections that are padded, each with a norm of its own',
    { hidden: 32, layers: layers(2, { gated: true, form: 'slice', width: 24, format: EIGHT_BITS }, false) },
    {},
  ),
  // shard-tensor-parallel: rank 1 could not be filled up and stayed whole, rank 0 was cut and waited for it.
  found(
    'a width of which only the last rank would be filled up',
    { hidden: 32, layers: layers(1, { width: 48, format: INTEGERS }, false) },
    { shard: SHARD },
  ),
  // parallelize-ffn took one of two FFNs on one sum into a run, and the other went on to read the sum before it.
  found('a window of two FFNs behind an FFN', { layers: layers(3) }, { removeAttention: [0, 1, 2], windows: [[1, 2]] }),
  // parallelize-blocks left the norm of the first FFN at the window's input where it was a skip norm.
  found(
    'a window that begins with an FFN behind a skip norm',
    { layers: layers(3), norm: { ...SPEC.norm, form: 'skip' } },
    { removeAttention: [1], windows: [[1, 2]] },
  ),
  // concat-ffn did not read a packed projection with an Identity between it, its bias and its Split.
  found(
    'packed projections that are copied before they are cut',
    { layers: layers(2, { gated: true, form: 'split' }, false), copies: true },
    {},
  ),
  found(
    'packed projections that are copied before their biases',
    { layers: layers(2, { gated: true, form: 'split', bias: true }, false), copies: true },
    {},
  ),
];
