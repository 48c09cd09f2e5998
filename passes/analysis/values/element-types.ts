/** Element types of values, inferred where the file does not say: enough to tell a Cast that changes nothing. */
import type { Graph, Node, Value } from '../../../ir/core.js';
import { type DataType, dataTypeOf } from '../../../ir/type.js';

const SAYS_INT64 = new Set(['Shape', 'Size', 'ArgMax', 'ArgMin', 'NonZero']);
const SAYS_BOOL = new Set([
  'Equal',
  'Greater',
  'GreaterOrEqual',
  'Less',
  'LessOrEqual',
  'And',
  'Or',
  'Not',
  'Xor',
  'IsNaN',
  'IsInf',
]);

/** Their second operand says where or how large, in integers. */
const TAKES_PLACES = new Set([
  'Reshape',
  'Expand',
  'Tile',
  'Pad',
  'Slice',
  'Split',
  'Squeeze',
  'Unsqueeze',
  'Gather',
  'GatherElements',
  'GatherND',
  'ReduceMean',
  'ReduceSum',
  'ReduceMax',
  'ReduceMin',
]);

/** Element type of every value of the graph that can be known without shapes. */
export type ElementTypes = ReadonlyMap<Value, DataType>;

/** One forward walk; a type stated in the file wins over an inferred one. */
export function inferElementTypes(graph: Graph): ElementTypes {
  const known = new Map<Value, DataType>();
  for (const value of graph.values) if (value.dtype) known.set(value, value.dtype);
  for (const node of graph.nodes()) {
    for (const [index, value] of node.outputs.entries()) {
      if (!value || known.has(value)) continue;
      const dtype = resultType(node, index, known);
      if (dtype) known.set(value, dtype);
    }
  }
  return known;
}

function resultType(node: Node, index: number, known: ElementTypes): DataType | null {
  const of = (i: number): DataType | null => {
    const value = node.input(i);
    return value ? (known.get(value) ?? value.dtype) : null;
  };
  if (SAYS_INT64.has(node.opType)) return 'int64';
  if (SAYS_BOOL.has(node.opType)) return 'bool';
  switch (node.opType) {
    case 'Cast':
      return dataTypeOf(node.intAttribute('to') ?? 0);
    case 'CastLike':
    case 'Where':
      return of(1);
    case 'Constant':
      return (
        node.tensorAttribute('value')?.dtype ??
        (node.attributes.has('value_float') || node.attributes.has('value_floats') ? 'float' : 'int64')
      );
    case 'ConstantOfShape':
      return node.tensorAttribute('value')?.dtype ?? 'float';
    case 'DequantizeLinear':
      return of(1);
    case 'GatherBlockQuantized':
      return of(2);
    case 'EmbedLayerNormalization':
      return of(2);
    case 'TopK':
      return index === 1 ? 'int64' : of(0);
    case 'If':
    case 'Loop':
    case 'Scan':
      return null;
  }
  return of(0) ?? (TAKES_PLACES.has(node.opType) ? null : of(1));
}
