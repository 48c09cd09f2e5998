/** Sizes that reports show: parameters, weight bytes, KV-cache bytes per token. */
import { bitsOf, elementCount, isFloat, type Model } from '../../ir/index.js';
import type { Layer } from '../../passes/index.js';
import { readSignature, tensorsOf, weightBytes } from '../../runtime/index.js';

import type { LayerFact } from './report.js';

export { weightBytes };

/** What each layer has, for reports and plans. */
export function layerFacts(layers: readonly Layer[]): LayerFact[] {
  return layers.map(({ index, attention, ffn, others }) => ({
    layer: index,
    attention: attention !== null,
    ffn: ffn !== null || others.length > 0,
    ffnWidth: ffn?.ffn.width ?? null,
  }));
}

/** Sizes of a model as reports compare them. */
export interface ModelFigures {
  readonly parameters: number;
  readonly kvBytesPerToken: number | null;
  readonly nodes: number;
}

export function figuresOf(model: Model): ModelFigures {
  return {
    parameters: parameterCount(model),
    kvBytesPerToken: kvBytesPerToken(model),
    nodes: model.graph.nodeCount,
  };
}

/** Elements of all distinct floating-point tensors. Quantised weights are counted by their scales only. */
export function parameterCount(model: Model): number {
  const seen = new Set<string>();
  let count = 0;
  for (const { weight } of tensorsOf(model)) {
    if (!weight || !isFloat(weight.dtype) || seen.has(weight.key)) continue;
    seen.add(weight.key);
    count += elementCount(weight.dims);
  }
  return count;
}

/** Bytes that one more token adds to all KV caches of one sequence; null when a size is known only at run time. */
export function kvBytesPerToken(model: Model): number | null {
  const { caches, inputs } = readSignature(model);
  let bytes = 0;
  for (const cache of caches) {
    if (cache.sequenceAxis === null) continue;
    const dtype = inputs.find((input) => input.name === cache.input)?.dtype ?? 'undefined';
    let elements = 1;
    for (const [axis, dim] of cache.dims.entries()) {
      if (axis === cache.sequenceAxis || axis === cache.batchAxis) continue;
      if (dim === null) return null;
      elements *= dim;
    }
    bytes += (elements * bitsOf(dtype)) / 8;
  }
  return bytes;
}
