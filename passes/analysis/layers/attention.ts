/**
 * Attention branches: anything between two points of the residual stream that mixes tokens, and what leaves the graph
 * with it: its own nodes, its KV-cache inputs and outputs.
 */
import type { Node, Value } from '../../../ir/core.js';
import { nodeOf } from '../../../ir/walk.js';
import { attentionOperator, isAttentionOperator } from '../attention-operators.js';
import { describe } from '../refusal.js';
import { constantOf } from '../values/constants.js';
import {
  isShapeQuery,
  isSkipNorm,
  type Point,
  pointOf,
  type ResidualStream,
  type Stage,
  valueAt,
} from './residual-stream.js';

/** An attention as far as removing it asks. */
export interface Attention {
  /** The attention operator, or `decomposed`. */
  readonly kind: string;
  /** Nodes on paths from the stage's start to the branch's end. */
  readonly nodes: ReadonlySet<Node>;
  /** Nodes beside the path that read the branch and go with it: what makes its caches, and what nobody reads. */
  readonly side: ReadonlySet<Node>;
  readonly kvInputs: readonly Value[];
  readonly kvOutputs: readonly Value[];
  /** Why the branch cannot be removed; null when it can. */
  readonly blocked: string | null;
  /** Everything that is in the way of removing it. */
  readonly obstacles: readonly Obstacle[];
}

/** Why an attention cannot be removed. */
export interface Obstacle {
  readonly reason: string;
  /** The node that needs the attention: the obstacle goes with it. Null where none does. */
  readonly reader: Node | null;
}

/** Operators that mix tokens without being attention: reported, never removed. */
const MIXERS = new Set(['Conv', 'CausalConvWithState', 'CumSum', 'Scan', 'Loop', 'If', 'LSTM', 'GRU', 'RNN']);

/** Nodes that lie between the stage's start and `output`. The sum or norm node that *is* the start is not among them. */
export function branchNodes(stream: ResidualStream, stage: Stage, output: Point | Value): Set<Node> {
  const { position } = stream;
  const after = position.get(stage.start) ?? -1;
  const nodes = new Set<Node>();
  const open: Point[] = ['opType' in output ? output : pointOf(output)];
  const seen = new Set<Point>(open);
  while (open.length > 0) {
    const point = open.pop() as Point;
    if ((position.get(point) ?? -1) <= after) continue;
    const node = nodeAt(point);
    if (!node || node === stage.start) continue;
    nodes.add(node);
    for (const value of node.inputs) {
      const next = value && pointOf(value);
      if (next && !seen.has(next)) {
        seen.add(next);
        open.push(next);
      }
    }
  }
  // What comes from before the start by another way is no part of the branch.
  return stage.isBypassed ? dependent(nodes, stage, position) : nodes;
}

function dependent(nodes: ReadonlySet<Node>, { start }: Stage, position: ResidualStream['position']): Set<Node> {
  const points = [...seenPoints(nodes, position)].sort((a, b) => (position.get(a) ?? 0) - (position.get(b) ?? 0));
  // Of a skip norm, the norm comes with the sum.
  const normed = 'opType' in start ? start.outputs.filter((value) => value !== null) : [];
  const reached = new Set<Point>([start, ...normed]);
  for (const point of points) {
    const node = nodeAt(point);
    const reads = node?.inputs.some((value) => value && reached.has(pointOf(value)));
    // The sum and the norm of a skip norm are two points of one node.
    if (reads || (node && node !== point && reached.has(node))) reached.add(point);
  }
  return new Set(
    [...nodes].filter((node) => reached.has(node) || node.outputs.some((value) => value && reached.has(value))),
  );
}

function* seenPoints(nodes: ReadonlySet<Node>, position: ResidualStream['position']): Generator<Point> {
  for (const node of nodes) {
    if (position.has(node)) yield node;
    for (const value of node.outputs) if (value && position.has(value)) yield value;
  }
}

function nodeAt(point: Point): Node | null {
  return 'opType' in point ? point : point.producer;
}

/** What mixes tokens in a branch. */
export interface Mixer {
  /** The attention operator, `decomposed`, or another operator's name. */
  readonly kind: string;
  /** `cross` where the keys are those of another sequence, an encoder's. */
  readonly role: 'attention' | 'cross' | 'other';
}

/** Where products of two activations have them. */
const PRODUCTS: ReadonlyMap<string, readonly [number, number]> = new Map(
  Object.entries<readonly [number, number]>({
    MatMul: [0, 1],
    FusedMatMul: [0, 1],
    Einsum: [0, 1],
    MatMulInteger: [0, 1],
    QLinearMatMul: [0, 3],
  }),
);
/** Operators that multiply by a matrix and by nothing else. */
const LINEARS = new Set([
  'Gemm',
  'FusedGemm',
  'MatMulNBits',
  'MatMulBnb4',
  'MatMulIntegerToFloat',
  'DynamicQuantizeMatMul',
  'QGemm',
]);
const SOFTMAXES = new Set(['Softmax', 'QLinearSoftmax', 'BiasSoftmax', 'MaskedSoftmax']);

/** True when some of the nodes multiply two operands or mix tokens: more than a norm, a copy or a scale does. */
export function hasMixer(nodes: ReadonlySet<Node>): boolean {
  return [...nodes].some((node) => {
    const { opType } = node;
    return PRODUCTS.has(opType) || LINEARS.has(opType) || isAttentionOperator(node) || MIXERS.has(opType);
  });
}

/** What mixes tokens in a branch; null when nothing does. */
export function mixerOf(nodes: ReadonlySet<Node>, stream: ResidualStream, stage: Stage): Mixer | null {
  const { position } = stream;
  const after = position.get(stage.start) ?? -1;
  const isOwn = (value: Value): boolean => {
    const { producer } = value;
    return producer ? nodes.has(producer) : false;
  };
  const comesFrom = (value: Value): Origin => {
    // A weight that is dequantised on the way is no activation.
    if (isOwn(value) || (!stage.isBypassed && (position.get(pointOf(value)) ?? -1) > after)) return 'branch';
    return originOf(value, position);
  };
  let hasSoftmax = false;
  let other: string | null = null;
  const products: Origin[] = [];
  for (const node of nodes) {
    if (isAttentionOperator(node)) {
      const keys = keyOperand(node);
      const isCross = keys !== null && comesFrom(keys) === 'elsewhere';
      return { kind: node.opType, role: isCross ? 'cross' : 'attention' };
    }
    if (SOFTMAXES.has(node.opType)) hasSoftmax = true;
    if (MIXERS.has(node.opType)) other = node.opType;
    const operands = PRODUCTS.get(node.opType)?.map((index) => node.input(index));
    if (!operands?.every((value) => value !== null)) continue;
    const origins = operands.map(comesFrom);
    if (origins.includes('branch') && !origins.includes('weights')) {
      products.push(origins.find((origin) => origin !== 'branch') ?? 'branch');
    }
  }
  if (hasSoftmax && products.length > 0) {
    return { kind: 'decomposed', role: products.every((origin) => origin === 'elsewhere') ? 'cross' : 'attention' };
  }
  if (other) return { kind: other, role: 'other' };
  return products.includes('branch') ? { kind: 'a product of activations', role: 'other' } : null;
}

/** Where an operand comes from: the branch, an earlier part of the stream, weights alone, or other inputs of the graph. */
type Origin = 'branch' | 'stream' | 'weights' | 'elsewhere';

function originOf(value: Value, position: ResidualStream['position']): Origin {
  const seen = new Set<Value>([value]);
  const open = [value];
  let isFed = false;
  for (let at = open.pop(); at; at = open.pop()) {
    if (position.has(pointOf(at))) return 'stream';
    if (constantOf(at)) continue;
    const node = at.producer;
    if (!node) isFed = true;
    if (!node || isShapeQuery(node)) continue;
    for (const operand of node.inputs) {
      if (!operand || seen.has(operand)) continue;
      seen.add(operand);
      open.push(operand);
    }
  }
  return isFed ? 'elsewhere' : 'weights';
}

/** The keys of an attention operator that has them apart from the queries; null for the others. */
function keyOperand(node: Node): Value | null {
  const { keys } = attentionOperator(node) ?? {};
  return keys === undefined ? null : node.input(keys);
}

/**
 * What dies with the attention branch `output` of `stage`. The branch is blocked when something that stays reads its
 * inside: another layer that uses its keys again, or a graph output that is no cache. `ownerOf` tells the layer of a node
 * inside a branch, as its label.
 */
export function describeAttention(
  stream: ResidualStream,
  stage: Stage,
  output: Value,
  kind: string,
  ownerOf: (node: Node) => string | undefined,
): Attention {
  const nodes = branchNodes(stream, stage, output);
  const shared = new Set<Node>();
  for (const other of stage.branches) {
    if (other !== output) for (const node of branchNodes(stream, stage, other)) shared.add(node);
  }
  const own = [...nodes].filter((node) => !shared.has(node));
  const end = valueAt(stage.end);
  const start = valueAt(stage.start);
  const kvOutputs = new Set<Value>();
  const obstacles: Obstacle[] = [];
  if (end?.isGraphOutput && (start?.isGraphOutput || start?.isInput)) {
    const reason = `its result '${end.name}' is a graph output, and so is the value that would replace it`;
    obstacles.push({ reason, reader: null });
  }
  // Forward from the branch: everything that reads it and is not on the residual stream hangs on it alone.
  const side = new Set<Node>(own);
  const open = [...own];
  for (let node = open.pop(); node; node = open.pop()) {
    for (const value of node.outputs) {
      if (!value) continue;
      if (value.isGraphOutput && value !== end) kvOutputs.add(value);
      for (const use of value.uses) {
        const reader = nodeOf(stream.graph, use.node);
        const isEnd = reader.output(0) === stage.end || reader === stage.end;
        if (side.has(reader) || isEnd || isSumInside(reader, stage, stream)) continue;
        if (isShapeQuery(reader)) continue;
        let owner = ownerOf(reader);
        if (value === output && owner === undefined) {
          // Its result belongs to the sum, but for what a branch reads, perhaps through nodes that are in no branch.
          const behind = branchBehind(reader, stream, ownerOf);
          if (!behind) continue;
          owner = ownerOf(behind);
        }
        const isActive = reader.outputs.some((result) => result && stream.position.has(pointOf(result)));
        if (isActive && (owner !== undefined || !stage.isBypassed)) {
          const where = describe(reader);
          const reason =
            owner === undefined
              ? `${where} outside this layer reads '${value.name}'`
              : `layer ${owner} uses its ${value === output ? 'result' : 'keys or values'} again (${where} reads '${value.name}')`;
          obstacles.push({ reason, reader: owner === undefined ? null : reader });
          continue;
        }
        // On the way to a later layer: keys that are repeated for its heads, say.
        side.add(reader);
        open.push(reader);
      }
    }
  }
  const kvInputs = cacheInputs(stream, side, kvOutputs, stage.start);
  for (const value of kvInputs) {
    if (value.isGraphOutput) obstacles.push({ reason: `'${value.name}' is a graph output, too`, reader: null });
    const reader = readerThatStays(value, side, true, stream);
    const owner = reader && ownerOf(reader);
    if (reader && owner !== undefined) {
      obstacles.push({ reason: `layer ${owner} reads '${value.name}', too (${describe(reader)})`, reader });
    } else if (reader) obstacles.push({ reason: alsoRead(value, reader), reader });
  }
  const reason = obstacles[0]?.reason ?? null;
  return { kind, nodes, side, kvInputs, kvOutputs: [...kvOutputs], blocked: reason, obstacles };
}

/** The first node of a branch that reads what `node` gives, before it is in the residual stream; null where none does. */
function branchBehind(node: Node, stream: ResidualStream, ownerOf: (node: Node) => string | undefined): Node | null {
  const seen = new Set([node]);
  for (const each of seen) {
    if (ownerOf(each) !== undefined) return each;
    for (const value of each.outputs) {
      if (!value || stream.endingAt.has(pointOf(value))) continue;
      for (const use of value.uses) {
        const reader = nodeOf(stream.graph, use.node);
        if (!stream.endingAt.has(reader) && !isShapeQuery(reader)) seen.add(reader);
      }
    }
  }
  return null;
}

/** A nested Add of the sum that ends the stage. */
function isSumInside(node: Node, stage: Stage, stream: ResidualStream): boolean {
  const after = stream.position.get(stage.start) ?? -1;
  const until = stream.position.get(stage.end) ?? -1;
  const result = node.output(0);
  const at = result ? (stream.position.get(pointOf(result)) ?? -1) : -1;
  return node.opType === 'Add' && at > after && at < until && stage.branches.length > 1;
}

/** Floating-point (or quantised) graph inputs that flow into a cache output or the past operands of an attention. */
function cacheInputs(
  { graph, position }: ResidualStream,
  inside: ReadonlySet<Node>,
  outputs: ReadonlySet<Value>,
  start: Point,
): Value[] {
  const found = new Set<Value>();
  const open: Value[] = [...outputs];
  for (const node of inside) {
    if (isAttentionOperator(node)) open.push(...pastOperands(node).filter((value) => value.isInput));
  }
  const seen = new Set<Value>();
  for (let value = open.pop(); value; value = open.pop()) {
    if (seen.has(value) || pointOf(value) === start) continue;
    seen.add(value);
    if (value.isInput && value.graph === graph.root && isCacheType(value)) found.add(value);
    const node = value.producer;
    if (!node || isShapeQuery(node) || node === start || (isSkipNorm(node) && value.index === 3)) continue;
    // Behind a value of another layer lie that layer's caches.
    if (!inside.has(node) && position.has(pointOf(value))) continue;
    for (const operand of pastOperands(node)) if (!constantOf(operand)) open.push(operand);
  }
  return graph.root.inputs.filter((value) => found.has(value));
}

/** The operands of a node that a cache may come in by; the others of an attention may be masks, which look like caches. */
function pastOperands(node: Node): Value[] {
  const places = attentionOperator(node)?.pasts;
  const operands = node.inputs.filter((value, i) => value !== null && (!places || places.includes(i)));
  return operands as Value[];
}

/** Caches are data of rank 4 or 5 (or 3); ids, masks, positions and lengths are integers of rank 2 at most. */
function isCacheType(value: Value): boolean {
  const type = value.type;
  if (type?.kind !== 'tensor') return false;
  if (type.dtype === 'int64' || type.dtype === 'int32' || type.dtype === 'bool') return false;
  return type.shape === null || type.shape.length >= 3;
}

/**
 * What would still read a cache input after the attentions have gone: a node of another branch, or an output that stays.
 * Reading only its shape does not count where another cache can give the same shape; reading the shape of what is computed from
 * it does.
 */
export function readerThatStays(
  value: Value,
  dying: ReadonlySet<Node>,
  canRedirect: boolean,
  stream: ResidualStream,
): Node | null {
  const nodesAt = (at: Value): Node[] => at.uses.map((use) => nodeOf(stream.graph, use.node));
  const inside = new Set(nodesAt(value).filter((node) => dying.has(node)));
  const shapes: Node[] = [];
  for (const node of inside) {
    for (const reader of node.outputs.flatMap((result) => (result ? nodesAt(result) : []))) {
      if (dying.has(reader)) inside.add(reader);
      else if (isShapeQuery(reader)) shapes.push(reader);
    }
  }
  const seen = new Set<Node>();
  const open = [value, ...shapes.flatMap(({ outputs }) => outputs.filter((result) => result !== null))];
  if (shapes.some(({ outputs }) => outputs.some((result) => result?.isGraphOutput))) return shapes[0] ?? null;
  for (let at = open.pop(); at; at = open.pop()) {
    for (const node of nodesAt(at)) {
      if (dying.has(node) || seen.has(node) || (canRedirect && isShapeQuery(node))) continue;
      seen.add(node);
      if (node.outputs.some((result) => result && (result.isGraphOutput || stream.position.has(pointOf(result))))) {
        return node;
      }
      for (const result of node.outputs) if (result) open.push(result);
    }
  }
  return null;
}

/** The reason why a cache input cannot go: `reader` stays. */
export function alsoRead(value: Value, reader: Node): string {
  return `'${value.name}' is also read by ${describe(reader)}, which stays`;
}
