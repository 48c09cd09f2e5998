/**
 * The file of fitted maps (`.onnx-fuse-fit`): an ONNX model of initializers alone, float32, by the layers' original numbers:
 *
 *     attention.7.weight [hidden, hidden]     attention.7.bias [hidden]     ffn.7.weight     ffn.7.bias
 *
 * n(x) W + b, with W row by row. A branch may have a bias alone; in the place of W there may be `attention.7.left` [hidden, r] and
 * `attention.7.right` [r, hidden], or W in blocks of bits as MatMulNBits stores it: `attention.7.levels` uint8 [hidden, blocks, bytes]
 * and `attention.7.scales` [hidden, blocks], with 32 rows of W in a block.
 */
import type { Tensor } from '../../ir/core.js';
import { Diagnostic, errors } from '../../ir/diagnostic.js';
import { openModel } from '../../ir/disk/model.js';
import type { Weight } from '../../ir/weight.js';
import { passErrors } from '../analysis/errors.js';

/** Rows of W that share a scale. */
export const MAP_BLOCK = 32;

/** What was fitted for one branch. */
export interface FittedMap {
  /** W as the matrices whose product it is, [hidden, hidden] or [hidden, r] and [r, hidden]; none for a bias alone. */
  readonly matrices: readonly Weight[];
  /** W in blocks of bits, in the place of `matrices`. */
  readonly blocks: { readonly bits: number; readonly levels: Weight; readonly scales: Weight } | null;
  /** [hidden]. */
  readonly bias: Weight | null;
}

export class FitFile {
  readonly #tensors = new Map<string, Tensor>();

  /** Reads the header of a fit file; the maps stay on disk. @throws Diagnostic OF_FIT. */
  constructor(readonly path: string) {
    const { graph } = this.#open();
    const [node] = graph.nodes();
    if (node) throw passErrors.fit(path, `it computes something (${node.op}), where only initializers are expected`);
    for (const { name, initializer } of graph.initializers) if (initializer) this.#tensors.set(name, initializer);
    if (this.#tensors.size === 0) throw passErrors.fit(path, 'it holds no maps');
  }

  #open(): ReturnType<typeof openModel> {
    try {
      return openModel(this.path);
    } catch (error) {
      if (!(error instanceof Diagnostic)) throw error;
      const why = `it cannot be read as ONNX: ${error.text}`;
      throw passErrors.fit(this.path, errors.noSuchFile.is(error) ? 'there is no such file' : why);
    }
  }

  /**
   * The map for one branch of a stream of `hidden` channels; null where the file has none.
   * @throws Diagnostic OF_FIT for tensors of another type or shape.
   */
  mapOf(part: 'attention' | 'ffn', layer: number, hidden: number): FittedMap | null {
    const name = (what: string): string => `${part}.${layer}.${what}`;
    const find = (what: string): Tensor | undefined => this.#tensors.get(name(what));
    const [left, right, whole, bias] = [find('left'), find('right'), find('weight'), find('bias')];
    if (whole && (left || right))
      throw passErrors.fit(this.path, `'${name('weight')}' is there whole and in two parts`);
    if (Boolean(left) !== Boolean(right)) {
      const [there, gone] = left ? ['left', 'right'] : ['right', 'left'];
      throw passErrors.fit(this.path, `it has '${name(there)}' and no '${name(gone)}'`);
    }
    const rank = left?.dims[1] ?? 0;
    const matrices =
      left && right
        ? ([
            [left, [hidden, rank]],
            [right, [rank, hidden]],
          ] as const)
        : [];
    const blocks = this.#blocks(find('levels'), find('scales'), hidden);
    if (blocks && (whole || left))
      throw passErrors.fit(this.path, `'${name('levels')}' is there beside another matrix`);
    const weights = [...matrices, ...(whole ? [[whole, [hidden, hidden]] as const] : [])];
    const vector = bias && this.#checked(bias, [hidden]);
    if (weights.length === 0 && !blocks && !vector) return null;
    return { matrices: weights.map(([tensor, dims]) => this.#checked(tensor, dims)), blocks, bias: vector ?? null };
  }

  #blocks(levels: Tensor | undefined, scales: Tensor | undefined, hidden: number): FittedMap['blocks'] {
    if (!levels && !scales) return null;
    const count = Math.ceil(hidden / MAP_BLOCK);
    const bits = ((levels?.dims[2] ?? 0) * 8) / MAP_BLOCK;
    const isRight = levels?.dtype === 'uint8' && levels.dims.join() === [hidden, count, levels.dims[2]].join();
    if (!levels?.weight || !isRight || (bits !== 4 && bits !== 8) || !scales) {
      const found = levels
        ? `'${levels.name}' is ${levels.dtype}[${levels.dims.join(', ')}]`
        : 'there are scales alone';
      throw passErrors.fit(this.path, `${found}, where uint8[${hidden}, ${count}, 16 or 32] and scales are needed`);
    }
    return { bits, levels: levels.weight, scales: this.#checked(scales, [hidden, count]) };
  }

  #checked({ name, dtype, dims, weight }: Tensor, expected: readonly number[]): Weight {
    const wanted = `float[${expected.join(', ')}]`;
    if (dtype !== 'float' || dims.join() !== expected.join() || expected.includes(0) || !weight) {
      throw passErrors.fit(this.path, `'${name}' is ${dtype}[${dims.join(', ')}], where ${wanted} is needed`);
    }
    return weight;
  }
}
