/**
 * The residual stream, found by data flow and not by names or node patterns.
 *
 * Take the part of the graph that lies on paths from the token embedding to the logits. A value that *every* such path
 * passes through is a cut point: nothing bypasses it. In a pre-norm transformer the values of the residual stream are
 * cut points, and inside a branch nothing is, because the residual bypasses it. So the cut points chop the network into
 * a chain of stages; a stage whose end is a sum with the stage's own start as one term is a residual stage, and its
 * other terms are the branches. `stages.ts` does this, also where something bypasses the stream; `find-stream.ts` finds the
 * embedding and the output.
 *
 * Skip*LayerNormalization is read as its parts: a sum (output 3, which may be absent) and a norm of that sum.
 * Shape and Size do not carry data, so position and mask arithmetic does not count as a path.
 *
 * One pass over the nodes per candidate embedding: linear.
 */
import type { Graph, Node, Value } from '../../../ir/core.js';
import type { DataType } from '../../../ir/type.js';
import { constantOf } from '../values/constants.js';
import type { ElementTypes } from '../values/element-types.js';

/** A place in the data flow: a value, or the sum inside a Skip*LayerNormalization (named by its node). */
export type Point = Value | Node;

/** One stage between two neighbouring points of the stream. */
export interface Stage {
  readonly start: Point;
  readonly end: Point;
  /**
   * The term of the sum that takes up the start: the start itself, a copy of it, or a Cast that widens it. Null for a stage
   * that is not residual.
   */
  readonly root: Value | null;
  /** Terms of the sum that ends a residual stage, without the start itself; empty for any other stage. */
  readonly branches: readonly Value[];
  readonly isResidual: boolean;
  /** True where something bypasses the start: keys that a later attention reads again, an embedding of each layer. */
  readonly isBypassed: boolean;
  /** Place among the stages. */
  readonly index: number;
}

/** The residual stream of a graph, from the embedding to the last sum. */
export interface ResidualStream {
  readonly graph: Graph;
  readonly types: ElementTypes;
  readonly stages: readonly Stage[];
  readonly endingAt: ReadonlyMap<Point, Stage>;
  /** Position of every point that lies on a path from the embedding to the output. */
  readonly position: ReadonlyMap<Point, number>;
  readonly embedding: Point | null;
  readonly output: Point | null;
}

const SKIP_NORMS = new Set(['SkipSimplifiedLayerNormalization', 'SkipLayerNormalization']);

/** True for com.microsoft SkipLayerNormalization and SkipSimplifiedLayerNormalization, which have four results and no fifth. */
export function isSkipNorm(node: Node | null): boolean {
  return node?.domain === 'com.microsoft' && SKIP_NORMS.has(node.opType) && node.outputs.length <= 4;
}

/** Why a term cannot leave a sum that a norm takes up: its mean (output 1) or inverse deviation (output 2) is read, too. */
export function statisticsOf(end: Point): string | null {
  const isRead = 'opType' in end && isSkipNorm(end) && [1, 2].some((i) => end.output(i)?.isUnused === false);
  return isRead ? 'the norm behind its sum also gives its mean or deviation to readers, which would get another' : null;
}

/** The operand of a skip norm that holds the bias of the projection before it. */
export function biasOperand(skip: Node): number {
  return skip.opType === 'SkipLayerNormalization' ? 4 : 3;
}

/** Which output of a fused add-and-norm operator is the sum; null for every other operator. */
export function sumOutput(node: Node): number | null {
  if (isSkipNorm(node)) return 3;
  return node.op === 'com.microsoft.EmbedLayerNormalization' ? 2 : null;
}

/** The point a value stands for: the sum output of a skip norm is the sum inside it. */
export function pointOf(value: Value): Point {
  const { producer } = value;
  return producer && value.index === sumOutput(producer) ? producer : value;
}

/** The value at a point; null for the sum of a skip norm that does not expose it. */
export function valueAt(point: Point): Value | null {
  return 'opType' in point ? point.output(sumOutput(point) ?? 0) : point;
}

/** The points `node` computes, each with the points it reads, in dependency order. */
export function* flowsOf(node: Node): Generator<[Point, Point[]]> {
  if (isShapeQuery(node)) return;
  const reads: Point[] = [];
  // CastLike takes only the type of its second operand.
  const operands = node.op === 'CastLike' ? node.inputs.slice(0, 1) : node.inputs;
  for (const value of operands) if (value) reads.push(pointOf(value));
  for (const graph of node.subgraphs) for (const value of capturesOf(graph)) reads.push(pointOf(value));
  const sum = sumOutput(node);
  if (sum === null) {
    for (const value of node.outputs) if (value) yield [value, reads];
    return;
  }
  yield [node, reads];
  for (const value of node.outputs) if (value && value.index !== sum) yield [value, [node]];
}

/** Values of enclosing graphs that a subgraph reads, at any depth. */
export function capturesOf(graph: Graph): Set<Value> {
  const inner = new Set<Graph>();
  const captured = new Set<Value>();
  const walk = (g: Graph): void => {
    inner.add(g);
    for (const node of g.nodes()) {
      for (const value of node.inputs) if (value) captured.add(value);
      for (const sub of node.subgraphs) walk(sub);
    }
    for (const value of g.outputs) captured.add(value);
  };
  walk(graph);
  for (const value of captured) if (inner.has(value.graph)) captured.delete(value);
  return captured;
}

/** Follows Identity, Dropout and Casts that keep the element type back to what they copy. */
export function throughAliases(value: Value, types: ElementTypes): Value {
  for (let at = value; ; ) {
    const node = at.producer;
    const from = node?.input(0);
    if (!node || !from || node.domain !== '' || at.index !== 0) return at;
    const isCopy =
      node.opType === 'Identity' ||
      node.opType === 'Dropout' ||
      (node.opType === 'Cast' && types.has(at) && types.get(from) === types.get(at));
    if (!isCopy) return at;
    at = from;
  }
}

/** True when `value` is the point `point` or a copy of it. */
export function isSame(value: Value | null, point: Point, types: ElementTypes): boolean {
  if (!value) return false;
  if (pointOf(value) === point) return true;
  const origin = throughAliases(value, types);
  const at = valueAt(point);
  return pointOf(origin) === point || (at !== null && throughAliases(at, types) === origin);
}

/** Bytes of the element types that a stream may have. */
const WIDTHS: Partial<Record<DataType, number>> = { float16: 2, bfloat16: 2, float: 4, double: 8 };

/** What `value` is a wider copy of (float16 as float, say, which changes no number); null when it is no such Cast. */
export function widenedFrom(value: Value, types: ElementTypes): Value | null {
  const node = value.producer;
  const from = node?.op === 'Cast' ? node.input(0) : null;
  const [narrow, wide] = [from && types.get(from), types.get(value)].map((dtype) => (dtype && WIDTHS[dtype]) || 0);
  return from && narrow && wide && narrow < wide ? from : null;
}

/** True when `term` of a sum takes up `point`: as it is, as a copy, or widened. */
export function takesUp(term: Value, point: Point, types: ElementTypes): boolean {
  if (isSame(term, point, types)) return true;
  const narrow = widenedFrom(throughAliases(term, types), types);
  return narrow !== null && isSame(narrow, point, types);
}

/** True where the sum of a stage takes up its start through a Cast that widens it. */
export function widens({ root, start }: Stage, types: ElementTypes): boolean {
  return root !== null && !isSame(root, start, types);
}

/** The start of `stage` for a reader that takes the element type `dtype`: as it is, or as the stage's own sum widens it. */
export function startAs(stage: Stage, dtype: DataType | undefined, types: ElementTypes): Value | null {
  const start = valueAt(stage.start);
  return start && stage.root && types.get(start) !== dtype && types.get(stage.root) === dtype ? stage.root : start;
}

/** The branches of the stage that ends at `point`. */
export function branchesInto(stream: ResidualStream, point: Point): readonly Value[] {
  return stream.endingAt.get(point)?.branches ?? [];
}

/**
 * False once one of the stage's ends is gone. As long as it is true, what an analysis said about the stage and its
 * branches can be acted upon, although other stages have changed since.
 */
export function isIntact({ start, end }: Stage): boolean {
  return isPresent(start) && isPresent(end);
}

/** False once a mutation has removed the point. */
export function isPresent(point: Point): boolean {
  return !('opType' in point ? point : point.producer)?.isRemoved;
}

/** Operands of the sum that computes `point`, or none when it is no sum of activations. */
export function sumOperands(point: Point): Value[] {
  const node = 'opType' in point ? point : point.producer;
  if (!node) return [];
  if ('opType' in point && !isSkipNorm(point)) return [];
  if ('opType' in point) return [node.input(0), node.input(1)].filter((value) => value !== null);
  if (node.domain !== '' || (node.opType !== 'Add' && node.opType !== 'Sum')) return [];
  const operands = node.inputs.filter((value) => value !== null);
  return operands.some((value) => constantOf(value)) ? [] : operands;
}

/** What a sum adds a constant to; null for any other point. */
export function shiftedBy(point: Point): Value | null {
  const node = 'opType' in point ? null : point.producer;
  if (node?.op !== 'Add') return null;
  const [left, right] = [node.input(0), node.input(1)];
  if (left && right && constantOf(left) && !constantOf(right)) return right;
  return left && right && constantOf(right) && !constantOf(left) ? left : null;
}

/** What `value` copies, when neither the copies nor the original have another reader of their data. */
export function privateOrigin(value: Value, types: ElementTypes): Value | null {
  const origin = throughAliases(value, types);
  for (let at: Value | null = value; at; at = at === origin ? null : (at.producer?.input(0) ?? null)) {
    const readers = at.uses.filter((use) => !readsOnlyShape(use.node));
    if (readers.length !== 1 || at.isGraphOutput) return null;
  }
  return origin;
}

/** True for Shape and Size: they read a shape, not data. */
export function isShapeQuery(node: Node): boolean {
  return node.domain === '' && (node.opType === 'Shape' || node.opType === 'Size');
}

/** True when a node reads a shape, or hands its one operand on to nothing but where its shape is read. */
export function readsOnlyShape(node: Node): boolean {
  if (isShapeQuery(node)) return true;
  const isCopy =
    ['Identity', 'Cast', 'Reshape'].includes(node.op) || (node.op === 'Concat' && node.inputs.length === 1);
  const result = isCopy ? node.output(0) : null;
  return result !== null && !result.isGraphOutput && result.uses.every((use) => readsOnlyShape(use.node));
}

/** True when `node` computes `end` or a sum nested in it: a predicate for the rewriter's `dropTerm` and `replaceTerm`. */
export function isSumUpTo(end: Point, start: Point, position: ReadonlyMap<Point, number>): (node: Node) => boolean {
  const after = position.get(start) ?? -1;
  const until = position.get(end) ?? -1;
  return (node) => {
    if (node === end) return true;
    if (isSkipNorm(node)) return false;
    const result = node.output(0);
    if (!result || sumOperands(result).length === 0) return false;
    const at = position.get(result) ?? -1;
    return at > after && at <= until;
  };
}
