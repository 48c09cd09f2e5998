/** Sizes that reports show: parameters, weight bytes, KV-cache bytes per token. */
import {
  allGraphs,
  attributeTensors,
  bitsOf,
  elementCount,
  isFloat,
  type Model,
  type Node,
  type Weight,
} from '../../ir/index.js';
import type { Layer } from '../../passes/index.js';
import { type Device, predictSecondsPerToken, workOf } from '../../runtime/choose/cost.js';
import { tensorsOf, weightBytes } from '../../runtime/session/memory.js';
import { readSignature } from '../../runtime/signature/signature.js';
import type { LayerFact } from './report.js';

export { weightBytes };

/** What each layer has, for reports and plans. */
export function layerFacts(layers: readonly Layer[]): LayerFact[] {
  return layers.map(({ index, attention, ffn, linears, others, unread }) => ({
    layer: index,
    attention: attention !== null || unread !== null || others.some((branch) => branch.mixesTokens),
    ffn: ffn !== null || unread !== null || others.some((branch) => !branch.mixesTokens),
    linear: linears.map(({ slot }) => slot),
    ffnWidth: ffn?.ffn.width ?? null,
  }));
}

/** Sizes of a model as reports compare them. */
export interface ModelFigures {
  readonly parameters: number;
  readonly kvBytesPerToken: number | null;
  readonly nodes: number;
  /** By the name of the operator, with its domain where it is not ONNX's own. */
  readonly operators: ReadonlyMap<string, OperatorFigures>;
  /** What a device is predicted to take for a token; null without a device, or where no layers are recognised. */
  readonly secondsPerToken: number | null;
}

/** The nodes of one operator, in all graphs, and what they read of weights that no node before them reads. */
export interface OperatorFigures {
  readonly nodes: number;
  readonly parameters: number;
  /** Bytes of weights. */
  readonly bytes: number;
}

export function figuresOf(model: Model, device?: Device): ModelFigures {
  return {
    parameters: parameterCount(model),
    kvBytesPerToken: kvBytesPerToken(model),
    nodes: model.graph.nodeCount,
    operators: operatorsOf(model),
    secondsPerToken: device === undefined ? null : secondsOf(model, device),
  };
}

function secondsOf(model: Model, device: Device): number | null {
  const work = workOf(model);
  return work.attentions + work.ffns + work.linears > 0 ? predictSecondsPerToken(work, device) : null;
}

function operatorsOf(model: Model): Map<string, OperatorFigures> {
  const quantised = quantisedCounts(model);
  const seen = new Set<string>();
  const found = new Map<string, OperatorFigures>();
  for (const graph of allGraphs(model)) {
    for (const node of graph.nodes()) {
      let { nodes, parameters, bytes } = found.get(node.op) ?? { nodes: 0, parameters: 0, bytes: 0 };
      nodes++;
      for (const tensor of [...node.inputs.map((value) => value?.initializer), ...attributeTensors(node)]) {
        const { weight } = tensor ?? {};
        if (!weight || seen.has(weight.key)) continue;
        seen.add(weight.key);
        parameters += parametersOf(weight, quantised);
        bytes += weight.byteLength;
      }
      found.set(node.op, { nodes, parameters, bytes });
    }
  }
  return found;
}

/**
 * Numbers that the model has learned, each distinct tensor once: the elements of quantised matrices, and not the scales and
 * zero points that they are stored with; of other tensors those of a floating-point type.
 */
export function parameterCount(model: Model): number {
  const quantised = quantisedCounts(model);
  const seen = new Set<string>();
  let count = 0;
  for (const { weight } of tensorsOf(model)) {
    if (!weight || seen.has(weight.key)) continue;
    seen.add(weight.key);
    count += parametersOf(weight, quantised);
  }
  return count;
}

function parametersOf(weight: Weight, quantised: ReadonlyMap<string, number>): number {
  return quantised.get(weight.key) ?? (isFloat(weight.dtype) ? elementCount(weight.dims) : 0);
}

/** The parameters that quantised matrices, and what belongs to them, stand for, by the key of the weight. */
function quantisedCounts(model: Model): Map<string, number> {
  const quantised = new Map<string, number>();
  for (const graph of allGraphs(model)) {
    for (const node of graph.nodes()) {
      for (const [index, count] of quantisedOperands(node)) {
        const key = node.input(index)?.constant?.weight?.key;
        if (key !== undefined) quantised.set(key, Math.max(count, quantised.get(key) ?? 0));
      }
    }
  }
  return quantised;
}

/** Operands of a node that hold a quantised matrix or what belongs to one, with the parameters that each stands for. */
function quantisedOperands(node: Node): [index: number, count: number][] {
  const sizeOf = (index: number): number => elementCount(node.input(index)?.constant?.dims ?? [0]);
  const operands = (matrix: number, count: number, ...others: number[]): [number, number][] => [
    [matrix, count],
    ...others.map((index): [number, number] => [index, 0]),
  ];
  switch (node.op) {
    case 'com.microsoft.MatMulNBits':
      return operands(1, (node.intAttribute('K') ?? 0) * (node.intAttribute('N') ?? 0), 2, 3);
    case 'com.microsoft.GatherBlockQuantized': {
      // Two 4-bit numbers in a uint8 where it has no 4-bit type.
      const packed = node.input(0)?.constant?.dtype === 'uint8' ? 8 / (node.intAttribute('bits') ?? 4) : 1;
      return operands(0, sizeOf(0) * packed, 2, 3);
    }
    case 'DequantizeLinear': {
      // Scales may be dequantised themselves.
      const isScale = node.output(0)?.uses.some((use) => use.node.op === 'DequantizeLinear' && use.index === 1);
      if (isScale) return operands(0, 0, 1, 2);
      return node.input(0)?.constant ? operands(0, sizeOf(0), 1, 2) : [];
    }
    case 'QLinearMatMul':
      return operands(3, sizeOf(3), 1, 2, 4, 5, 6, 7);
    case 'MatMulInteger':
      return operands(1, sizeOf(1), 2, 3);
    case 'com.microsoft.MatMulIntegerToFloat':
      return operands(1, sizeOf(1), 2, 3, 4, 5);
    case 'com.microsoft.DynamicQuantizeMatMul':
      return operands(1, sizeOf(1), 2, 3);
  }
  return [];
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
