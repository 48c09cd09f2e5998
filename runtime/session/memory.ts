/** Whether a model can be run on this machine without bringing it down. */
import { freemem } from 'node:os';
import type { Graph, Model, Tensor } from '../../ir/core.js';

/**
 * Above this many bytes of weights prepacking is off: it copies every MatMul weight into another layout, so that the
 * mapped file and the copies are in memory together (about 2x). A verification runs each weight a few times only, which
 * never pays for the copy.
 */
export const PREPACK_LIMIT = 512 * 2 ** 20;

/** Bytes that a session needs, and that are free. */
export interface MemoryNeed {
  readonly fits: boolean;
  /** Bytes that running the model is expected to take. */
  readonly need: number;
  /** Bytes available to this process. */
  readonly have: number;
}

/** Activations, arenas and the runtime itself. */
export const OVERHEAD = 256 * 2 ** 20;

/**
 * Estimates whether one session of this model fits. Small weights are prepacked, which doubles them; large ones are
 * mapped when they are external data, and held twice for a moment (file and tensors) when they are inside the model file.
 */
export function fitsInMemory(model: Model, have: number = availableMemory()): MemoryNeed {
  const bytes = weightBytes(model);
  const external = weightBytes(model, (tensor) => tensor.storage === 'external');
  const need = (bytes > PREPACK_LIMIT ? 2 * bytes - external : 2 * bytes) + OVERHEAD;
  return { fits: need <= have, need, have };
}

/** Bytes of weights of which sessions fit into `have` bytes, one after another: those before may not have been returned yet. */
export function weightsInMemory(have: number): number {
  return Math.max(1, Math.floor((have - OVERHEAD) / 4));
}

/** Bytes this process can still take: what the machine has, or what its container leaves. */
export function availableMemory(): number {
  const limit = process.constrainedMemory?.() ?? 0;
  const free = freemem();
  // Unlimited containers report 0 or a number beyond any machine.
  return limit > 0 && limit < 2 ** 50 ? Math.min(free, Math.max(0, limit - process.memoryUsage.rss())) : free;
}

/** Bytes of all distinct weights of a model (that pass `filter`), those of subgraphs and Constant nodes included. */
export function weightBytes(model: Model, filter: (tensor: Tensor) => boolean = () => true): number {
  const seen = new Set<string>();
  let bytes = 0;
  for (const tensor of tensorsOf(model)) {
    if (!tensor.weight || seen.has(tensor.weight.key) || !filter(tensor)) continue;
    seen.add(tensor.weight.key);
    bytes += tensor.weight.byteLength;
  }
  return bytes;
}

/** Bytes of the distinct weights that are no plain range of a file: to run the model they have to be computed. */
export function computedWeightBytes(model: Model): number {
  return weightBytes(model, ({ weight }) => weight?.op !== 'source');
}

/** Every tensor stored in a model. */
export function* tensorsOf(model: Model): Generator<Tensor> {
  yield* tensorsIn(model.graph);
  for (const local of model.functions) yield* tensorsIn(local.body);
}

function* tensorsIn(graph: Graph): Generator<Tensor> {
  for (const value of graph.initializers) if (value.initializer) yield value.initializer;
  for (const node of graph.nodes()) {
    for (const attribute of node.attributes.values()) {
      if (attribute.kind === 'tensor') yield attribute.value;
      else if (attribute.kind === 'tensors') yield* attribute.value;
    }
    for (const inner of node.subgraphs) yield* tensorsIn(inner);
  }
}
