/** Input values for a run: tokens, masks, positions, lengths and caches that agree with one another. */

import { type Dim, elementCount } from '../../ir/type.js';
import { counted } from '../../ir/visible.js';
import { runtimeErrors } from '../session/errors.js';
import { allocate, fillTensor, type HostTensor, isHostType, type TensorMap } from '../session/tensor.js';
import type { CachePort } from '../signature/cache-ports.js';
import type { InputInfo } from '../signature/roles.js';
import { type Signature, sequenceAxis } from '../signature/signature.js';
import { hashOf, mix, normal, randomTokens } from './random.js';
import { checkRoom, checkTokens } from './room.js';

/** What inputs are made for. */
export interface FeedRequest {
  /** Rows; 1 by default. */
  readonly batch?: number;
  /** New tokens per row, made from `seed` within the vocabulary... */
  readonly tokens?: number;
  /** ...or given, [batch][tokens]. */
  readonly tokenIds?: readonly (readonly number[])[];
  /** Outputs of the run before, whose caches are continued; absent: empty caches. */
  readonly past?: TensorMap;
  /** Positions before the new tokens; by default what the caches in `past` hold. */
  readonly pastLength?: number;
  /** How many of the last new tokens are padding that must not be attended (only models of fixed length need it). */
  readonly padding?: number;
  /** Seed of everything pseudo-random; 1 by default. */
  readonly seed?: number;
}

/** Inputs of one run, and those whose values are only assumed. */
export interface Feeds {
  readonly tensors: Map<string, HostTensor>;
  readonly tokenIds: readonly (readonly number[])[];
  readonly pastLength: number;
  /** Inputs whose purpose is not known and that got arbitrary values. */
  readonly assumed: readonly string[];
}

/** The lowest score a mask adds: finite, because sums of infinities are not numbers. */
const LOWEST = { float16: -65504, float: -3.4028234663852886e38, double: -3.4028234663852886e38 };

/** Ids for models whose vocabulary is not known. */
const SAFE_VOCABULARY = 32;

interface Sizes {
  readonly batch: number;
  readonly fresh: number;
  readonly past: number;
  readonly total: number;
  /** Positions of the total that exist (without padding). */
  readonly valid: number;
  readonly seed: number;
  /** Whether the past is made up: the model fixes its length. */
  readonly made: boolean;
  readonly tokenIds: readonly (readonly number[])[];
}

/**
 * Feeds for one run. Static dimensions of the model are honoured.
 * @throws Diagnostic OF_CANNOT_FEED naming the input for which no sensible value exists.
 */
export function makeFeeds(signature: Signature, request: FeedRequest = {}): Feeds {
  const seed = request.seed ?? 1;
  const batch = request.tokenIds?.length ?? request.batch ?? signature.batch ?? 1;
  const count = request.tokenIds?.[0]?.length ?? request.tokens ?? signature.sequence ?? 8;
  checkTokens(signature, signature.batch ?? 1, signature.sequence ?? 1);
  const tokenIds = request.tokenIds ?? randomTokens(seed, batch, count, signature.vocabulary ?? SAFE_VOCABULARY);
  const fresh = tokenIds[0]?.length ?? 0;
  const past = signature.past ?? request.pastLength ?? pastLengthOf(signature, request.past);
  checkFixed(signature, batch, fresh);
  const total = past + fresh;
  const sizes: Sizes = {
    batch,
    fresh,
    past,
    total,
    valid: total - (request.padding ?? 0),
    seed,
    made: (signature.past ?? 0) > 0,
    tokenIds,
  };
  const ports = new Map(signature.caches.map((port) => [port.input, port]));
  const tensors = new Map<string, HostTensor>();
  const assumed: string[] = [];
  const wanted: { input: InputInfo; dims: readonly number[] }[] = [];
  for (const input of signature.inputs) {
    if (!isHostType(input.dtype))
      throw runtimeErrors.cannotFeed(input.name, `its type ${input.dtype} cannot be passed from Node`);
    const port = ports.get(input.name);
    if (input.role === 'float' || input.role === 'index') assumed.push(input.name);
    const previous = port && cacheOf(input, port, request.past);
    if (previous) tensors.set(input.name, previous);
    else wanted.push({ input, dims: port ? cacheDims(input, port, sizes) : dimsOf(signature, input, sizes) });
  }
  // A past that the model itself fixes is no wish of the caller.
  checkRoom(signature, wanted, batch * (total - (signature.past ?? 0)));
  for (const { input, dims } of wanted) {
    const isCache = ports.has(input.name);
    tensors.set(input.name, isCache ? cacheTensor(input, dims, sizes) : tensorFor(signature, input, dims, sizes));
  }
  return { tensors, tokenIds, pastLength: past, assumed };
}

function checkFixed(signature: Signature, batch: number, fresh: number): void {
  const { driver, batch: fixed, sequence } = signature;
  if (!driver) return;
  if (fixed !== null && fixed !== batch)
    throw runtimeErrors.cannotFeed(driver.name, `its batch is fixed at ${fixed}, not ${batch}`);
  if (sequence !== null && sequence !== fresh) {
    throw runtimeErrors.cannotFeed(driver.name, `it takes ${counted(sequence, 'token')} at a time, not ${fresh}`);
  }
}

/** Positions that the caches of a finished run hold. A window may hold fewer than the sequence has, so the longest counts. */
function pastLengthOf(signature: Signature, past: TensorMap | undefined): number {
  if (!past) return 0;
  let length = 0;
  for (const { output, sequenceAxis: axis, capacity } of signature.caches) {
    if (output === null || axis === null || capacity !== null) continue;
    length = Math.max(length, past.get(output)?.dims[axis] ?? 0);
  }
  return length;
}

/** The cache that the run before left; undefined when it starts here. */
function cacheOf(input: InputInfo, port: CachePort, past: TensorMap | undefined): HostTensor | undefined {
  if (port.output === null || port.fixedPast !== null) return undefined;
  const previous = past?.get(port.output);
  if (past && !previous) throw runtimeErrors.cannotFeed(input.name, `the run before gave no '${port.output}'`);
  return previous;
}

function cacheDims(input: InputInfo, port: CachePort, sizes: Sizes): number[] {
  if (port.capacity !== null && !port.rolling && port.capacity < sizes.total) {
    throw runtimeErrors.cannotFeed(
      input.name,
      `the cache holds ${counted(port.capacity, 'position')}, ${sizes.total} are needed`,
    );
  }
  return port.dims.map((dim, axis) => {
    if (axis === port.batchAxis) return dim ?? sizes.batch;
    if (axis === port.sequenceAxis) return port.fixedPast ?? port.capacity ?? 0;
    if (dim !== null) return dim;
    throw runtimeErrors.cannotFeed(
      input.name,
      `nothing tells the size of its dimension ${axis} (${port.shape[axis] ?? 'unnamed'})`,
    );
  });
}

/** An empty cache; one that must have a past gets a made-up one, so that what reads it has something to read. */
function cacheTensor(input: InputInfo, dims: readonly number[], sizes: Sizes): HostTensor {
  const isFloat = input.dtype in LOWEST;
  if (sizes.made && isFloat)
    return fillTensor(input.dtype, dims, (i) => normal(mix(sizes.seed, hashOf(input.name)), i));
  return { dtype: input.dtype, dims, data: allocate(input.dtype, elementCount(dims)) };
}

function tensorFor(signature: Signature, input: InputInfo, dims: readonly number[], sizes: Sizes): HostTensor {
  const last = dims[dims.length - 1] ?? 1;
  const fill = (value: (index: number) => number) => fillTensor(input.dtype, dims, value);
  const isFloat = input.dtype in LOWEST;
  switch (input.role) {
    case 'tokens':
      return fill((i) => sizes.tokenIds[Math.floor(i / last) % sizes.batch]?.[i % last] ?? 0);
    case 'embeddings':
      // The same token gets the same vector everywhere, so that a step with a cache can be held against a full run.
      return fill((i) => {
        const place = Math.floor(i / last);
        const token = sizes.tokenIds[Math.floor(place / sizes.fresh)]?.[place % sizes.fresh] ?? 0;
        return normal(mix(mix(sizes.seed, hashOf(input.name)), token), i % last);
      });
    case 'mask':
      return fill((i) => (i % last < (last < sizes.valid ? last : sizes.valid) ? 1 : 0));
    case 'bias': {
      const rows = dims[dims.length - 2] ?? 1;
      const lowest = LOWEST[input.dtype as keyof typeof LOWEST];
      return fill((i) => {
        const query = Math.floor(i / last) % rows;
        const seen = i % last <= sizes.past + query && i % last < sizes.valid;
        return isFloat ? (seen ? 0 : lowest) : seen ? 1 : 0;
      });
    }
    case 'positions':
      return fill((i) => sizes.past + (i % last));
    case 'use-cache':
      return fill(() => (sizes.past > 0 ? 1 : 0));
    case 'past-length':
      return fill(() => sizes.past);
    case 'new-length':
      return fill(() => sizes.fresh);
    case 'total-length':
      return fill(() => sizes.valid);
    case 'last-index':
      return fill(() => sizes.valid - 1);
    case 'segments':
      return fill(() => 0);
    case 'gate':
      return fill(() => 1);
    case 'index':
      // Positions shaped like a table of ones and zeros (a causal mask left as an input) must not be all zero.
      return input.dtype === 'bool' || input.dtype === 'uint8' ? causal(input, dims) : fill(() => 0);
    case 'float': {
      const stream = mix(sizes.seed, hashOf(input.name));
      return isWeightLike(input) ? weightLike(signature, input, dims, stream) : fill((i) => normal(stream, i));
    }
    default:
      throw runtimeErrors.cannotFeed(
        input.name,
        `what it is for cannot be told from its type (${input.dtype}) and uses`,
      );
  }
}

function causal(input: InputInfo, dims: readonly number[]): HostTensor {
  const columns = dims[dims.length - 1] ?? 1;
  const rows = dims[dims.length - 2] ?? 1;
  return fillTensor(input.dtype, dims, (i) => (i % columns <= Math.floor(i / columns) % rows ? 1 : 0));
}

const weights = new WeakMap<Signature, Map<string, HostTensor>>();

/**
 * Values for a weight that was left as an input: uniform, of variance 1/rows, and made once, since a model without its
 * weights has many millions of them.
 */
function weightLike(signature: Signature, input: InputInfo, dims: readonly number[], stream: number): HostTensor {
  const made = weights.get(signature) ?? new Map<string, HostTensor>();
  weights.set(signature, made);
  const key = `${stream}:${input.name}`;
  const scale = Math.sqrt(12 / (dims[0] ?? 1)) / 2 ** 32;
  const tensor = made.get(key) ?? fillTensor(input.dtype, dims, (i) => scale * (mix(stream, i) - 2 ** 31));
  made.set(key, tensor);
  return tensor;
}

/** A weight that the exporter left as an input: every dimension is a number. */
function isWeightLike(input: InputInfo): boolean {
  return input.shape?.every((dim) => typeof dim === 'number') ?? false;
}

/** What sizes a dimension: rows, new tokens, those before them, or both together. */
export type SizeWord = 'batch' | 'fresh' | 'past' | 'total';

function dimsOf(signature: Signature, input: InputInfo, sizes: Sizes): number[] {
  return sizeWords(signature, input).map((word) => (typeof word === 'number' ? word : sizes[word]));
}

/**
 * What sizes every dimension of an input that is no cache: numbers stay, symbols mean rows or tokens.
 * @throws Diagnostic OF_CANNOT_FEED where nothing tells.
 */
export function sizeWords(signature: Signature, input: InputInfo): (SizeWord | number)[] {
  const driver = signature.driver;
  if (!input.shape) {
    if (input.role === 'tokens' || input.role === 'positions') return ['batch', 'fresh'];
    if (input.role === 'mask') return ['batch', 'total'];
    throw runtimeErrors.cannotFeed(input.name, 'the model does not tell its shape');
  }
  const rank = input.shape.length;
  const axis = sequenceAxis(driver);
  const sequenceSymbol = driver?.shape?.at(axis);
  const batchSymbol = (driver?.shape?.length ?? 0) + axis > 0 ? driver?.shape?.at(axis - 1) : undefined;
  const isLast = (i: number): boolean => i === rank - 1;
  return input.shape.map((dim, i) => {
    if (typeof dim === 'number') return dim;
    const inRows = isLast(i) ? 'fresh' : i === rank - 2 ? 'batch' : 1;
    if (input.role === 'tokens') return inRows;
    if (dim !== null && dim === batchSymbol) return 'batch';
    if (input.role === 'mask') {
      return i === 0 && rank > 1 ? 'batch' : dim !== null && dim === sequenceSymbol ? 'fresh' : 'total';
    }
    if (input.role === 'bias') return i === 0 ? 'batch' : isLast(i) ? 'total' : i === rank - 2 ? 'fresh' : 1;
    if (dim !== null && dim === sequenceSymbol) return 'fresh';
    if (input.role === 'positions') return inRows;
    if (input.role === 'embeddings') return i === 0 ? 'batch' : 'fresh';
    return bySymbol(dim, i, input);
  });
}

function bySymbol(dim: Dim, axis: number, input: InputInfo): SizeWord {
  const name = String(dim ?? '').toLowerCase();
  if (/batch|^b$|^n$/.test(name)) return 'batch';
  if (/total|\+/.test(name)) return 'total';
  if (/past|cache/.test(name)) return 'past';
  if (/seq|len|token|query/.test(name)) return 'fresh';
  if (axis === 0) return 'batch';
  throw runtimeErrors.cannotFeed(input.name, `nothing tells the size of its dimension ${axis} (${dim ?? 'unnamed'})`);
}
