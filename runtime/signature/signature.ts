/**
 * What a model wants and gives: which input is the tokens, which the mask, which outputs are the caches to feed back.
 * Read from the graph alone, without a session: by what an input is used for first, by its type and shape next, and by
 * its name last.
 */
import type { Model, Value } from '../../ir/core.js';
import { allGraphs } from '../../ir/walk.js';
import { weightBytes } from '../session/memory.js';
import { type CachePort, findCaches } from './cache-ports.js';
import { type Claim, largestClaim } from './claims.js';
import { evidenceOf, type InputUses, ownPositions, roleOf } from './classify.js';
import { Flow, numberAt, shapeOf } from './flow.js';
import type { InputInfo, OutputInfo } from './roles.js';

export type { CachePart, CachePort } from './cache-ports.js';

/** What the inputs and outputs of a model are for, and what they allow. */
export interface Signature {
  /** Inputs that must be fed, in order: initializers that a caller may override are not among them. */
  readonly inputs: readonly InputInfo[];
  readonly outputs: readonly OutputInfo[];
  /** Past inputs with the outputs that continue them. */
  readonly caches: readonly CachePort[];
  /** The input that says what the new tokens are; null for a model that has none. */
  readonly driver: InputInfo | null;
  /** Name of the output with next-token scores. */
  readonly logits: string | null;
  /** Number of token ids that are valid; null when neither the embedding nor the logits tell. */
  readonly vocabulary: number | null;
  /** Batch size and new tokens per run where the model fixes them. */
  readonly batch: number | null;
  readonly sequence: number | null;
  /** Positions before the new tokens where the model fixes them: caches of static shape that grow all the same. */
  readonly past: number | null;
  /** Bytes of the model's weights: what it may be fed with is measured by them. */
  readonly weightBytes: number;
  /** The largest tensor that running makes out of next to nothing. */
  readonly claim: Claim | null;
  /** Positions there are table rows for; null when neither a positions input nor an attention that counts them reads one. */
  readonly positions: number | null;
}

/** Reads the signature of a model. Never fails: what cannot be understood has the role `unknown`. */
export function readSignature(model: Model): Signature {
  const flow = new Flow(model);
  const required = model.graph.inputs.filter((value) => !value.initializer);
  const caches = findCaches(flow, required);
  const cacheInputs = new Set(caches.map((cache) => cache.input));
  const evidence = new Map<Value, InputUses>();
  for (const value of required) if (!cacheInputs.has(value.name)) evidence.set(value, evidenceOf(flow, value));
  const roles = roleOf(evidence);
  const inputs = required.map(
    (value): InputInfo => ({
      name: value.name,
      dtype: value.dtype ?? 'undefined',
      shape: shapeOf(value),
      role: cacheInputs.has(value.name) ? 'cache' : (roles.get(value) ?? 'unknown'),
    }),
  );

  const driver =
    inputs.find((input) => input.role === 'tokens') ?? inputs.find((input) => input.role === 'embeddings') ?? null;
  const tokens = required.find((value) => value.name === driver?.name);
  const table = (tokens && driver?.role === 'tokens' && evidence.get(tokens)?.table) || null;
  const cacheOutputs = new Set(caches.map((cache) => cache.output));
  const logits = findLogits(model, cacheOutputs, table);
  const scores = numberAt(logits && shapeOf(logits), -1);
  const axis = sequenceAxis(driver);
  const limit = required
    .filter((value) => roles.get(value) === 'positions')
    .flatMap((value) => [evidence.get(value)?.table, evidence.get(value)?.rotary])
    .concat([...allGraphs(model)].flatMap((graph) => [...graph.nodes()].map(ownPositions)))
    .filter((rows) => typeof rows === 'number');
  return {
    inputs,
    outputs: model.graph.outputs.map((value) => ({
      name: value.name,
      dtype: value.dtype ?? 'undefined',
      shape: shapeOf(value),
      role: value === logits ? 'logits' : cacheOutputs.has(value.name) ? 'cache' : 'other',
    })),
    caches,
    driver,
    logits: logits?.name ?? null,
    // A padded head has more columns than the table has rows, and the other way round: the smaller one is safe.
    vocabulary: table && scores ? Math.min(table, scores) : (table ?? scores),
    batch: numberAt(driver?.shape ?? null, axis - 1),
    sequence: numberAt(driver?.shape ?? null, axis),
    past: caches.find(({ fixedPast }) => fixedPast !== null)?.fixedPast ?? null,
    weightBytes: weightBytes(model),
    claim: largestClaim(model),
    positions: limit.length > 0 ? Math.min(...limit) : null,
  };
}

/** The axis of the driver along which tokens follow one another; the batch is the axis before it. */
export function sequenceAxis(driver: InputInfo | null): number {
  return driver?.role === 'embeddings' ? -2 : -1;
}

/** The scores: the output as wide as the vocabulary, of those the one called so. */
function findLogits(model: Model, caches: ReadonlySet<string | null>, table: number | null): Value | null {
  const candidates = model.graph.outputs.filter((value) => {
    const shape = shapeOf(value);
    return !caches.has(value.name) && isFloatOutput(value) && (!shape || shape.length >= 2);
  });
  const named = candidates.filter((value) => /(logits|scores)$|^logits/i.test(value.name));
  const wide = candidates.filter((value) => table !== null && numberAt(shapeOf(value), -1) === table);
  return named.find((value) => wide.includes(value)) ?? named[0] ?? wide[0] ?? null;
}

function isFloatOutput(value: Value): boolean {
  return value.dtype === 'float' || value.dtype === 'float16' || value.dtype === 'double' || value.dtype === 'bfloat16';
}
