/**
 * Which layers a model has: the one answer that plans, gates, costs, descriptions and configs stand on.
 *
 * Some exporters write each layer as a function and call it; some write two decoders, one that reads a prompt and one that
 * reads caches, as the branches of an If. Both are looked through here, so that nobody else has to know.
 */

import { copyModel } from '../ir/copy.js';
import type { Graph, Model } from '../ir/core.js';
import { findDecoders, findLayers } from './analysis/layers/decoders.js';
import type { Blocks } from './analysis/layers/layer.js';
import { runPipeline } from './framework/manager.js';
import { step } from './framework/pipeline.js';
import { inlineFunctions } from './transforms/inline-functions.js';

/**
 * The layers of a model: those of its decoder, or of the branch with caches of a merged one. Layers that are functions are
 * found in a copy with their bodies in place; `stream.graph.root` is the main graph that they belong to.
 */
export function layersOf(model: Model): Blocks {
  return findLayers(inlined(model).graph);
}

/** A step of generation: the whole prompt at once, or one token behind the caches. */
export type Phase = 'prompt' | 'token';

/**
 * A model whose main graph is the decoder that runs in this phase: functions are inlined, and the branch of a merged
 * decoder stands in the place of its If, the inputs that only the other branch read being gone. It is the model itself
 * where that holds already, else a copy over the same weights.
 */
export function plainDecoder(model: Model, phase: Phase): Model {
  const found = inlined(model);
  const { choice, graphs } = findDecoders(found.graph);
  const branch = (phase === 'token' ? graphs[0] : graphs.at(-1)) as Graph;
  if (!choice) return found;
  const plain = copyModel(found, { inPlaceOf: (node) => (node === choice ? branch : null) });
  for (const input of [...plain.graph.inputs]) if (input.isUnused) plain.graph.removeInput(input);
  return plain;
}

/** The model, or a copy of it in which calls of its functions are their bodies. */
function inlined(model: Model): Model {
  if (model.functions.length === 0) return model;
  const copy = copyModel(model);
  runPipeline(copy, [step(inlineFunctions)]);
  return copy;
}
