/**
 * What a token costs: the bytes of weights over the bandwidth, plus a cost per sub-block (an attention or an FFN on the residual
 * stream, with its kernel launches and, in tensor parallel, its all-reduce). method.md, section 3; a prediction, never a
 * measurement. It ranks plans; `bench` measures them.
 */
import type { Model, Value } from '../../ir/core.js';
import { errors } from '../../ir/diagnostic.js';
import { branchesOf, layersOf, plainDecoder } from '../../passes/index.js';
import { tensorsOf } from '../session/memory.js';

/** Where the tokens are computed. */
export interface Device {
  readonly name: string;
  /** Where the constants come from. */
  readonly source: string;
  readonly ranks: number;
  /** Of each rank. */
  readonly bytesPerSecond: number;
  /** The all-reduce included, where there are ranks. */
  readonly secondsPerSubBlock: number;
}

/** What one token of one sequence needs. */
export interface TokenWork {
  /** Bytes of weights that are read: a table in which rows are looked up is not. */
  readonly weightBytes: number;
  /** Attentions and FFNs on the residual stream. */
  readonly subBlocks: number;
}

/** Predicted latency of a decoded token at batch 1, in seconds. */
export function predictSecondsPerToken({ weightBytes, subBlocks }: TokenWork, device: Device): number {
  return weightBytes / (device.bytesPerSecond * device.ranks) + subBlocks * device.secondsPerSubBlock;
}

/** Reads the work off a model. An FFN that others were fused into is one sub-block. */
export function workOf(given: Model): TokenWork {
  const model = plainDecoder(given, 'token');
  // By weight and not by name: a tied table is looked up under one name and multiplied with under another.
  const isRead = new Map<string, boolean>();
  for (const { initializer, uses } of model.graph.initializers) {
    const key = initializer?.weight?.key;
    const isLookedUp = uses.length > 0 && uses.every(({ node, index }) => /^Gather/.test(node.opType) && index === 0);
    if (key !== undefined) isRead.set(key, isRead.get(key) === true || !isLookedUp);
  }
  const seen = new Set<string>();
  let weightBytes = 0;
  for (const { weight } of tensorsOf(model)) {
    if (!weight || seen.has(weight.key)) continue;
    seen.add(weight.key);
    if (isRead.get(weight.key) !== false) weightBytes += weight.byteLength;
  }
  const branches = new Set<Value>();
  for (const layer of layersOf(model).layers) for (const branch of branchesOf(layer)) branches.add(branch.output);
  return { weightBytes, subBlocks: branches.size };
}

const H100_BYTES_PER_SECOND = 3.35e12;

/**
 * FFN Fusion (arXiv 2503.18908), TP 8 on 8 H100, one user: tokens per second, parameters and sub-blocks before and after the
 * fusion, and of the parent. One byte a parameter: the paper runs FP8 (at two bytes, reading the weights alone would take
 * longer than the token took).
 */
export const PUBLISHED = {
  parent: { tokensPerSecond: 41.44, parameters: 405.85e9, subBlocks: 252 },
  beforeFusion: { tokensPerSecond: 63.38, parameters: 253.4e9, subBlocks: 190 },
  fused: { tokensPerSecond: 70.92, parameters: 253.4e9, subBlocks: 145 },
} as const;

/** The cost per sub-block that explains a published row. */
function fitted(ranks: number, bytesPerSecond: number): number {
  const { tokensPerSecond, parameters, subBlocks } = PUBLISHED.beforeFusion;
  return (1 / tokensPerSecond - parameters / (ranks * bytesPerSecond)) / subBlocks;
}

const NAMED: ReadonlyMap<string, () => Device> = new Map(
  Object.entries<() => Device>({
    h100x8: () => ({
      name: 'h100x8',
      source:
        '3.35 TB/s a GPU; the cost per sub-block fitted on the pre-fusion row of arXiv 2503.18908 (63.38 tokens/s)',
      ranks: 8,
      bytesPerSecond: H100_BYTES_PER_SECOND,
      secondsPerSubBlock: fitted(8, H100_BYTES_PER_SECOND),
    }),
  }),
);

/** Names that `namedDevice` knows. */
export const DEVICE_NAMES: readonly string[] = [...NAMED.keys()];

/** A device by name. Throws OF_USAGE. */
export function namedDevice(name: string): Device {
  const make = NAMED.get(name);
  if (!make)
    throw errors.usage(
      'option device',
      `there is no device '${name}'`,
      `choose of ${DEVICE_NAMES.join(', ')}, or give a file`,
    );
  return make();
}

/** Reads a device from JSON: `{ name, source?, ranks, bytesPerSecond, secondsPerSubBlock }`. Throws OF_USAGE. */
export function parseDevice(text: string, place: string): Device {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw errors.usage(place, 'it is no JSON', 'write { "name", "ranks", "bytesPerSecond", "secondsPerSubBlock" }');
  }
  const fields = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const number = (key: string, least: number): number => {
    const found = fields[key];
    if (typeof found === 'number' && Number.isFinite(found) && found >= least) return found;
    throw errors.usage(place, `'${key}' is ${JSON.stringify(found)}`, `write a number of at least ${least}`);
  };
  return {
    name: typeof fields['name'] === 'string' ? fields['name'] : place,
    source: typeof fields['source'] === 'string' ? fields['source'] : place,
    ranks: number('ranks', 1),
    bytesPerSecond: number('bytesPerSecond', 1),
    secondsPerSubBlock: number('secondsPerSubBlock', 0),
  };
}
