/**
 * The canonical message of each class of the core: what the encoder writes for something that was not read from a file.
 * The text form prints what the core says; residue.ts finds what an original message says beyond the canonical one.
 */
import type { Attribute, Graph, LocalFunction, Metadata, Model, Node, OpsetImport, Tensor } from '../core.js';
import { bitsOf, type DataType, dataTypeCode, type ValueType } from '../type.js';
import { type Messages, toLong } from './messages.js';
import { encodeType } from './metadata.js';

interface Documented {
  readonly docString?: string | undefined;
  readonly metadata?: Metadata;
}

function documented({ docString, metadata }: Documented): object {
  return {
    ...(docString === undefined ? {} : { docString }),
    ...(metadata?.length ? { metadataProps: metadata.map(([key, value]) => ({ key, value })) } : {}),
  };
}

/** The string fields that are not empty. */
function strings(fields: Readonly<Record<string, string>>): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== ''));
}

export function canonicalModel(model: Model): Messages['ModelProto'] {
  return {
    irVersion: toLong(model.irVersion),
    ...(model.producerName === undefined ? {} : { producerName: model.producerName }),
    ...(model.producerVersion === undefined ? {} : { producerVersion: model.producerVersion }),
    ...(model.domain === undefined ? {} : { domain: model.domain }),
    ...(model.modelVersion === undefined ? {} : { modelVersion: toLong(model.modelVersion) }),
    ...documented(model),
  };
}

export function canonicalOpset({ domain, version }: OpsetImport): Messages['OperatorSetIdProto'] {
  return { domain, version: toLong(version) };
}

export function canonicalGraph(graph: Graph): Messages['GraphProto'] {
  return { ...strings({ name: graph.name }), ...documented(graph) };
}

export function canonicalFunction(item: LocalFunction): Messages['FunctionProto'] {
  return {
    ...strings({ name: item.name, domain: item.domain, overload: item.overload }),
    input: item.body.inputs.map((value) => value.name),
    output: item.body.outputs.map((value) => value.name),
    attribute: [...item.attributeNames],
    ...documented(item),
  };
}

export function canonicalNode(node: Node): Messages['NodeProto'] {
  return {
    input: node.inputs.map((value) => value?.name ?? ''),
    output: node.outputs.map((value) => value?.name ?? ''),
    ...strings({ name: node.name, opType: node.opType, domain: node.domain, overload: node.overload }),
    ...documented(node),
  };
}

/** AttributeProto.AttributeType by code. */
export const ATTRIBUTE_TYPES = [
  'undefined',
  'float',
  'int',
  'string',
  'tensor',
  'graph',
  'floats',
  'ints',
  'strings',
  'tensors',
  'graphs',
  'sparse_tensor',
  'sparse_tensors',
  'type_proto',
  'type_protos',
] as const;

export function attributeTypeCode(attribute: Attribute): number {
  return 'type' in attribute ? attribute.type : (ATTRIBUTE_TYPES as readonly string[]).indexOf(attribute.kind);
}

export const TYPE_PROTO = 13;
export const TYPE_PROTOS = 14;

/** `types` are those of a type_proto attribute, which is opaque to the core but not to the text. */
export function canonicalAttribute(
  name: string,
  attribute: Attribute,
  types: readonly ValueType[] = [],
): Messages['AttributeProto'] {
  const type = attributeTypeCode(attribute);
  return { ...strings({ name }), type, ...attributeValue(attribute, types), ...documented(attribute) };
}

function attributeValue(attribute: Attribute, types: readonly ValueType[]): Messages['AttributeProto'] {
  switch (attribute.kind) {
    case 'float':
      return { f: attribute.value };
    case 'int':
      return { i: toLong(attribute.value) };
    case 'string':
      return { s: attribute.value };
    case 'floats':
      return { floats: [...attribute.value] };
    case 'ints':
      return { ints: attribute.value.map(toLong) };
    case 'strings':
      return { strings: [...attribute.value] };
    case 'ref':
      return { refAttrName: attribute.value };
    case 'opaque': {
      const [first] = types;
      if (!first) return {};
      return attribute.type === TYPE_PROTO ? { tp: encodeType(first) } : { typeProtos: types.map(encodeType) };
    }
    default:
      return {};
  }
}

export function canonicalTensor(tensor: Tensor): Messages['TensorProto'] {
  return {
    dims: tensor.dims.map(toLong),
    dataType: dataTypeCode(tensor.dtype),
    ...strings({ name: tensor.name }),
    ...(tensor.strings ? { stringData: [...tensor.strings] } : {}),
    ...documented(tensor),
  };
}

export function canonicalInfo(name: string, type: ValueType | null, docs: Documented): Messages['ValueInfoProto'] {
  return { name, ...(type ? { type: encodeType(type) } : {}), ...documented(docs) };
}

/** The *_data field for a type. */
export function typedField(dtype: DataType): number {
  switch (dtype) {
    case 'float':
    case 'complex64':
      return 4;
    case 'string':
      return 6;
    case 'int64':
      return 7;
    case 'double':
    case 'complex128':
      return 10;
    case 'uint32':
    case 'uint64':
      return 11;
    default:
      return 5;
  }
}

/** What the *_data field of a type holds for these bytes, packed: bytes as they are, or varints. */
export function typedPayload(dtype: DataType, bytes: Uint8Array): Uint8Array {
  const field = typedField(dtype);
  if (field === 4 || field === 10) return bytes;
  const width = Math.max(bitsOf(dtype), 8) / 8;
  const isSigned = dtype.startsWith('int') && bitsOf(dtype) >= 8;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const payload: number[] = [];
  for (let at = 0; at < bytes.length; at += width) {
    let low: number;
    let high: number;
    if (width === 8) {
      low = view.getUint32(at, true);
      high = view.getUint32(at + 4, true);
    } else {
      low = width === 1 ? view.getUint8(at) : width === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
      // A negative number is ten bytes, as if it were 64 bits wide.
      const isNegative = isSigned && low >= 2 ** (width * 8 - 1);
      if (isNegative) low += 2 ** 32 - 2 ** (width * 8);
      high = isNegative ? 0xffffffff : 0;
    }
    pushVarint(payload, low, high);
  }
  return Uint8Array.from(payload);
}

function pushVarint(target: number[], low: number, high: number): void {
  while (high > 0 || low > 127) {
    target.push((low % 128) + 128);
    low = Math.floor(low / 128) + (high % 128) * 2 ** 25;
    high = Math.floor(high / 128);
  }
  target.push(low);
}
