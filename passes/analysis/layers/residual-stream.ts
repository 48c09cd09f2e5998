/**
 * The residual stream, found by data flow and not by names or node patterns.
 *
 * Take the part of the graph that lies on paths from the token embedding to the logits. A value that *every* such path
 * passes through is a cut point: nothing bypasses it. In a pre-norm transformer the values of the residual stream are
 * cut points, and inside a branch nothing is, because the residual bypasses it. So the cut points chop the network into
 * a chain of stages; a stage whose end is a sum with the stage's own start as one term is a residual stage, and its
 * other terms are the branches.
 *
 * Skip*LayerNormalization is read as its parts: a sum (output 3, which may be absent) and a norm of that sum.
 * Shape and Size do not carry data, so position and mask arithmetic does not count as a path.
 *
 * One pass over the nodes per candidate embedding: linear.
 */
import { type Graph, type Node, Value } from '../../../ir/core.js';
import { isFloat } from '../../../ir/type.js';
import { constantOf } from '../values/constants.js';
import { type ElementTypes, inferElementTypes } from '../values/element-types.js';

/** A place in the data flow: a value, or the sum inside a Skip*LayerNormalization (named by its node). */
export type Point = Value | Node;

/** One stage between two neighbouring cut points. */
export interface Stage {
  readonly start: Point;
  readonly end: Point;
  /** Terms of the sum that ends a residual stage, without the start itself; empty for any other stage. */
  readonly branches: readonly Value[];
  readonly isResidual: boolean;
  /** Place among the stages. */
  readonly index: number;
}

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

/** True for com.microsoft SkipLayerNormalization and SkipSimplifiedLayerNormalization. */
export function isSkipNorm(node: Node | null): boolean {
  return node?.domain === 'com.microsoft' && SKIP_NORMS.has(node.opType);
}

/** The operand of a skip norm that holds the bias of the projection before it. */
export function biasOperand(skip: Node): number {
  return skip.opType === 'SkipLayerNormalization' ? 4 : 3;
}

/** Which output of a fused add-and-norm operator is the sum; null for every other operator. */
function sumOutput(node: Node): number | null {
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
function* flowsOf(node: Node): Generator<[Point, Point[]]> {
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

/** Finds the residual stream of `graph`: the embedding and output that give the most residual stages. */
export function findResidualStream(graph: Graph): ResidualStream {
  const types = inferElementTypes(graph);
  const none = { stages: [], endingAt: new Map(), position: new Map(), embedding: null, output: null };
  let best: ResidualStream = { graph, types, ...none };
  let most = 0;
  for (const source of embeddingCandidates(graph, types)) {
    const reached = reachedFrom(graph, source);
    for (const output of outputCandidates(graph, reached)) {
      const stream = stagesBetween(graph, types, reached, source, output);
      const count = stream.stages.filter((stage) => stage.isResidual).length;
      if (count > most) {
        best = stream;
        most = count;
      }
    }
  }
  return best;
}

/** Floating-point values that come from integers and constants alone (an embedding look-up), and 3-D float inputs. */
function embeddingCandidates(graph: Graph, types: ElementTypes): Point[] {
  const found: Point[] = [];
  const isActivation = new Set<Value>();
  const inputs: Value[] = [];
  for (let at: Graph | null = graph; at; at = at.parent) inputs.push(...at.inputs);
  for (const value of inputs) {
    if (constantOf(value)) continue;
    isActivation.add(value);
    const type = value.type;
    if (type?.kind === 'tensor' && isFloat(type.dtype) && (type.shape === null || type.shape.length === 3)) {
      found.push(value);
    }
  }
  for (const node of graph.nodes()) {
    const active = node.inputs.filter((value) => value && isActivation.has(value));
    if (active.length === 0) continue;
    const output = node.output(0);
    for (const value of node.outputs) if (value) isActivation.add(value);
    // A quantised table is looked up first and dequantised afterwards.
    const isLookup = /^(Gather|Embed|DequantizeLinear$)/.test(node.opType);
    const readsFloat = active.some((value) => value && isFloat(types.get(value) ?? 'undefined') && !isTable(value));
    if (isLookup && output && !readsFloat && isFloat(types.get(output) ?? 'undefined')) {
      found.push(sumOutput(node) === null ? output : node);
    }
  }
  return found.slice(0, 16);
}

/** A matrix fed from outside: some files have their weights as graph inputs without a value. */
function isTable(value: Value): boolean {
  return value.isInput && value.type?.kind === 'tensor' && value.type.shape?.length === 2;
}

function reachedFrom(graph: Graph, source: Point): Map<Point, readonly Point[]> {
  const reached = new Map<Point, readonly Point[]>([[source, []]]);
  for (const node of graph.nodes()) {
    for (const [point, reads] of flowsOf(node)) {
      const from = reads.filter((read) => reached.has(read));
      if (from.length > 0 && !reached.has(point)) reached.set(point, from);
    }
  }
  return reached;
}

/**
 * Where the stream may end: the first output, the output computed last, and the last point of all. The latter matters
 * for graphs whose final norm nobody reads: some exporters wire the head to an earlier layer.
 */
function outputCandidates(graph: Graph, reached: ReadonlyMap<Point, unknown>): Point[] {
  const outputs = new Set(graph.outputs.map(pointOf).filter((point) => reached.has(point)));
  const first = outputs.values().next().value;
  let lastOutput: Point | undefined;
  let last: Point | undefined;
  for (const point of reached.keys()) {
    last = point;
    if (outputs.has(point)) lastOutput = point;
  }
  return [...new Set([first, lastOutput, last])].filter((point) => point !== undefined);
}

function stagesBetween(
  graph: Graph,
  types: ElementTypes,
  reached: ReadonlyMap<Point, readonly Point[]>,
  source: Point,
  output: Point,
): ResidualStream {
  // Walk back from the output: these points are on a path. The map keeps the order in which they are computed.
  const onPath = new Set<Point>([output]);
  const order = [...reached.keys()];
  for (let i = order.length - 1; i >= 0; i--) {
    const point = order[i] as Point;
    if (onPath.has(point)) for (const read of reached.get(point) ?? []) onPath.add(read);
  }
  const path = order.filter((point) => onPath.has(point));
  const position = new Map(path.map((point, i) => [point, i]));
  // A point is a cut when no edge from before it ends after it.
  const furthest = new Array<number>(path.length).fill(0);
  for (const [i, point] of path.entries()) {
    for (const read of reached.get(point) ?? []) furthest[position.get(read) as number] = i;
  }
  const cuts: Point[] = [];
  let reach = 0;
  for (const [i, point] of path.entries()) {
    if (reach <= i) cuts.push(point);
    reach = Math.max(reach, furthest[i] as number);
  }
  const stages: Stage[] = [];
  for (let i = 1; i < cuts.length; i++) {
    const start = cuts[i - 1] as Point;
    const end = cuts[i] as Point;
    const terms = sumTerms(end, start, position, types);
    const branches = terms.filter((term) => !isSame(term, start, types));
    // A term that does not depend on the start (a position embedding) makes no branch.
    const depends = branches.every((term) => position.has(pointOf(term)));
    const isResidual = depends && branches.length > 0 && branches.length < terms.length;
    stages.push({ start, end, isResidual, branches: isResidual ? branches : [], index: stages.length });
  }
  const endingAt = new Map(stages.map((stage) => [stage.end, stage]));
  return { graph, types, stages, endingAt, position, embedding: source, output };
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

/**
 * Terms of the sum at `end`. Nested sums are flattened as long as they lie after `start` and nobody else reads them; a
 * copy (Identity, a Cast that changes nothing) in between does not matter.
 */
function sumTerms(end: Point, start: Point, position: ReadonlyMap<Point, number>, types: ElementTypes): Value[] {
  const terms: Value[] = [];
  const after = position.get(start) ?? 0;
  const open = sumOperands(end).reverse();
  while (open.length > 0) {
    const term = open.pop() as Value;
    const inner = isSame(term, start, types) ? null : privateOrigin(term, types);
    const point = inner && pointOf(inner);
    const isNested = point instanceof Value && (position.get(point) ?? -1) > after;
    const operands = isNested ? sumOperands(point) : [];
    if (operands.length > 0) open.push(...operands.reverse());
    else terms.push(term);
  }
  return terms;
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

/** True when a node hands its operand on only to where its shape is read. */
function readsOnlyShape(node: Node): boolean {
  if (isShapeQuery(node)) return true;
  const result = node.op === 'Reshape' || node.op === 'Identity' ? node.output(0) : null;
  return result !== null && !result.isGraphOutput && result.uses.every((use) => readsOnlyShape(use.node));
}
