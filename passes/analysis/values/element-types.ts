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

/** Their first two operands have one type, that of the result: where the one is not known the other tells. */
const TAKES_TWO_ALIKE = new Set(
  (
    'Add Sub Mul Div Min Max Sum Mean Mod PRelu MatMul Gemm Concat FusedMatMul FusedGemm GemmFastGelu BiasGelu FastGelu ' +
    'SkipLayerNormalization SkipSimplifiedLayerNormalization'
  ).split(' '),
);

/** Where the first operand has the type of the result as a rule; of any other it is a guess. */
const KNOWN_DOMAINS = new Set(['', 'com.microsoft', 'com.microsoft.nchwc', 'ai.onnx.ml']);

/** Element type of every value of the graph that can be known without shapes. */
export type ElementTypes = ReadonlyMap<Value, DataType>;

/** One forward walk; a type stated in the file wins over an inferred one. */
export function inferElementTypes(graph: Graph): ElementTypes {
  const known = new Map<Value, DataType>();
  const guesses = new Set<Value>();
  for (const value of graph.values) {
    const dtype = stated(value);
    if (dtype) known.set(value, dtype);
  }
  for (const node of graph.nodes()) {
    for (const [index, value] of node.outputs.entries()) {
      if (!value || known.has(value)) continue;
      const dtype = resultType(node, index, known, guesses);
      if (dtype && dtype !== 'undefined') known.set(value, dtype);
    }
  }
  return known;
}

function stated({ dtype }: Value): DataType | null {
  return dtype === 'undefined' ? null : dtype;
}

/** What is only guessed, as the result of an operator of nobody's standard, is noted in `guesses`. */
function resultType(node: Node, index: number, known: ElementTypes, guesses: Set<Value>): DataType | null {
  const of = (i: number): DataType | null => {
    const value = node.input(i);
    return value ? (known.get(value) ?? stated(value)) : null;
  };
  if (SAYS_INT64.has(node.opType)) return 'int64';
  if (SAYS_BOOL.has(node.opType)) return 'bool';
  switch (node.opType) {
    case 'Cast':
      return dataTypeOf(node.intAttribute('to') ?? 0);
    case 'CastLike':
    case 'Where':
      return of(1);
    case 'LayerNormalization':
    case 'RMSNormalization':
    case 'SimplifiedLayerNormalization':
      // The stream may be narrower than the scale: the result is not.
      return index === 0 ? (of(1) ?? of(0)) : 'float';
    case 'Constant':
      return (
        node.tensorAttribute('value')?.dtype ??
        (node.attributes.has('value_float') || node.attributes.has('value_floats') ? 'float' : 'int64')
      );
    case 'ConstantOfShape':
      return node.tensorAttribute('value')?.dtype ?? 'float';
    case 'DequantizeLinear':
      return of(1);
    case 'QuantizeLinear':
      return (
        of(2) ?? (node.attributes.has('output_dtype') ? dataTypeOf(node.intAttribute('output_dtype') ?? 0) : 'uint8')
      );
    case 'DynamicQuantizeLinear':
      return index === 1 ? 'float' : 'uint8';
    case 'MatMulInteger':
      return 'int32';
    case 'MatMulNBits':
      return of(0) ?? of(2);
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
  const places = TAKES_TWO_ALIKE.has(node.opType) ? [0, 1] : [0];
  const told = places.filter((i) => of(i) !== null);
  const sure = told.find((i) => !guesses.has(node.input(i) as Value));
  const place = sure ?? told[0];
  const result = node.output(index);
  if (result && (sure === undefined || !KNOWN_DOMAINS.has(node.domain))) guesses.add(result);
  return place === undefined ? null : of(place);
}
