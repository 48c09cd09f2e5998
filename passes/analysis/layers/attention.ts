/**
 * Attention branches: anything between two points of the residual stream that mixes tokens, and what leaves the graph
 * with it: its own nodes, its KV-cache inputs and outputs.
 */
import type { Graph, Node, Value } from '../../../ir/core.js';
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

export interface Attention {
  /** The attention operator, or `decomposed`. */
  readonly kind: string;
  /** Nodes on paths from the stage's start to the branch's end. */
  readonly nodes: ReadonlySet<Node>;
  readonly kvInputs: readonly Value[];
  readonly kvOutputs: readonly Value[];
  /** Why the branch cannot be removed; null when it can. */
  readonly blocked: string | null;
}

const ATTENTION_OPS = new Set([
  'Attention',
  'GroupQueryAttention',
  'MultiHeadAttention',
  'DecoderMaskedMultiHeadAttention',
  'DecoderMaskedSelfAttention',
  'PackedAttention',
  'PackedMultiHeadAttention',
  'PagedAttention',
  'QAttention',
  'SparseAttention',
  'LinearAttention',
]);

/** Operators that mix tokens without being attention: reported, never removed. */
const MIXERS = new Set(['Conv', 'CausalConvWithState', 'CumSum', 'Scan', 'Loop', 'If', 'LSTM', 'GRU', 'RNN']);

/** Nodes that lie between the stage's start and `output`. The sum or norm node that *is* the start is not among them. */
export function branchNodes(stream: ResidualStream, stage: Stage, output: Value): Set<Node> {
  const { position } = stream;
  const after = position.get(stage.start) ?? -1;
  const nodes = new Set<Node>();
  const open: Point[] = [pointOf(output)];
  const seen = new Set<Point>(open);
  while (open.length > 0) {
    const point = open.pop() as Point;
    if ((position.get(point) ?? -1) <= after) continue;
    const node = 'opType' in point ? point : point.producer;
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
  return nodes;
}

/** What mixes tokens in a branch: the attention operator, `decomposed`, another operator's name, or nothing. */
export function mixerOf(
  nodes: ReadonlySet<Node>,
  stream: ResidualStream,
  stage: Stage,
): { kind: string; isAttention: boolean } | null {
  const after = stream.position.get(stage.start) ?? -1;
  const isActivation = (value: Value | null): boolean =>
    value !== null && (stream.position.get(pointOf(value)) ?? -1) > after;
  let hasSoftmax = false;
  let hasProduct = false;
  let other: string | null = null;
  for (const node of nodes) {
    if (ATTENTION_OPS.has(node.opType)) return { kind: node.opType, isAttention: true };
    if (node.opType === 'Softmax') hasSoftmax = true;
    const isProduct = node.opType === 'MatMul' || node.opType === 'FusedMatMul' || node.opType === 'Einsum';
    // Of two activations: a weight that is dequantised on the way is none.
    if (isProduct && node.inputs.length > 1 && node.inputs.every(isActivation)) hasProduct = true;
    if (MIXERS.has(node.opType)) other = node.opType;
  }
  if (hasSoftmax && hasProduct) return { kind: 'decomposed', isAttention: true };
  if (other) return { kind: other, isAttention: false };
  return hasProduct ? { kind: 'a product of activations', isAttention: false } : null;
}

/**
 * What dies with the attention branch `output` of `stage`. The branch is blocked when something that stays reads its
 * inside: another layer sharing its keys, or a graph output that is no cache.
 */
export function describeAttention(stream: ResidualStream, stage: Stage, output: Value, kind: string): Attention {
  const nodes = branchNodes(stream, stage, output);
  const shared = new Set<Node>();
  for (const other of stage.branches) {
    if (other !== output) for (const node of branchNodes(stream, stage, other)) shared.add(node);
  }
  const own = [...nodes].filter((node) => !shared.has(node));
  const end = valueAt(stage.end);
  const kvOutputs = new Set<Value>();
  const start = valueAt(stage.start);
  let blocked =
    end?.isGraphOutput && (start?.isGraphOutput || start?.isInput)
      ? `its result '${end.name}' is a graph output, and so is the value that would replace it`
      : null;
  // Forward from the branch: everything that reads it and is not on the residual stream hangs on it alone.
  const side = new Set<Node>(own);
  const open = [...own];
  for (let node = open.pop(); node; node = open.pop()) {
    for (const value of node.outputs) {
      if (!value) continue;
      if (value.isGraphOutput && value !== end) kvOutputs.add(value);
      for (const use of value.uses) {
        const reader = use.node;
        const isEnd = value === output || reader.output(0) === stage.end || reader === stage.end;
        if (side.has(reader) || isEnd || isSumInside(reader, stage, stream)) continue;
        if (isShapeQuery(reader)) continue;
        if (reader.outputs.some((result) => result && stream.position.has(pointOf(result)))) {
          blocked ??= `${reader.op}${reader.name ? ` '${reader.name}'` : ''} outside this layer reads '${value.name}'`;
          continue;
        }
        side.add(reader);
        open.push(reader);
      }
    }
  }
  const kvInputs = cacheInputs(stream.graph, own, kvOutputs, stage.start);
  for (const value of kvInputs) {
    const reader = readerThatStays(value, new Set(own), true, stream);
    if (reader) blocked ??= `'${value.name}' is also read by ${reader}`;
  }
  return { kind, nodes, kvInputs, kvOutputs: [...kvOutputs], blocked };
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
function cacheInputs(graph: Graph, own: readonly Node[], outputs: ReadonlySet<Value>, start: Point): Value[] {
  const found = new Set<Value>();
  const open: Value[] = [...outputs];
  for (const node of own) {
    if (ATTENTION_OPS.has(node.opType)) open.push(...pastOperands(node).filter((value) => value.isInput));
  }
  const seen = new Set<Value>();
  for (let value = open.pop(); value; value = open.pop()) {
    if (seen.has(value) || pointOf(value) === start) continue;
    seen.add(value);
    if (value.isInput && value.graph === graph.root && isCacheType(value)) found.add(value);
    const node = value.producer;
    if (!node || isShapeQuery(node) || node === start || (isSkipNorm(node) && value.index === 3)) continue;
    for (const operand of pastOperands(node)) if (!constantOf(operand)) open.push(operand);
  }
  return graph.root.inputs.filter((value) => found.has(value));
}

/** Operands of attention operators that hold the past; the others may be masks, which look like caches. */
const PAST: Readonly<Record<string, readonly number[]>> = {
  Attention: [4, 5],
  'com.microsoft.Attention': [4],
  'com.microsoft.QAttention': [8],
  'com.microsoft.GroupQueryAttention': [3, 4],
  'com.microsoft.MultiHeadAttention': [6, 7],
  'com.microsoft.DecoderMaskedMultiHeadAttention': [5, 6],
  'com.microsoft.DecoderMaskedSelfAttention': [4],
  'com.microsoft.SparseAttention': [3, 4],
  'com.microsoft.PagedAttention': [3, 4],
};

/** The operands of a node that a cache may come in by. */
function pastOperands(node: Node): Value[] {
  const places = PAST[node.op];
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
 * Reading only its shape does not count where another cache can give the same shape.
 */
export function readerThatStays(
  value: Value,
  dying: ReadonlySet<Node>,
  canRedirect: boolean,
  stream: ResidualStream,
): string | null {
  const seen = new Set<Node>();
  const open = [value];
  for (let at = open.pop(); at; at = open.pop()) {
    for (const { node } of at.uses) {
      if (dying.has(node) || seen.has(node) || (canRedirect && isShapeQuery(node))) continue;
      seen.add(node);
      if (node.outputs.some((result) => result && stream.position.has(pointOf(result)))) {
        return `${node.op}${node.name ? ` '${node.name}'` : ''}, which stays`;
      }
      for (const result of node.outputs) if (result) open.push(result);
    }
  }
  return null;
}
