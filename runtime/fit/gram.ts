/**
 * The sums that a least-squares fit needs, taken by onnxruntime from activations: with x the normed input of a branch, s
 * the student's stream, t the teacher's stream where the next branch reads, and a weight a row w = 1 / mean(t^2) (the next
 * norm sees relative error),
 *
 *     G = sum w [x, 1]^T [x, 1]        C = sum w [x, 1]^T (t - s)        E = sum w |t - s|^2
 *
 * Products are float32 over at most MAX_ROWS rows and are added up in float64. The first token of a sequence is left out:
 * it carries attention sinks and activations many times as large as any other.
 */
import { Graph, Model, type Value } from '../../ir/core.js';
import { referenceBytes } from '../../ir/index.js';
import { type DataType, tensorType } from '../../ir/type.js';
import { Sessions } from '../session/sessions.js';
import { type HostTensor, rangeAlong } from '../session/tensor.js';
import { Formula, int, ints } from '../stream/formula.js';
import type { DoubleMatrix, Products } from './products.js';

/** Rows of one float32 product. */
const MAX_ROWS = 2048;

/** Sums over all rows so far; row-major, the last row and column of `inputs` are those of the constant 1. */
export class Gram {
  /** G, [hidden + 1, hidden + 1]. */
  readonly inputs: Float64Array;
  /** C, [hidden + 1, hidden]. */
  readonly targets: Float64Array;
  /** E. */
  error = 0;
  rows = 0;

  constructor(readonly hidden: number) {
    this.inputs = new Float64Array((hidden + 1) ** 2);
    this.targets = new Float64Array((hidden + 1) * hidden);
  }

  /** sum w |t - s - [x, 1] W|^2 over the rows, for W [hidden + 1, hidden]; relative to that of no map at all. */
  async relativeError(map: DoubleMatrix, products: Products): Promise<number> {
    // E - 2 <W, C> + <W, G W> = E - <W, C> - <W, C - G W>
    const { targets } = this;
    const rest = await products.subtract(this.targetMatrix, this.inputMatrix, map);
    let sum = this.error;
    for (let i = 0; i < targets.length; i++) {
      sum -= (map.data[i] as number) * ((targets[i] as number) + (rest.data[i] as number));
    }
    return sum / this.error;
  }

  get inputMatrix(): DoubleMatrix {
    return { data: this.inputs, rows: this.hidden + 1, columns: this.hidden + 1 };
  }

  get targetMatrix(): DoubleMatrix {
    return { data: this.targets, rows: this.hidden + 1, columns: this.hidden };
  }

  /** The same for a bias alone, [hidden]. */
  relativeErrorOfBias(bias: Float64Array): number {
    const { hidden, inputs, targets } = this;
    const count = inputs[inputs.length - 1] as number;
    let sum = this.error;
    for (let c = 0; c < hidden; c++) {
      const value = bias[c] as number;
      sum += value * (count * value - 2 * (targets[hidden * hidden + c] as number));
    }
    return sum / this.error;
  }

  /** The sums over the rows of both. */
  plus(other: Gram): Gram {
    const sum = new Gram(this.hidden);
    for (const { inputs, targets, error, rows } of [this, other]) sum.add(inputs, targets, error, rows);
    return sum;
  }

  add(inputs: Float32Array | Float64Array, targets: Float32Array | Float64Array, error: number, rows: number): void {
    for (let i = 0; i < inputs.length; i++) this.inputs[i] = (this.inputs[i] as number) + (inputs[i] as number);
    for (let i = 0; i < targets.length; i++) this.targets[i] = (this.targets[i] as number) + (targets[i] as number);
    this.error += error;
    this.rows += rows;
  }
}

/** Element types of what is summed: the norm's, and the stream's where the branch starts and where it ends. */
export interface GramTypes {
  readonly normed: DataType;
  readonly student: DataType;
  readonly teacher: DataType;
}

/** Adds activations to Grams. */
export class GramMachine extends Sessions {
  /** Adds a batch: all [rows, tokens, hidden]. */
  async add(gram: Gram, normed: HostTensor, student: HostTensor, teacher: HostTensor): Promise<void> {
    const types = { normed: normed.dtype, student: student.dtype, teacher: teacher.dtype };
    const make = () => ({ bytes: gramBytes(types), folder: '.' });
    const [rows = 0, tokens = 0] = normed.dims;
    const step = Math.max(1, Math.floor(MAX_ROWS / Math.max(1, tokens)));
    for (let from = 0; from < rows; from += step) {
      const to = Math.min(rows, from + step);
      const part = (tensor: HostTensor): HostTensor => (step >= rows ? tensor : rangeAlong(tensor, 0, from, to));
      const feeds = new Map([
        ['x', part(normed)],
        ['s', part(student)],
        ['t', part(teacher)],
      ]);
      const outputs = await this.use(Object.values(types).join(), make, (session) => session.run(feeds));
      const data = (name: string): Float32Array => outputs.get(name)?.data as Float32Array;
      gram.add(data('g'), data('c'), data('e')[0] as number, (to - from) * (tokens - 1));
    }
  }
}

/** The model that computes the sums of a batch. */
function gramBytes(types: GramTypes): Uint8Array {
  const graph = new Graph();
  graph.name = 'gram';
  const build = new Formula(graph);
  const node = (opType: string, inputs: readonly Value[], attributes: Parameters<typeof build.node>[3] = {}): Value =>
    build.node(opType, inputs, 'float', attributes);
  const [one, first] = [build.number(1), build.number(1, 'int64')];
  const [end, last] = [build.number(2 ** 31, 'int64'), build.number(-1, 'int64')];
  /** The rows after the first token of each sequence, float [rows, hidden]. */
  const rowsOf = (name: string, dtype: DataType): Value => {
    const input = graph.addInput(name, tensorType(dtype, ['batch', 'tokens', 'hidden']));
    const rest = build.node('Slice', [input, first, end, first], dtype);
    const cast = build.cast(rest, 'float');
    const width = build.node('Shape', [cast], 'int64', { start: int(2) });
    return node('Reshape', [cast, build.node('Concat', [last, width], 'int64', { axis: int(0) })]);
  };
  const [x, s, t] = [rowsOf('x', types.normed), rowsOf('s', types.student), rowsOf('t', types.teacher)];
  const mean = node('ReduceMean', [node('Mul', [t, t])], { axes: ints(-1), keepdims: int(1) });
  // The square root of the weight, on both sides of each product.
  const weight = node('Sqrt', [node('Div', [one, mean])]);
  const weighted = node('Concat', [node('Mul', [x, weight]), weight], { axis: int(1) });
  const difference = node('Mul', [node('Sub', [t, s]), weight]);
  const transposed = node('Transpose', [weighted], { perm: ints(1, 0) });
  const error = node('ReduceSum', [node('Mul', [difference, difference])], { keepdims: int(0) });
  build.give('g', node('MatMul', [transposed, weighted]));
  build.give('c', node('MatMul', [transposed, difference]));
  build.give('e', node('Reshape', [error, last]));
  return referenceBytes(new Model(8, [{ domain: '', version: 17 }], graph), '.');
}
