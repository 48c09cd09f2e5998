/** Integer vectors that exporters compute from constants and the last dimension of a value: Slice bounds, Reshape targets. */
import type { Value } from '../../../ir/core.js';
import { constantOf, numbersOf } from './constants.js';

/** Evaluates `value`; `lastDim` gives the last dimension of a value where it is known. Null when anything is not. */
export function integersOf(value: Value | null, lastDim: (of: Value) => number | null, depth = 0): number[] | null {
  if (!value || depth > 32) return null;
  const constant = numbersOf(constantOf(value));
  if (constant) return constant;
  const node = value.producer;
  if (node?.domain !== '') return null;
  const operand = (i: number): number[] | null => integersOf(node.input(i), lastDim, depth + 1);
  switch (node.opType) {
    case 'Cast':
    case 'Identity':
    case 'Squeeze':
    case 'Unsqueeze':
    case 'Reshape':
      return operand(0);
    case 'Gather':
    case 'Slice': {
      // Only the last dimension of a shape: [-1], or from -1 on.
      const shape = node.input(0)?.producer;
      const from = operand(1);
      if (shape?.op !== 'Shape' || from?.length !== 1 || from[0] !== -1 || !shape.input(0)) return null;
      const dim = lastDim(shape.input(0) as Value);
      return dim === null ? null : [dim];
    }
    case 'Concat': {
      const parts = node.inputs.map((_, i) => operand(i));
      return parts.every((part) => part !== null) ? parts.flat() : null;
    }
    case 'Add':
    case 'Sub':
    case 'Mul':
    case 'Div': {
      const [a, b] = [operand(0), operand(1)];
      if (!a || !b || (a.length !== b.length && a.length !== 1 && b.length !== 1)) return null;
      const length = Math.max(a.length, b.length);
      const at = (of: number[], i: number): number => of[of.length === 1 ? 0 : i] as number;
      return Array.from({ length }, (_, i) => OPS[node.opType as keyof typeof OPS](at(a, i), at(b, i)));
    }
  }
  return null;
}

const OPS = {
  Add: (a: number, b: number): number => a + b,
  Sub: (a: number, b: number): number => a - b,
  Mul: (a: number, b: number): number => a * b,
  Div: (a: number, b: number): number => Math.trunc(a / b),
};

/** The last element of a Reshape target: what the last dimension becomes. Null when it is not known. */
export function lastTarget(shape: Value | null, lastDim: (of: Value) => number | null): number | null {
  const concat = shape?.producer;
  const tail = concat?.op === 'Concat' ? (concat.inputs.at(-1) ?? null) : shape;
  return integersOf(tail, lastDim)?.at(-1) ?? null;
}
