/** Products of matrices in float64, by onnxruntime on the CPU. */
import { Graph, Model, type Value } from '../../ir/core.js';
import { referenceBytes } from '../../ir/index.js';
import { Sessions } from '../session/sessions.js';
import type { HostTensor } from '../session/tensor.js';
import { Formula } from '../stream/formula.js';

/** Row-major. */
export interface DoubleMatrix {
  readonly data: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

export class Products extends Sessions {
  /** a b. */
  async multiply(a: DoubleMatrix, b: DoubleMatrix): Promise<DoubleMatrix> {
    const make = () => ({ bytes: productBytes(false), folder: '.' });
    const feeds = new Map([
      ['a', tensorOf(a)],
      ['b', tensorOf(b)],
    ]);
    const outputs = await this.use('product', make, (session) => session.run(feeds));
    return { data: outputs.get('y')?.data as Float64Array, rows: a.rows, columns: b.columns };
  }

  /** c - a b. */
  async subtract(c: DoubleMatrix, a: DoubleMatrix, b: DoubleMatrix): Promise<DoubleMatrix> {
    const make = () => ({ bytes: productBytes(true), folder: '.' });
    const feeds = new Map([
      ['a', tensorOf(a)],
      ['b', tensorOf(b)],
      ['c', tensorOf(c)],
    ]);
    const outputs = await this.use('difference', make, (session) => session.run(feeds));
    return { data: outputs.get('y')?.data as Float64Array, rows: c.rows, columns: c.columns };
  }
}

function tensorOf({ data, rows, columns }: DoubleMatrix): HostTensor {
  return { dtype: 'double', dims: [rows, columns], data };
}

/** A copy of rows [top, bottom) and columns [left, right). */
export function blockOf(matrix: DoubleMatrix, top: number, bottom: number, left: number, right: number): DoubleMatrix {
  const { data, columns } = matrix;
  const [rows, width] = [bottom - top, right - left];
  if (width === columns) return { data: data.slice(top * columns, bottom * columns), rows, columns };
  const block = new Float64Array(rows * width);
  for (let i = 0; i < rows; i++) {
    const at = (top + i) * columns;
    block.set(data.subarray(at + left, at + right), i * width);
  }
  return { data: block, rows, columns: width };
}

/** Puts a block where its first row is `top` and its first column `left`. */
export function putBlock({ data, columns }: DoubleMatrix, top: number, left: number, block: DoubleMatrix): void {
  for (let i = 0; i < block.rows; i++) {
    data.set(block.data.subarray(i * block.columns, (i + 1) * block.columns), (top + i) * columns + left);
  }
}

export function transposed({ data, rows, columns }: DoubleMatrix): DoubleMatrix {
  const turned = new Float64Array(data.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) turned[j * rows + i] = data[i * columns + j] as number;
  }
  return { data: turned, rows: columns, columns: rows };
}

/** y = a b, or c - a b. */
function productBytes(isSubtracted: boolean): Uint8Array {
  const graph = new Graph();
  graph.name = 'product';
  const build = new Formula(graph);
  const [a, b] = ['a', 'b'].map((name) => build.input(name, 'double')) as [Value, Value];
  const product = build.node('MatMul', [a, b], 'double');
  const result = isSubtracted ? build.node('Sub', [build.input('c', 'double'), product], 'double') : product;
  build.give('y', result, 'double');
  return referenceBytes(new Model(8, [{ domain: '', version: 17 }], graph), '.');
}
