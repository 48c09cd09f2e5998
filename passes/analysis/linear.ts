/** Linear layers: a product of an activation and a constant 2-D weight, in any operator that computes one. */
import type { Node, Value } from '../../ir/core.js';
import type { Weight } from '../../ir/weight.js';
import { constantOf } from './constants.js';
import type { Slot } from './norm.js';

export interface Linear extends Slot {
  readonly op: string;
  readonly input: Value;
  readonly output: Value;
  /** Axis of `weight` that is contracted with the input, and the one that becomes the output's last. */
  readonly inAxis: 0 | 1;
  readonly outAxis: 0 | 1;
  readonly inWidth: number;
  readonly outWidth: number;
  /** Bias inside the operator (Gemm C), [outWidth]. */
  readonly bias: Slot | null;
}

/** Quantised linear operators: recognised as linear, not yet rewritten. */
const QUANTISED = new Set(['MatMulNBits', 'MatMulInteger', 'MatMulIntegerToFloat', 'QLinearMatMul', 'MatMulBnb4']);

export function isQuantisedLinear(node: Node): boolean {
  return QUANTISED.has(node.opType);
}

/** The linear layer that `node` is, or null. Rank of the activation does not matter for MatMul. */
export function matchLinear(node: Node | null): Linear | null {
  const input = node?.input(0);
  const output = node?.output(0);
  if (!node || !input || !output) return null;
  const weight = constantOf(node.input(1));
  if (weight?.dims.length !== 2 || constantOf(input)) return null;
  const isTransposed = node.intAttribute('transB') === 1;
  let bias: Slot | null = null;
  switch (node.op) {
    case 'MatMul':
      break;
    case 'Gemm': {
      const c = node.input(2) ? constantOf(node.input(2)) : null;
      if (node.input(2) && !c) return null;
      if (c) bias = { node, index: 2, weight: c };
      if (node.intAttribute('transA') === 1 || isScaled(node, 'alpha') || isScaled(node, 'beta')) return null;
      break;
    }
    case 'com.microsoft.FusedMatMul':
      if (node.intAttribute('transA') === 1 || isScaled(node, 'alpha')) return null;
      if (node.intAttribute('transBatchA') === 1 || node.intAttribute('transBatchB') === 1) return null;
      break;
    default:
      return null;
  }
  const inAxis = isTransposed ? 1 : 0;
  const outAxis = isTransposed ? 0 : 1;
  const [rows, columns] = weight.dims as readonly [number, number];
  const inWidth = isTransposed ? columns : rows;
  const outWidth = isTransposed ? rows : columns;
  return {
    node,
    index: 1,
    weight: weight as Weight,
    op: node.op,
    input,
    output,
    inAxis,
    outAxis,
    inWidth,
    outWidth,
    bias,
  };
}

function isScaled(node: Node, attribute: string): boolean {
  return (node.floatAttribute(attribute) ?? 1) !== 1;
}
