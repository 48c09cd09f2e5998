/** How far two computations of the same function may be apart, from the precision they compute in. */
import type { Graph, Model } from '../../ir/core.js';
import type { DataType } from '../../ir/type.js';
import { branchesOf, layersOf } from '../../passes/index.js';
import { tensorsOf } from '../session/memory.js';
import { readSignature } from '../signature/signature.js';

/** The largest relative error, and what it was derived from. */
export interface Tolerance {
  /** Largest ||a - b|| / ||a||. */
  readonly relative: number;
  /** What the model computes in. */
  readonly precision: 'float' | 'float16' | 'bfloat16' | 'int8 activations';
}

/** Half the distance between 1 and the next number. */
const ROUNDOFF = { float: 2 ** -24, float16: 2 ** -11, bfloat16: 2 ** -8 };
/** What shallow models get, relative: a hair above what was measured on models of few layers. */
const LEAST = { float: 1e-5, float16: 2e-3, bfloat16: 1e-2 };
/** Roundings that each branch adds to the stream, in each direction: the fold of its norm and its own result. */
const ROUNDINGS = { float: 2, float16: 2, bfloat16: 0.5 };

/**
 * Tolerance relative to an output's L2 norm for graphs that differ in the order of additions only. A sum in another
 * order moves results by a few units in the last place; rounding activations to int8 on the way turns such a hair into a
 * whole step wherever a value lies between two of them.
 * In half precision the folding of norms counts most: it rounds every weight once more, to 11 bits in float16 and to 8 in
 * bfloat16. Errors of different branches are independent of each other, so that they grow with the square root of their
 * number. The width of a layer does not count: kernels add up products in float32.
 */
export function toleranceFor(model: Model): Tolerance {
  if (quantisesActivations(model.graph) || model.functions.some((local) => quantisesActivations(local.body))) {
    return { relative: 5e-2, precision: 'int8 activations' };
  }
  const types = computeTypes(model);
  const precision = types.has('bfloat16') ? 'bfloat16' : types.has('float16') ? 'float16' : 'float';
  const branches = layersOf(model).layers.reduce((sum, layer) => sum + branchesOf(layer).length, 0);
  const grown = ROUNDINGS[precision] * ROUNDOFF[precision] * Math.sqrt(branches);
  return { relative: Number(Math.max(LEAST[precision], grown).toPrecision(2)), precision };
}

/** Types of the outputs, of float inputs and of the matrices. Scales and tables beside int4 weights do not count. */
function computeTypes(model: Model): Set<DataType> {
  const types = new Set<DataType>();
  const signature = readSignature(model);
  for (const output of signature.outputs) types.add(output.dtype);
  for (const input of signature.inputs) types.add(input.dtype);
  for (const tensor of tensorsOf(model)) if (tensor.dims.length === 2) types.add(tensor.dtype);
  return types;
}

const QUANTISERS = new Set(['DynamicQuantizeLinear', 'DynamicQuantizeMatMul', 'MatMulIntegerToFloat', 'QLinearMatMul']);

function quantisesActivations(graph: Graph): boolean {
  for (const node of graph.nodes()) {
    if (QUANTISERS.has(node.opType)) return true;
    if (node.opType === 'QuantizeLinear' && !node.input(0)?.initializer) return true;
    // Accuracy level 4 lets MatMulNBits round its activations to int8.
    if (node.opType === 'MatMulNBits' && node.intAttribute('accuracy_level') === 4) return true;
    if (node.subgraphs.some(quantisesActivations)) return true;
  }
  return false;
}
