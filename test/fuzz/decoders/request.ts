/** What is asked of the passes for one decoder: a pipeline of all their options, ranks, gates. */
import type { Random } from '../random.js';
import { type DecoderSpec, type LayerSpec, layerNumber } from './spec.js';

export interface ShardRequest {
  readonly ranks: number;
  readonly style: 'ort' | 'trt' | 'none';
  readonly lmHead: 'gather' | 'replicate';
  readonly refuse: boolean;
  /** Layers that stay whole. */
  readonly replicateAttention: readonly number[];
  readonly replicateFfn: readonly number[];
}

/** Layer numbers are those that the names have. */
export interface FuzzRequest {
  readonly removeAttention: readonly number[];
  readonly removeFfn: readonly number[];
  readonly windows: readonly (readonly number[])[];
  readonly blockForm: 'two-stage' | 'literal';
  /** Exact runs; none: as the pass finds them. */
  readonly runs: readonly (readonly number[])[];
  readonly keepLast: number;
  /** 0 is no limit. */
  readonly maxWidth: number;
  readonly lead: boolean;
  /** Also FFNs that do not become one. */
  readonly parallelOnly: boolean;
  readonly norm: 'own' | 'last';
  /** False: only removals. */
  readonly fuse: boolean;
  readonly requantize: boolean;
  readonly caches: 'merged' | 'separate';
  readonly compact: boolean;
  /** Of the fused model, after everything else. */
  readonly shard: ShardRequest | null;
  /** Branches whose gate is closed, by place on the stream of the original; null: no gates. */
  readonly gates: readonly number[] | null;
  /** The sharding annotations of the original. */
  readonly annotate: boolean;
}

export function randomRequest(random: Random, spec: DecoderSpec): FuzzRequest {
  const numbers = spec.layers.map((_, i) => layerNumber(spec, i));
  const layerOf = (number: number): LayerSpec => spec.layers[numbers.indexOf(number)] as LayerSpec;
  const some = (probability: number): number[] => random.subset(numbers, probability);
  const stretch = (): number[] => {
    const [a, b] = [random.below(numbers.length), random.below(numbers.length)];
    return numbers.slice(Math.min(a, b), Math.max(a, b) + 1);
  };
  const removesAttention = random.chance(0.75);
  const removeAttention = (removesAttention ? (random.chance(0.5) ? stretch() : some(0.5)) : []).filter(
    (n) => layerOf(n).attention || random.chance(0.3),
  );
  const removeFfn = random.chance(0.2) ? some(0.25).filter((n) => layerOf(n).ffn || random.chance(0.3)) : [];
  const windows = random.chance(0.3) ? windowsIn(random, numbers) : [];
  const isFree = (n: number): boolean => !layerOf(n).attention || removeAttention.includes(n);
  const free = numbers.filter((n) => isFree(n) && layerOf(n).ffn && !removeFfn.includes(n));
  return {
    removeAttention,
    removeFfn,
    windows,
    blockForm: random.chance(0.3) ? 'literal' : 'two-stage',
    runs:
      random.chance(0.15) && free.length > 1 ? [neighbours(random, numbers, free)].filter((run) => run.length > 1) : [],
    keepLast: random.pick([0, 0, 0, 1, 2]),
    maxWidth: random.chance(0.15) ? random.pick([12, 16, 24, 48, 64]) : 0,
    lead: random.chance(0.25),
    parallelOnly: random.chance(0.15),
    norm: random.chance(0.15) ? 'last' : 'own',
    fuse: random.chance(0.9),
    requantize: random.chance(0.15),
    caches: random.chance(0.3) ? 'separate' : 'merged',
    compact: random.chance(0.2),
    shard: random.chance(0.35) ? randomShard(random, numbers) : null,
    gates: random.chance(0.1)
      ? random.subset(
          Array.from({ length: 2 * numbers.length }, (_, i) => i),
          0.3,
        )
      : null,
    annotate: random.chance(0.05),
  };
}

function windowsIn(random: Random, numbers: readonly number[]): number[][] {
  const windows: number[][] = [];
  for (let at = random.below(2); at + 1 < numbers.length; ) {
    const length = random.between(2, 4);
    windows.push(numbers.slice(at, at + length));
    at += length + random.below(3);
    if (random.chance(0.6)) break;
  }
  return windows.filter((window) => window.length > 1);
}

/** Layers one after another that are all `free`. */
function neighbours(random: Random, numbers: readonly number[], free: readonly number[]): number[] {
  const first = random.pick(free);
  const run = [first];
  for (let i = numbers.indexOf(first) + 1; free.includes(numbers[i] as number); i++) run.push(numbers[i] as number);
  return run.slice(0, random.between(2, 5));
}

function randomShard(random: Random, numbers: readonly number[]): ShardRequest {
  return {
    ranks: random.pick([2, 2, 3, 4]),
    style: random.pick(['ort', 'trt', 'none'] as const),
    lmHead: random.chance(0.7) ? 'gather' : 'replicate',
    refuse: random.chance(0.2),
    replicateAttention: random.chance(0.15) ? random.subset(numbers, 0.4) : [],
    replicateFfn: random.chance(0.15) ? random.subset(numbers, 0.4) : [],
  };
}

const list = (numbers: readonly number[]): string => numbers.join(',');
/** Runs: `2+3+5,7+8`. */
const runList = (runs: readonly (readonly number[])[]): string => runs.map((run) => run.join('+')).join(',');

/** The pipeline that the main command would make of it. */
export function pipelineOf(request: FuzzRequest): string {
  const { removeAttention, removeFfn, windows, runs } = request;
  const words = [
    `keep-last=${request.keepLast}`,
    ...(request.maxWidth > 0 ? [`max-width=${request.maxWidth}`] : []),
    ...(runs.length > 0 ? [`runs=${runList(runs)}`] : []),
    ...(request.lead ? ['lead=true'] : []),
    ...(request.parallelOnly ? ['parallel-only=true'] : []),
    ...(request.norm === 'last' ? ['norm=last'] : []),
  ];
  return [
    'inline-functions',
    ...(removeAttention.length > 0 ? [`remove-attention{layers=${list(removeAttention)}}`] : []),
    ...(removeFfn.length > 0 ? [`remove-ffn{layers=${list(removeFfn)}}`] : []),
    ...(windows.length > 0 ? [`parallelize-blocks{windows=${runList(windows)} form=${request.blockForm}}`] : []),
    ...(request.fuse
      ? [`parallelize-ffn{${words.join(' ')}}`, ...(request.requantize ? ['requantize-ffn'] : []), 'concat-ffn']
      : []),
    ...(windows.length > 0 ? [`concat-attention{caches=${request.caches}}`] : []),
    ...(request.compact ? ['rename-kv{naming=compact}'] : []),
    'drop-dead',
  ].join(',');
}

export function shardPipeline(shard: ShardRequest, rank: number): string {
  const words = [
    `ranks=${shard.ranks}`,
    `rank=${rank}`,
    `collectives=${shard.style}`,
    `lm-head=${shard.lmHead}`,
    ...(shard.refuse ? ['refuse=true'] : []),
    ...(shard.replicateAttention.length > 0 ? [`replicate-attention=${list(shard.replicateAttention)}`] : []),
    ...(shard.replicateFfn.length > 0 ? [`replicate-ffn=${list(shard.replicateFfn)}`] : []),
  ];
  return `inline-functions,shard-tensor-parallel{${words.join(' ')}}`;
}
