/**
 * What a changed model's next-token scores are worth beside the original's, computed by onnxruntime behind the model's own
 * head: a few numbers a position leave it instead of a vocabulary of scores.
 */
import type { Graph, Value } from '../../ir/core.js';
import { tensorType } from '../../ir/type.js';
import type { Quality } from '../quality/quality.js';
import { Formula, int, ints } from './formula.js';
import { dropDead } from './pieces.js';

/** Inputs and outputs of the judging head. */
export const JUDGE = {
  /** The original's probabilities times SCALE, [rows, tokens, vocabulary], and sum p log p, float. */
  probabilities: 'onnx_fuse.probabilities',
  entropy: 'onnx_fuse.entropy',
  /** The tokens that the original likes best, int64 [rows, tokens, 5]. */
  favourites: 'onnx_fuse.favourites',
  /** The token that really comes next, int64 [rows, tokens, 1]. */
  targets: 'onnx_fuse.targets',
  /** Each float [rows, tokens, 1]. */
  kl: 'onnx_fuse.kl',
  loss: 'onnx_fuse.loss',
  referenceLoss: 'onnx_fuse.reference_loss',
  /** 1 where the changed model's favourite is the original's, and where it is among the original's five. */
  top1: 'onnx_fuse.top1',
  top5: 'onnx_fuse.top5',
  /** Sum over the vocabulary of min(p, q): how often a draft by the changed model is accepted by the original. */
  overlap: 'onnx_fuse.overlap',
} as const;

/** What the original says of each position, to be fed to the judging head. */
export const REFERENCE = [JUDGE.probabilities, JUDGE.entropy, JUDGE.favourites, JUDGE.referenceLoss] as const;
export const JUDGED = [JUDGE.kl, JUDGE.loss, JUDGE.top1, JUDGE.top5] as const;

/** Probabilities are stored times this, so that float16 holds those down to 4e-12. */
const SCALE = 2 ** 14;
const FAVOURITES = 5;

/** Numbers per position of one row of a batch, in the order of its tokens but the last. */
export type Judgement = { readonly [K in (typeof JUDGED)[number] | typeof JUDGE.referenceLoss]: Float32Array } & {
  readonly [JUDGE.overlap]?: Float32Array;
};

/** What the numbers of all positions come to. Sums are in float64. */
export function qualityOf(judgements: readonly Judgement[]): Quality & { readonly originalPerplexity: number } {
  let [positions, kl, maxKl, loss, referenceLoss, top1, top5, overlap] = [0, 0, 0, 0, 0, 0, 0, 0];
  const byPosition: { sum: number; count: number }[] = [];
  for (const judgement of judgements) {
    const at = (name: keyof Judgement, i: number): number => (judgement[name]?.[i] ?? Number.NaN) as number;
    for (let i = 0; i < judgement[JUDGE.kl].length; i++) {
      // What is no number is as bad as can be.
      const own = Number.isNaN(at(JUDGE.kl, i)) ? Number.POSITIVE_INFINITY : at(JUDGE.kl, i);
      positions++;
      kl += own;
      maxKl = Math.max(maxKl, own);
      loss += at(JUDGE.loss, i);
      referenceLoss += at(JUDGE.referenceLoss, i);
      overlap += at(JUDGE.overlap, i);
      top1 += at(JUDGE.top1, i);
      top5 += at(JUDGE.top5, i);
      byPosition[i] ??= { sum: 0, count: 0 };
      (byPosition[i] as { sum: number }).sum += own;
      (byPosition[i] as { count: number }).count++;
    }
  }
  return {
    kl: kl / positions,
    maxKl,
    perplexity: Math.exp(loss / positions),
    perplexityIncrease: Math.exp((loss - referenceLoss) / positions) - 1,
    top1: top1 / positions,
    top5: top5 / positions,
    overlap: Number.isNaN(overlap) ? null : overlap / positions,
    klByPosition: byPosition.map(({ sum, count }) => sum / count),
    positions,
    originalPerplexity: Math.exp(referenceLoss / positions),
  };
}

/** Ends a model in what REFERENCE names: the original's side. The probabilities are of element type `dtype`. */
export function giveReference(opset: number, dtype: 'float' | 'float16'): (graph: Graph, logits: Value) => void {
  return (graph, logits) => {
    const build = new Head(graph, opset);
    const targets = build.input(JUDGE.targets, 'int64');
    const scores = build.cast(logits, 'float');
    const logarithms = build.node('LogSoftmax', [scores], 'float', LAST);
    const scaled = build.node('Mul', [build.node('Exp', [logarithms]), build.number(SCALE)]);
    const stored = build.cast(scaled, dtype);
    // The sums are of what is stored, rounding included.
    const kept = build.cast(stored, 'float');
    build.give(JUDGE.probabilities, stored, dtype);
    build.give(JUDGE.entropy, build.scaledSum(build.node('Mul', [kept, logarithms])));
    build.give(JUDGE.favourites, build.best(scores), 'int64');
    build.give(JUDGE.referenceLoss, build.node('Neg', [build.pick(logarithms, targets)]));
    dropDead(graph);
  };
}

/**
 * Ends a model in what JUDGED names, held against the original's side: KL = sum p log p - sum p log q. The overlap takes as
 * long as all else together, so it is left out where nobody asks for it.
 */
export function giveJudgement(
  opset: number,
  dtype: 'float' | 'float16',
  withOverlap: boolean,
): (graph: Graph, logits: Value) => void {
  return (graph, logits) => {
    const build = new Head(graph, opset);
    const reference = build.cast(build.input(JUDGE.probabilities, dtype), 'float');
    const entropy = build.input(JUDGE.entropy, 'float');
    const [favourites, targets] = [build.input(JUDGE.favourites, 'int64'), build.input(JUDGE.targets, 'int64')];
    const own = build.node('LogSoftmax', [build.cast(logits, 'float')], 'float', LAST);
    const favourite = build.node('ArgMax', [own], 'int64', { ...LAST, keepdims: int(1) });
    build.give(JUDGE.kl, build.node('Sub', [entropy, build.scaledSum(build.node('Mul', [reference, own]))]));
    build.give(JUDGE.loss, build.node('Neg', [build.pick(own, targets)]));
    const agrees = build.cast(build.node('Equal', [favourites, favourite], 'bool'), 'float');
    build.give(JUDGE.top1, build.pick(agrees, build.spread(0, favourite)));
    build.give(JUDGE.top5, build.sum(agrees));
    if (withOverlap) {
      const scaled = build.node('Mul', [build.node('Exp', [own]), build.number(SCALE)]);
      build.give(JUDGE.overlap, build.scaledSum(build.node('Min', [reference, scaled])));
    }
    dropDead(graph);
  };
}

const LAST = { axis: int(-1) };

/** What is computed from the scores; the last axis is the vocabulary. */
class Head extends Formula {
  constructor(
    graph: Graph,
    readonly opset: number,
  ) {
    super(graph);
  }

  /** The number for each element of `like`. */
  spread(value: number, like: Value): Value {
    return this.node('Mul', [like, this.number(value, 'int64')], 'int64');
  }

  /** The sum over the vocabulary of what SCALE is a factor of. */
  scaledSum(value: Value): Value {
    return this.node('Mul', [this.sum(value), this.number(1 / SCALE)]);
  }

  /** The tokens with the highest scores, the best first. */
  best(scores: Value): Value {
    const name = this.graph.names.fresh('onnx_fuse.best');
    const outputs = [
      { name: `${name}.scores`, type: tensorType('float', null) },
      { name, type: tensorType('int64', null) },
    ];
    const inputs = [scores, this.number(FAVOURITES, 'int64')];
    return this.graph.addNode({ opType: 'TopK', name, inputs, outputs, attributes: LAST }).output(1) as Value;
  }

  pick(values: Value, at: Value): Value {
    return this.node('GatherElements', [values, at], 'float', LAST);
  }

  /** Over the vocabulary. Axes are an operand of ReduceSum from opset 13 on. */
  sum(value: Value): Value {
    const keepdims = int(1);
    return this.opset < 13
      ? this.node('ReduceSum', [value], 'float', { keepdims, axes: ints(-1) })
      : this.node('ReduceSum', [value, this.number(-1, 'int64')], 'float', { keepdims });
  }
}
