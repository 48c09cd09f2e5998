/**
 * One matrix beside a branch that is cut: a rank multiplies its share of what the matrix reads, which every rank has whole,
 * with its rows, and the partial sums join the all-reduce of the branch. With x W = sum_r x[:, r] W[r, :] that costs no
 * collective; the bias is added once, after the sum. Of two matrices whose product is of low rank the first is cut by columns
 * and the second by rows, as gate and down are: x A B = sum_r x A[:, r] B[r, :].
 */

import type { Node, Value } from '../../../ir/core.js';
import type { Weight } from '../../../ir/weight.js';
import { type Rank, shareOfMatrix } from '../../analysis/heads/cut/shares.js';
import type { Portions } from '../../analysis/heads/spread.js';
import { indivisible } from '../../analysis/heads/spread.js';
import type { FfnBranch, LinearBranch } from '../../analysis/layers/layer.js';
import { isSumUpTo, type ResidualStream } from '../../analysis/layers/residual-stream.js';
import type { Linear } from '../../analysis/matrices/linear.js';
import type { Matrix } from '../../analysis/matrices/stored-matrices.js';
import { vectorOf } from '../../analysis/matrices/vectors.js';
import { Refusal } from '../../analysis/refusal.js';
import type { Rewriter } from '../../rewrite/rewriter.js';

/** A linear that joins the all-reduce of a branch on the same sum. */
export class LinearShare {
  /** The operators that multiply, and what they multiply by, in order. */
  readonly #products: readonly { readonly linear: Linear; readonly matrix: Matrix; readonly part: string }[];
  /** The first channel of what this rank reads; null where it reads all. */
  readonly #start: number | null;
  /** [hidden]; added after the all-reduce. */
  readonly bias: Weight | null;

  /** Throws Refusal where the linear cannot be cut beside `host`. `name` is that of its weights. */
  constructor(
    readonly branch: LinearBranch,
    host: FfnBranch | null,
    readonly rank: Rank,
    readonly name: string,
  ) {
    const { linear, right, bias, tail } = branch;
    if (!host)
      throw new Refusal('no FFN that is cut shares its sum, and to cut one matrix alone would cost a collective');
    if ([tail, host.ffn.tail].some((text) => text !== '' && text !== '+bias')) {
      throw new Refusal('something follows its product, or that of the FFN beside it, before they are added up');
    }
    if (host.ffn.down.matrix.dtype !== linear.matrix.dtype) {
      throw new Refusal('the FFN beside it gives another element type');
    }
    const last = right ?? linear;
    const size = last.inWidth / rank.ranks;
    const unit = last.matrix.rowAlignment;
    if (!Number.isInteger(size) || size % unit !== 0) {
      throw indivisible(last.inWidth, 'channel', rank.ranks, right ? ' between its two matrices' : '');
    }
    const portions: Portions = { parts: [[last.inWidth]], cuts: [{ size, pieces: rank.ranks }] };
    const rows = shareOfMatrix(last.matrix, 'in', portions, rank);
    this.#products = right
      ? [
          { linear, matrix: shareOfMatrix(linear.matrix, 'out', portions, rank), part: 'left' },
          { linear: right, matrix: rows, part: 'right' },
        ]
      : [{ linear, matrix: rows, part: '' }];
    this.#start = right ? null : rank.rank * size;
    this.bias = bias && vectorOf(bias.weight, last.outWidth);
  }

  /** Adds this rank's share to `partial`, for all who read that, and takes the linear out of its sum. Returns the result. */
  join(partial: Value, { position }: ResidualStream, rewriter: Rewriter, opset: number): Value {
    const { branch, name } = this;
    const { linear, output, stage } = branch;
    const { graph } = rewriter;
    const host = partial.producer as Node;
    rewriter.hoist(linear.input, host);
    let product = linear.input;
    if (this.#start !== null) {
      const end = this.#start + (this.#products[0]?.matrix.inWidth as number);
      product = rewriter.addSlice(host, product, -1, this.#start, end, `${name}.share`, opset);
    }
    for (const each of this.#products) product = this.#multiply(product, each, host, rewriter);
    const readers = partial.uses;
    const spec = { opType: 'Add', name: `${name}/partial`, inputs: [partial, product] };
    const made = graph.addNode({ ...spec, outputs: [{ name: `${name}.sum`, type: partial.type }] }, { after: host });
    const sum = made.output(0) as Value;
    for (const { node, index } of readers) node.setInput(index, sum);
    rewriter.dropTerm(output, isSumUpTo(stage.end, stage.start, position));
    rewriter.eraseProducer(output);
    return sum;
  }

  #multiply(
    value: Value,
    { linear, matrix, part }: { readonly linear: Linear; readonly matrix: Matrix; readonly part: string },
    host: Node,
    rewriter: Rewriter,
  ): Value {
    const name = part === '' ? this.name : `${this.name}.${part}`;
    const isBlocks = matrix.kind === 'nbits';
    const product = rewriter.graph.addNode(
      {
        opType: isBlocks ? linear.node.opType : 'MatMul',
        domain: isBlocks ? linear.node.domain : '',
        name: `${name}/MatMul`,
        inputs: [value],
        outputs: [{ name: `${name}.partial`, type: part === 'left' ? null : linear.output.type }],
        attributes: isBlocks ? Object.fromEntries(linear.node.attributes) : {},
      },
      { before: host },
    );
    matrix.install(product, rewriter, `${name}.weight`);
    return product.output(0) as Value;
  }
}
