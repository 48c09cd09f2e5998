/**
 * What running a model makes out of next to nothing: sparse weights made dense, tensors filled or repeated to a size that
 * is a constant of the graph. A file of a few bytes can ask for any amount of memory so.
 */
import type { Model, Node } from '../../ir/core.js';
import { bitsOf, type DataType } from '../../ir/type.js';
import { allGraphs } from '../../ir/walk.js';
import { integersOf, isStandard, shapeOf } from './flow.js';

/** The largest tensor of that kind. */
export interface Claim {
  readonly bytes: number;
  /** For people: `the sparse weight 'w'`, `the output 'y' of Expand`. */
  readonly what: string;
}

/** The largest claim of a model; null when it makes none. */
export function largestClaim(model: Model): Claim | null {
  let largest: Claim | null = null;
  const add = (bytes: number, what: string): void => {
    if (bytes > (largest?.bytes ?? 0)) largest = { bytes, what };
  };
  for (const graph of allGraphs(model)) {
    for (const value of graph.values) {
      if (value.isSparse) add(value.sparseBytes, `the sparse weight '${value.name}'`);
    }
    for (const node of graph.nodes()) {
      const elements = isStandard(node) ? elementsOf(node) : null;
      const output = node.output(0);
      if (elements === null || !output) continue;
      add((elements * bitsOf(output.dtype ?? FALLBACK)) / 8, `the output '${output.name}' of ${node.opType}`);
    }
  }
  return largest;
}

/** What an output of unknown type is counted as. */
const FALLBACK: DataType = 'float';

/** Elements of a tensor whose size is constant while its contents are one value, or another tensor again and again. */
function elementsOf(node: Node): number | null {
  const sizes = integersOf(node.input(1));
  switch (node.opType) {
    case 'ConstantOfShape':
      return product(integersOf(node.input(0)));
    case 'Expand':
      return product(sizes);
    case 'Tile': {
      const shape = shapeOf(node.input(0));
      const known = shape?.every((dim) => typeof dim === 'number') ? (shape as readonly number[]) : null;
      return sizes && known ? product([...sizes, ...known]) : product(sizes);
    }
    default:
      return null;
  }
}

function product(sizes: readonly number[] | null): number | null {
  return sizes?.reduce((count, size) => count * Math.max(1, Math.abs(size)), 1) ?? null;
}
