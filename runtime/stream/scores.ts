/**
 * What a changed model's next-token scores are worth beside the original's, computed by onnxruntime behind the model's own
 * head: a few numbers a position leave it instead of a vocabulary of scores.
 */
import type { Graph, Value } from '../../ir/core.js';
import { Tensor } from '../../ir/core.js';
import { type DataType, dataTypeCode, tensorType } from '../../ir/type.js';
import { inlineWeight } from '../../ir/weight.js';
import type { Quality } from '../quality/quality.js';
import { dropDead, PIECE } from './pieces.js';

/** Inputs and outputs of the judging head. */
export const JUDGE = {
  /** The original's log-probabilities, [rows, tokens, vocabulary]. */
  reference: 'onnx_fuse.reference',
  /** The token that really comes next, int64 [rows, tokens, 1]. */
  targets: 'onnx_fuse.targets',
  /** Each float [rows, tokens, 1]. */
  kl: 'onnx_fuse.kl',
  loss: 'onnx_fuse.loss',
  referenceLoss: 'onnx_fuse.reference_loss',
  /** How many tokens the original likes better than the changed model's favourite. */
  rank: 'onnx_fuse.rank',
  /** Sum over the vocabulary of min(p, q): how often a draft by the changed model is accepted by the original. */
  overlap: 'onnx_fuse.overlap',
} as const;

export const JUDGED = [JUDGE.kl, JUDGE.loss, JUDGE.referenceLoss, JUDGE.rank, JUDGE.overlap] as const;

/** Numbers per position of one row of a batch, in the order of its tokens but the last. */
export type Judgement = { readonly [K in (typeof JUDGED)[number]]: Float32Array };

/** What the numbers of all positions come to. Sums are in float64. */
export function qualityOf(judgements: readonly Judgement[]): Quality & { readonly originalPerplexity: number } {
  let [positions, kl, maxKl, loss, referenceLoss, top1, top5, overlap] = [0, 0, 0, 0, 0, 0, 0, 0];
  const byPosition: { sum: number; count: number }[] = [];
  for (const judgement of judgements) {
    const at = (name: (typeof JUDGED)[number], i: number): number => judgement[name][i] as number;
    for (let i = 0; i < judgement[JUDGE.kl].length; i++) {
      // What is no number is as bad as can be.
      const own = Number.isNaN(at(JUDGE.kl, i)) ? Number.POSITIVE_INFINITY : at(JUDGE.kl, i);
      positions++;
      kl += own;
      maxKl = Math.max(maxKl, own);
      loss += at(JUDGE.loss, i);
      referenceLoss += at(JUDGE.referenceLoss, i);
      overlap += at(JUDGE.overlap, i);
      if (at(JUDGE.rank, i) === 0) top1++;
      if (at(JUDGE.rank, i) < 5) top5++;
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
    overlap: overlap / positions,
    klByPosition: byPosition.map(({ sum, count }) => sum / count),
    positions,
    originalPerplexity: Math.exp(referenceLoss / positions),
  };
}

/** Ends a model in the log-probabilities of its scores: the original's side. */
export function giveReference(opset: number, dtype: 'float' | 'float16'): (graph: Graph, logits: Value) => void {
  return (graph, logits) => {
    const build = new Formula(graph, opset);
    build.give(PIECE.result, build.cast(build.logProbabilities(logits), dtype), dtype);
    dropDead(graph);
  };
}

/** Ends a model in the numbers of JUDGED, held against the original's log-probabilities. */
export function giveJudgement(opset: number, dtype: 'float' | 'float16'): (graph: Graph, logits: Value) => void {
  return (graph, logits) => {
    const build = new Formula(graph, opset);
    const reference = build.cast(graph.addInput(JUDGE.reference, tensorType(dtype, null)), 'float');
    const targets = graph.addInput(JUDGE.targets, tensorType('int64', null));
    const own = build.logProbabilities(logits);
    const probability = build.node('Exp', [reference]);
    const difference = build.node('Sub', [reference, own]);
    build.give(JUDGE.kl, build.sum(build.node('Mul', [probability, difference])));
    build.give(JUDGE.loss, build.node('Neg', [build.pick(own, targets)]));
    build.give(JUDGE.referenceLoss, build.node('Neg', [build.pick(reference, targets)]));
    const favourite = build.pick(reference, build.favourite(own));
    const better = build.cast(build.node('Greater', [reference, favourite], 'bool'), 'float');
    build.give(JUDGE.rank, build.sum(better));
    build.give(JUDGE.overlap, build.sum(build.node('Min', [probability, build.node('Exp', [own])])));
    dropDead(graph);
  };
}

/** Nodes after the scores; the last axis is the vocabulary. */
class Formula {
  constructor(
    readonly graph: Graph,
    readonly opset: number,
  ) {}

  node(opType: string, inputs: readonly Value[], dtype: DataType = 'float', attributes: object = {}): Value {
    const name = this.graph.names.fresh(`onnx_fuse.${opType}`);
    const outputs = [{ name, type: tensorType(dtype, null) }];
    return this.graph.addNode({ opType, name, inputs, outputs, attributes: { ...attributes } }).output(0) as Value;
  }

  cast(value: Value, dtype: DataType): Value {
    return this.node('Cast', [value], dtype, { to: { kind: 'int', value: BigInt(dataTypeCode(dtype)) } });
  }

  logProbabilities(logits: Value): Value {
    return this.node('LogSoftmax', [this.cast(logits, 'float')], 'float', { axis: { kind: 'int', value: -1n } });
  }

  favourite(scores: Value): Value {
    const attributes = { axis: { kind: 'int', value: -1n }, keepdims: { kind: 'int', value: 1n } };
    return this.node('ArgMax', [scores], 'int64', attributes);
  }

  pick(values: Value, at: Value): Value {
    return this.node('GatherElements', [values, at], 'float', { axis: { kind: 'int', value: -1n } });
  }

  /** Over the vocabulary. Axes are an operand of ReduceSum from opset 13 on. */
  sum(value: Value): Value {
    const keepdims = { kind: 'int', value: 1n };
    if (this.opset < 13)
      return this.node('ReduceSum', [value], 'float', { keepdims, axes: { kind: 'ints', value: [-1n] } });
    const name = this.graph.names.fresh('onnx_fuse.axes');
    const weight = inlineWeight(new Uint8Array(new BigInt64Array([-1n]).buffer), 'int64', [1]);
    const axes = this.graph.addInitializer(name, new Tensor(name, 'int64', [1], weight));
    return this.node('ReduceSum', [value, axes], 'float', { keepdims });
  }

  give(name: string, value: Value, dtype: DataType = 'float'): void {
    const spec = { opType: 'Identity', inputs: [value], outputs: [{ name, type: tensorType(dtype, null) }] };
    this.graph.addOutput(this.graph.addNode(spec).output(0) as Value);
  }
}
