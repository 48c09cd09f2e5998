/**
 * Sums over the ranks. Branches that are terms of one sum need one all-reduce together: they read one stream, and nothing of one
 * is needed to compute another. Where nothing but a bias follows their products, the products are added up first:
 *
 *     x + all_reduce(a) + all_reduce(f)          ->   x + all_reduce(a + f)
 *
 * Where something does (the norm behind each branch of Gemma 2 and OLMo 2, a factor), they are sent side by side:
 *
 *     x + n1(all_reduce(f1)) + n2(all_reduce(f2))   ->   x + n1(s1) + n2(s2),  [s1, s2] = all_reduce([f1, f2])
 */
import type { Node, Value } from '../../../ir/core.js';
import { type DataType, tensorType } from '../../../ir/type.js';
import type { Weight } from '../../../ir/weight.js';
import type { Branch } from '../../analysis/layers/layer.js';
import {
  biasOperand,
  isSkipNorm,
  isSumUpTo,
  type ResidualStream,
  type Stage,
} from '../../analysis/layers/residual-stream.js';
import { vectorOf } from '../../analysis/matrices/vectors.js';
import { attempt, Refusal } from '../../analysis/refusal.js';
import { constantOf } from '../../analysis/values/constants.js';
import type { Rewriter } from '../../rewrite/rewriter.js';
import type { CollectiveWriter } from './collectives.js';

/** What a rank has of a branch, which the ranks have yet to sum. */
export interface PartialSum {
  readonly value: Value;
  readonly dtype: DataType;
  readonly width: number;
  /** Dimensions of the value, 2 where batch and tokens are one for the product (Gemm); null where that is not known. */
  readonly rank: number | null;
  readonly place: string;
  /** What the names of its collective and weights begin with. */
  readonly name: string;
  /** Added once, after the sum. */
  readonly biases: readonly Weight[];
  readonly branch: Branch;
}

/** A branch whose sum is made with that of others. */
export interface SharedSum {
  readonly place: string;
  readonly beside: string;
}

/** Concat and Split take the last axis as -1 from here on. */
const LAST_AXIS_OPSET = 11;

/** Puts all-reduces behind all of them, one for each sum of the stream where that can be. Returns those that share one. */
export function sumOverRanks(
  partials: readonly PartialSum[],
  writer: CollectiveWriter,
  rewriter: Rewriter,
  stream: ResidualStream,
  opset: number,
): SharedSum[] {
  const byStage = new Map<Stage, PartialSum[]>();
  for (const partial of partials) {
    const { stage } = partial.branch;
    byStage.set(stage, [...(byStage.get(stage) ?? []), partial]);
  }
  const shared: SharedSum[] = [];
  for (const group of byStage.values()) {
    const [first] = group as [PartialSum];
    const fits = ({ dtype, rank }: PartialSum): boolean => dtype === first.dtype && rank === first.rank;
    const together = opset >= LAST_AXIS_OPSET && group.every(fits) && areApart(group);
    for (const set of together ? [group] : group.map((each) => [each])) {
      const left = joined(set, rewriter, stream);
      if (left.length === 1) reduce(left[0] as PartialSum, writer, rewriter);
      else sideBySide(left, writer, rewriter, opset);
      const [head, ...others] = set as [PartialSum];
      for (const { place } of others) shared.push({ place, beside: head.place });
    }
  }
  return shared;
}

/** Whether none of the products is computed from another. */
function areApart(group: readonly PartialSum[]): boolean {
  const values = new Set(group.map(({ value }) => value));
  return group.every(({ value }) => {
    const seen = new Set<Node>();
    const open = [value.producer];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (!node || seen.has(node)) continue;
      seen.add(node);
      for (const input of node.inputs) {
        if (input && values.has(input)) return false;
        open.push(input?.producer ?? null);
      }
    }
    return true;
  });
}

/** The vectors that are added behind a product which is otherwise a term of its sum; null where something else follows. */
function plainTail({ value, width, branch: { output, stage } }: PartialSum): readonly Weight[] | null {
  const { end } = stage;
  // The bias operand of a skip norm goes with a term that is taken out of it.
  if ('opType' in end && isSkipNorm(end) && end.input(biasOperand(end))) return null;
  // Who else reads it, an FFN of its own block, needs it by itself.
  if (output.uses.length !== 1) return null;
  if (value === output) return [];
  const node = output.producer;
  const [use, second] = value.uses;
  if (node?.op !== 'Add' || use?.node !== node || second) return null;
  const constant = constantOf(node.input(1 - use.index));
  const bias = constant && attempt(() => vectorOf(constant, width));
  return bias && !(bias instanceof Refusal) ? [bias] : null;
}

/** Adds up those of the products behind which nothing but a bias follows. Returns what is left to be summed over the ranks. */
function joined(group: readonly PartialSum[], rewriter: Rewriter, { position }: ResidualStream): PartialSum[] {
  const tails = new Map(group.map((each) => [each, plainTail(each)]));
  const [host, ...others] = group.filter((each) => tails.get(each) && !each.value.isGraphOutput);
  if (!host || others.length === 0) return [...group];
  const { graph } = rewriter;
  let { value, biases } = host;
  for (const other of others) {
    const { output, stage } = other.branch;
    const readers = value.uses;
    const anchor = rewriter.earliest(readers.map(({ node }) => node));
    rewriter.hoist(other.value, anchor);
    const outputs = [{ name: `${other.name}.partial`, type: value.type }];
    const spec = { opType: 'Add', name: `${other.name}/partial`, inputs: [value, other.value], outputs };
    const sum = graph.addNode(spec, { before: anchor }).output(0) as Value;
    for (const { node, index } of readers) node.setInput(index, sum);
    rewriter.dropTerm(output, isSumUpTo(stage.end, stage.start, position));
    if (output !== other.value) rewriter.eraseProducer(output);
    biases = [...biases, ...other.biases, ...(tails.get(other) ?? [])];
    value = sum;
  }
  const place = [host, ...others].map((each) => each.place).join(' and ');
  return group.flatMap((each) =>
    each === host ? [{ ...host, value, biases, place }] : others.includes(each) ? [] : [each],
  );
}

function reduce(
  { value, dtype, width, place, name, biases }: PartialSum,
  writer: CollectiveWriter,
  rewriter: Rewriter,
): void {
  const sum = writer.allReduce(value, dtype, width, place, `${name}.all_reduce`);
  for (const bias of biases) addBias(sum, bias, name, rewriter);
}

/** One all-reduce of all of them, one after another along the last axis. */
function sideBySide(group: readonly PartialSum[], writer: CollectiveWriter, rewriter: Rewriter, opset: number): void {
  const { graph } = rewriter;
  const [{ name, dtype, value }] = group as [PartialSum];
  const readers = group.map((each) => each.value.uses);
  const anchor = rewriter.earliest(readers.flat().map(({ node }) => node));
  for (const each of group) rewriter.hoist(each.value, anchor);
  const widths = group.map(({ width }) => width);
  const width = widths.reduce((sum, each) => sum + each, 0);
  const type = value.shape ? tensorType(dtype, [...value.shape.slice(0, -1), width]) : null;
  const inputs = group.map((each) => each.value);
  const attributes = { axis: { kind: 'int', value: -1n } } as const;
  const spec = {
    opType: 'Concat',
    name: `${name}/beside`,
    inputs,
    outputs: [{ name: `${name}.beside`, type }],
    attributes,
  };
  const beside = graph.addNode(spec, { before: anchor }).output(0) as Value;
  const outputs = group.map((each) => ({ name: `${each.name}.sum`, type: each.value.type }));
  const split = { axis: -1, sizes: widths, outputs, name: `${name}.sums`, opset };
  const sums = rewriter.addSplit(beside, split, { before: anchor });
  for (const [i, uses] of readers.entries()) {
    for (const { node, index } of uses) node.setInput(index, sums[i] as Value);
  }
  const place = group.map((each) => each.place).join(' and ');
  writer.allReduce(beside, dtype, width, place, `${name}.all_reduce`);
  for (const [i, each] of group.entries()) {
    for (const bias of each.biases) addBias(sums[i] as Value, bias, each.name, rewriter);
  }
}

function addBias(sum: Value, bias: Weight, name: string, rewriter: Rewriter): void {
  const readers = sum.uses;
  const { graph } = rewriter;
  const operand = rewriter.addWeight(`${name}.output.bias`, bias);
  const spec = { opType: 'Add', name: `${name}.output/bias`, inputs: [sum, operand] };
  const outputs = [{ name: `${name}.output.biased`, type: sum.type }];
  const at = sum.producer ? { after: sum.producer } : { before: rewriter.earliest(readers.map(({ node }) => node)) };
  const added = graph.addNode({ ...spec, outputs }, at).output(0) as Value;
  for (const { node, index } of readers) node.setInput(index, added);
}
