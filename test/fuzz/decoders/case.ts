/** Random decoders by number, what is counted of them, and how a failing one is made smaller. */
import { Random, seedOf } from '../random.js';
import { checkDecoder, type DecoderCase } from './check.js';
import { randomRequest } from './request.js';
import { type DecoderSpec, type FfnSpec, type LayerSpec, layerNumber, randomDecoder } from './spec.js';

/** Case `index`. */
export function decoderCase(run: number, index: number): DecoderCase {
  const random = new Random(seedOf(run, index));
  const spec = randomDecoder(random);
  return { spec, request: randomRequest(random, spec) };
}

/** Counts by what came out. Throws for a failure. */
export function runDecoder(found: DecoderCase): Record<string, number> {
  const { refused, fusedRuns, mergedAttentions, cutBranches, comparisons } = checkDecoder(found);
  if (refused !== null) return { refused: 1, [refused]: 1 };
  return {
    same: 1,
    'fused runs': fusedRuns,
    'merged attentions': mergedAttentions,
    'cut branches': cutBranches,
    comparisons,
  };
}

/** Simpler cases that may fail alike, the boldest first. */
export function* simplerDecoders({ spec, request }: DecoderCase): Generator<DecoderCase> {
  for (const i of spec.layers.keys()) {
    if (spec.layers.length > 1) yield withoutLayer({ spec, request }, i);
  }
  const nothing = {
    removeAttention: [],
    removeFfn: [],
    windows: [],
    runs: [],
    shard: null,
    gates: null,
    annotate: false,
    maxWidth: 0,
    lead: false,
    parallelOnly: false,
    norm: 'own',
    requantize: false,
    compact: false,
    caches: 'merged',
    blockForm: 'two-stage',
    keepLast: 0,
    fuse: false,
  } as const;
  for (const [name, value] of Object.entries(nothing)) {
    const simpler = { ...request, [name]: value };
    if (isOther(simpler, request)) yield { spec, request: simpler };
  }
  for (const name of ['removeAttention', 'removeFfn'] as const) {
    for (const number of request[name])
      yield { spec, request: { ...request, [name]: request[name].filter((each) => each !== number) } };
  }
  if (request.shard && request.shard.ranks > 2)
    yield { spec, request: { ...request, shard: { ...request.shard, ranks: 2 } } };
  const plain: Partial<DecoderSpec> = {
    positions: false,
    embeddingFactor: 1,
    finalNorm: false,
    headBias: false,
    copies: false,
    named: true,
    order: 'stream',
    residual: 'pre',
    coarse: true,
    opset: 21,
    norm: { kind: 'rms', form: 'operator', eps: 1e-5, beta: false, takesBias: false },
  };
  for (const [name, value] of Object.entries(plain)) {
    const simpler = { ...spec, [name]: value };
    if (isOther(simpler, spec)) yield { spec: simpler, request };
  }
  const attention = {
    packed: false,
    bias: false,
    outBias: false,
    cache: false,
    masked: false,
    rotary: 'none',
    form: 'decomposed',
    format: DENSE,
  } as const;
  for (const [name, value] of Object.entries(attention)) {
    const simpler = { ...spec.attention, [name]: value };
    if (isOther(simpler, spec.attention)) yield { spec: { ...spec, attention: simpler }, request };
  }
  const ffn: Partial<FfnSpec> = {
    activation: 'relu',
    bias: false,
    downBias: 'none',
    factor: 1,
    channels: 'none',
    form: 'matmul',
    gated: false,
    format: DENSE,
  };
  for (const [name, value] of Object.entries(ffn)) {
    const layers = spec.layers.map((layer) => ({ ...layer, ffn: layer.ffn && { ...layer.ffn, [name]: value } }));
    if (isOther(layers, spec.layers)) yield { spec: { ...spec, layers }, request };
  }
  for (const i of spec.layers.keys()) {
    for (const part of [{ attention: false }, { ffn: null }]) {
      const layers = spec.layers.map((layer, k): LayerSpec => (k === i ? { ...layer, ...part } : layer));
      if (isOther(layers, spec.layers)) yield { spec: { ...spec, layers }, request };
    }
  }
}

const DENSE = { kind: 'dense', behind: 'initializer' } as const;
const isOther = (a: unknown, b: unknown): boolean => JSON.stringify(a) !== JSON.stringify(b);

/** Layers keep their numbers in names; where names have none, those after it move up. */
function withoutLayer({ spec, request }: DecoderCase, i: number): DecoderCase {
  const gone = layerNumber(spec, i);
  const kept = (numbers: readonly number[]): number[] =>
    numbers.filter((n) => n !== gone).map((n) => (spec.named || n < gone ? n : n - 1));
  const lists = (all: readonly (readonly number[])[]): number[][] => all.map(kept).filter((list) => list.length > 1);
  // Weights keep their keys: shared ones stay shared, own ones have the number of their old place.
  const layers = spec.layers.filter((_, k) => k !== i).map((layer, k) => ({ ...layer, ...ownKeys(layer, k) }));
  return {
    spec: { ...spec, layers },
    request: {
      ...request,
      removeAttention: kept(request.removeAttention),
      removeFfn: kept(request.removeFfn),
      windows: lists(request.windows),
      runs: lists(request.runs),
    },
  };
}

function ownKeys({ weights, norms }: LayerSpec, place: number): Pick<LayerSpec, 'weights' | 'norms'> {
  return {
    weights: weights.startsWith('own') ? `own${place}` : weights,
    norms: norms.startsWith('own') ? `own${place}` : norms,
  };
}
