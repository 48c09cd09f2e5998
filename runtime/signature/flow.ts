/** Where a value goes: the little data-flow analysis that reading a signature needs. Sees into subgraphs and functions. */
import type { Graph, LocalFunction, Model, Node, Value } from '../../ir/core.js';
import { readWeight } from '../../ir/disk/model.js';
import type { Dim } from '../../ir/type.js';

/** One place a value reaches: operand `index` of `node`. */
export interface Reach {
  readonly node: Node;
  readonly index: number;
}

/** Operators that only rearrange, select from or retype operand 0. */
const CARRIERS = new Set([
  'Cast',
  'CastLike',
  'Identity',
  'Reshape',
  'Flatten',
  'Squeeze',
  'Unsqueeze',
  'Expand',
  'Transpose',
  'Slice',
  'Split',
  'Tile',
]);

/** True for an operator that hands its operand on, whatever its shape. */
export function isCarrier(node: Node, index: number): boolean {
  return index === 0 && isStandard(node) && CARRIERS.has(node.opType);
}

/** True for an operator of the default domain. */
export function isStandard(node: Node): boolean {
  return node.domain === '';
}

/** Follows values through a model. Function bodies are entered at their call sites and left through their outputs. */
export class Flow {
  readonly #functions = new Map<string, LocalFunction>();
  /** Calls of the function whose body a graph is. */
  readonly #calls = new Map<Graph, Node[]>();

  constructor(readonly model: Model) {
    for (const local of model.functions) this.#functions.set(`${local.domain}:${local.name}`, local);
    if (this.#functions.size > 0) {
      for (const graph of [model.graph, ...model.functions.map((local) => local.body)]) this.#note(graph);
    }
  }

  #note(graph: Graph): void {
    for (const node of graph.nodes()) {
      const body = this.#functions.get(`${node.domain}:${node.opType}`)?.body;
      if (body) this.#calls.set(body, [...(this.#calls.get(body) ?? []), node]);
      for (const inner of node.subgraphs) this.#note(inner);
    }
  }

  /**
   * Everything `start` reaches, where `through` says which results of a node carry its operand on (none: the walk ends
   * there). Every use met is reported, also those it goes on from. Each value is visited once.
   */
  *reach(start: Value, through: (reach: Reach) => readonly (Value | null)[]): Generator<Reach | Value> {
    const seen = new Set<Value>([start]);
    const queue = [start];
    const add = (value: Value | null | undefined): void => {
      if (value && !seen.has(value)) {
        seen.add(value);
        queue.push(value);
      }
    };
    for (let value = queue.shift(); value; value = queue.shift()) {
      if (value.isGraphOutput) {
        if (value.graph === this.model.graph) yield value;
        for (const outer of this.#outside(value)) add(outer);
      }
      for (const use of value.uses) {
        yield use;
        const body = this.#functions.get(`${use.node.domain}:${use.node.opType}`)?.body;
        if (body) add(body.inputs[use.index]);
        else for (const next of through(use)) add(next);
      }
    }
  }

  /** What an output of a subgraph or of a function body is called outside. */
  *#outside(value: Value): Generator<Value | null> {
    for (const [index, output] of value.graph.outputs.entries()) {
      if (output !== value) continue;
      const parent = value.graph.parentNode;
      // The first result of a loop's body is its condition.
      if (parent) yield parent.output(parent.opType === 'Loop' ? index - 1 : index);
      for (const call of this.#calls.get(value.graph) ?? []) yield call.output(index);
    }
  }
}

/** The shape as far as it is known from the initializer or the recorded type. */
export function shapeOf(value: Value | null): readonly Dim[] | null {
  if (!value) return null;
  if (value.initializer) return value.initializer.dims;
  const constant = value.producer?.opType === 'Constant' ? value.producer.tensorAttribute('value') : undefined;
  if (constant) return constant.dims;
  return value.shape;
}

/** Size of the last axis, from the type or from the weights that produce it; null when nothing says. */
export function widthOf(value: Value | null, depth = 12): number | null {
  const shape = shapeOf(value);
  const last = shape?.[shape.length - 1];
  if (typeof last === 'number' && last > 0) return last;
  const node = value?.producer;
  if (!node || depth === 0) return null;
  const widest = (): number | null => {
    const widths = node.inputs.map((input) => widthOf(input, depth - 1) ?? 0);
    return Math.max(0, ...widths) || null;
  };
  switch (node.opType) {
    case 'MatMulNBits':
    case 'MatMulBnb4':
      return node.intAttribute('N') ?? null;
    case 'MatMul':
    case 'FusedMatMul':
    case 'MatMulInteger':
      if (!node.intAttribute('transB')) return widthOf(node.input(1), depth - 1);
      return numberAt(shapeOf(node.input(1)), -2);
    case 'Gemm':
      return numberAt(shapeOf(node.input(1)), node.intAttribute('transB') ? -2 : -1);
    case 'DequantizeLinear':
    case 'Cast':
    case 'CastLike':
    case 'Identity':
    case 'RotaryEmbedding':
    case 'SimplifiedLayerNormalization':
    case 'RMSNormalization':
    case 'LayerNormalization':
      return widthOf(node.input(0), depth - 1);
    case 'Transpose': {
      const rank = shapeOf(node.input(0))?.length;
      const perm = node.intsAttribute('perm') ?? (rank ? Array.from({ length: rank }, (_, i) => rank - 1 - i) : []);
      return numberAt(shapeOf(node.input(0)), perm[perm.length - 1] ?? -1);
    }
    case 'Add':
    case 'Sub':
    case 'Mul':
    case 'Div':
      return widest();
    default:
      return null;
  }
}

/** The elements of a constant list of int64; null when the value is no such constant. */
export function integersOf(value: Value | null): number[] | null {
  const tensor =
    value?.constant ?? (value?.producer?.opType === 'Constant' ? value.producer.tensorAttribute('value') : null);
  if (!tensor?.weight || tensor.dtype !== 'int64' || tensor.weight.byteLength > 1024) return null;
  const bytes = readWeight(tensor.weight);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 8 }, (_, i) => Number(view.getBigInt64(8 * i, true)));
}

/** The dimension at `index` (from the end when negative) when it is a number. */
export function numberAt(shape: readonly Dim[] | null, index: number): number | null {
  const dim = shape?.at(index);
  return typeof dim === 'number' ? dim : null;
}
