/** One rank's share of one branch: everything is made before anything is changed. */
import type { Node, Value } from '../../../ir/core.js';
import type { Weight } from '../../../ir/weight.js';
import type { CutBranch } from '../../analysis/heads/cut/branch.js';
import { pieceOf, type Rank, shareOfMatrix, shareOfWeight } from '../../analysis/heads/cut/shares.js';
import type { HeadEdit } from '../../analysis/heads/edits.js';
import type { Branch } from '../../analysis/layers/layer.js';
import type { ResidualStream } from '../../analysis/layers/residual-stream.js';
import { shardName } from '../../analysis/layers/weight-names.js';
import type { Linear } from '../../analysis/matrices/linear.js';
import type { Matrix } from '../../analysis/matrices/stored-matrices.js';
import { filled, vectorOf } from '../../analysis/matrices/vectors.js';
import { Dimensions } from '../../analysis/values/dimensions.js';
import { eraseUnreadReaders } from '../../rewrite/readers.js';
import type { Rewriter } from '../../rewrite/rewriter.js';
import { resize, SizePatcher } from '../../rewrite/size-patcher.js';
import type { LinearShare } from './linear-share.js';
import type { PartialSum } from './shared-sum.js';

/** The names of a node's operands that are initializers; null for the others. */
function weightNames(node: Node): (string | null)[] {
  return node.inputs.map((value) => (value?.initializer ? value.name : null));
}

interface Share {
  readonly matrix: Matrix;
  readonly bias: Weight | null;
}

/**
 * The share of one rank, made for all of them: where one rank's cannot be, as where only the last one would be filled up
 * with zeros, no rank cuts, or those that do would wait for it for ever.
 */
function shareFor<T>(own: Rank, share: (rank: Rank) => T): T {
  const all = Array.from({ length: own.ranks }, (_, rank) => share({ ...own, rank }));
  return all[own.rank] as T;
}

/** What a rank holds of one branch: everything is made before anything is changed. */
export class Sharder {
  readonly #prefix: string;
  readonly #sizes: SizePatcher;
  readonly #inputs: readonly Share[];
  readonly #output: Matrix;
  readonly #constants = new Map<HeadEdit, Weight>();
  /** Shares -> the names that the whole weights had. */
  readonly renamed = new Map<Value, string>();

  /** Linears that join its all-reduce. */
  readonly beside: LinearShare[] = [];

  /** Throws Refusal where a weight cannot be cut. */
  constructor(
    readonly cut: CutBranch,
    readonly branch: Branch,
    readonly rewriter: Rewriter,
    readonly rank: Rank,
    readonly opset: number,
  ) {
    const { region, last, input, label, role } = cut;
    this.#prefix = shardName(label, role);
    this.#sizes = new SizePatcher(rewriter, region.dimensions, this.#prefix);
    this.#inputs = region.linears.map(({ linears, ...portions }) => {
      const [linear] = linears as [Linear];
      const { matrix, bias, outWidth } = linear;
      return {
        matrix: shareFor(rank, (each) => shareOfMatrix(matrix, 'out', portions, each)),
        bias: bias && shareOfWeight(vectorOf(bias.weight, outWidth), 0, portions, rank),
      };
    });
    this.#output = shareFor(rank, (each) => shareOfMatrix(last.matrix, 'in', input, each));
    for (const edit of region.edits) {
      if (edit.kind !== 'constant') continue;
      this.#constants.set(edit, shareOfWeight(edit.weights[0] as Weight, edit.axis, edit, rank));
    }
  }

  /** Puts the shares in their places. Returns what the ranks have yet to sum. */
  apply(stream: ResidualStream): PartialSum {
    const { types } = stream;
    const { region, last, label, role } = this.cut;
    const { rewriter } = this;
    for (const value of region.spreads.keys()) eraseUnreadReaders(value, rewriter);
    for (const edit of region.edits) this.#edit(edit);
    for (const [i, { linears }] of region.linears.entries()) {
      const [linear] = linears as [Linear];
      const { matrix, bias } = this.#inputs[i] as Share;
      const spread = region.spreads.get(linear.output);
      const names = weightNames(linear.node);
      const result = rewriter.installLinear(linear, matrix, bias, this.#name(`input_${i}`));
      if (linear.isPlain) this.#noteNames(linear.node, names);
      if (spread && result !== linear.output) resize(result, spread);
    }
    for (const [value, spread] of region.spreads) if (!value.producer?.isRemoved) resize(value, spread);
    const names = weightNames(last.node);
    this.#output.install(last.node, rewriter, this.#name('output.weight'));
    this.#noteNames(last.node, names);
    const own = last.node.output(0) as Value;
    const partial = this.beside.reduce((at, share) => share.join(at, stream, rewriter, this.opset), own);
    const dtype = types.get(own) ?? last.matrix.dtype;
    const bias = this.#takeBias(last);
    const biases = [bias, ...this.beside.map((share) => share.bias)].filter((each) => each !== null);
    return {
      value: partial,
      dtype,
      width: last.outWidth,
      rank: /Gemm/.test(last.node.opType) ? 2 : (new Dimensions().shape(own)?.length ?? null),
      place: `layer ${label} ${role}`,
      name: this.#prefix,
      biases,
      branch: this.branch,
    };
  }

  #noteNames(node: Node, names: readonly (string | null)[]): void {
    for (const [index, name] of names.entries()) {
      const value = node.input(index);
      if (name !== null && value?.initializer && value.name !== name) this.renamed.set(value, name);
    }
  }

  #name(part: string): string {
    return `${this.#prefix}.${part}`;
  }

  #edit(edit: HeadEdit): void {
    const { node } = edit;
    const { rewriter } = this;
    switch (edit.kind) {
      case 'attribute':
        node.setAttribute(edit.name, edit.attribute);
        return;
      case 'element': {
        const old = node.input(edit.index) as Value;
        rewriter.replaceOperand(node, edit.index, this.#sizes.withElement(old, edit.position, edit.value));
        return;
      }
      case 'constant': {
        const share = this.#constants.get(edit) as Weight;
        rewriter.replaceOperand(node, edit.index, rewriter.addWeight(this.#name('constant'), share));
        return;
      }
      case 'sliced': {
        const start = pieceOf(edit.cut, this.rank) * edit.cut.size;
        const old = node.input(edit.index) as Value;
        const share = this.#name('share');
        const made = rewriter.addSlice(node, old, edit.axis, start, start + edit.cut.size, share, this.opset);
        node.setInput(edit.index, made);
        return;
      }
      default:
        throw new RangeError(`one branch alone has no edit of kind ${edit.kind}`);
    }
  }

  /** The bias inside the last projection is added once, after the sum. */
  #takeBias({ node, bias }: Linear): Weight | null {
    if (!bias) return null;
    // Gemm cannot do without it before opset 11.
    if (node.op === 'Gemm' && this.opset < 11) {
      const zeros = filled(bias.weight, 0);
      this.rewriter.replaceOperand(node, bias.index, this.rewriter.addWeight(this.#name('output.no_bias'), zeros));
      return bias.weight;
    }
    const old = node.input(bias.index);
    node.truncateInputs(bias.index);
    this.rewriter.eraseProducer(old);
    return bias.weight;
  }
}
