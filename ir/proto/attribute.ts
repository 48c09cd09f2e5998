/** AttributeProto. Tensors and graphs inside are framed; the graphs are linked by the caller. */
import type { Attribute, AttributeValue, Graph, Tensor } from '../core.js';
import { errors } from '../diagnostic.js';
import { carry, type OriginalAttribute, originalOf } from './carried.js';
import { bytesField, type Field, type Framed, rangeField, writeFramed } from './frame.js';
import {
  type AttributeMessage,
  copyMessage,
  isPresent,
  ownString,
  setOptional,
  setString,
  toBigint,
  toLong,
} from './messages.js';
import type { Rope } from './rope.js';

type Kind = Attribute['kind'];

/** AttributeProto.AttributeType. */
const TYPE_CODE: Readonly<Partial<Record<Kind, number>>> = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  tensors: 9,
  graphs: 10,
};
const KIND_OF = new Map(Object.entries(TYPE_CODE).map(([kind, code]) => [code, kind as Kind]));
/** The framed fields, and the kinds they belong to. */
const CHILD_KIND: readonly (readonly [number: number, kind: Kind])[] = [
  [5, 'tensor'],
  [6, 'graph'],
  [10, 'tensors'],
  [11, 'graphs'],
];

/** The AttributeType that an attribute is written with. */
function typeCodeOf(attribute: Attribute): number {
  return TYPE_CODE[attribute.kind] ?? ('type' in attribute ? attribute.type : 0);
}

/** What an attribute's children become. */
export interface AttributeReader {
  readonly place: string;
  tensor(framed: Framed<'TensorProto'>): Tensor;
  graph(framed: Framed<'GraphProto'>): Graph;
}

export function decodeAttribute(framed: Framed<'AttributeProto'>, reader: AttributeReader): Attribute {
  const { message, ranges, shape } = framed;
  const value = decodeValue(framed, reader);
  const carried: OriginalAttribute = { message, ranges, shape, kind: value.kind };
  return { ...value, docString: ownString(message, 'docString'), carried: carry(carried) };
}

function decodeValue(framed: Framed<'AttributeProto'>, reader: AttributeReader): AttributeValue {
  const { message, children } = framed;
  const fault = (why: string) => errors.badWire(`${reader.place}, attribute '${message.name ?? ''}'`, why);
  const type = message.type ?? 0;
  if (type < 0) throw fault(`its type is ${type}`);
  const kind: Kind = message.refAttrName ? 'ref' : (KIND_OF.get(type) ?? (type === 0 ? inferKind(framed) : 'opaque'));
  for (const [number, owner] of CHILD_KIND) {
    if (children.has(number) && owner !== kind) throw fault(`it holds a ${owner}, but its type says ${kind}`);
  }
  const tensors = (number: number) => ((children.get(number) ?? []) as Framed<'TensorProto'>[]).map(reader.tensor);
  const graphs = (number: number) => ((children.get(number) ?? []) as Framed<'GraphProto'>[]).map(reader.graph);
  const only = <T>(found: readonly T[]): T => {
    if (found.length !== 1) throw fault(`expected one ${kind}, found ${found.length}`);
    return found[0] as T;
  };
  switch (kind) {
    case 'ref':
      return { kind, value: message.refAttrName ?? '', type };
    case 'float':
      return { kind, value: message.f ?? 0 };
    case 'int':
      return { kind, value: isPresent(message, 'i') && message.i ? toBigint(message.i) : 0n };
    case 'string':
      return { kind, value: message.s ? Uint8Array.from(message.s) : new Uint8Array(0) };
    case 'floats':
      return { kind, value: message.floats ?? [] };
    case 'ints':
      return { kind, value: (message.ints ?? []).map(toBigint) };
    case 'strings':
      return { kind, value: message.strings ?? [] };
    case 'tensor':
      return { kind, value: only(tensors(5)) };
    case 'graph':
      return { kind, value: only(graphs(6)) };
    case 'tensors':
      return { kind, value: tensors(10) };
    case 'graphs':
      return { kind, value: graphs(11) };
    case 'opaque':
      return { kind, type };
  }
}

/** Files older than IR version 4 leave the type out. */
function inferKind({ message, children }: Framed<'AttributeProto'>): Kind {
  if (isPresent(message, 'f')) return 'float';
  if (isPresent(message, 'i')) return 'int';
  if (isPresent(message, 's')) return 'string';
  for (const [number, kind] of CHILD_KIND) if (children.has(number)) return kind;
  if (message.floats?.length) return 'floats';
  if (message.ints?.length) return 'ints';
  if (message.strings?.length) return 'strings';
  return 'opaque';
}

/** Writes what an attribute's children are encoded to. */
export interface AttributeWriter {
  tensor(tensor: Tensor): Rope;
  graph(graph: Graph): Rope;
}

export function encodeAttribute(name: string, attribute: Attribute, writer: AttributeWriter): Rope {
  const found = originalOf<OriginalAttribute>(attribute.carried);
  // A value of another kind may have been spread over an old attribute.
  const old = found?.kind === attribute.kind ? found : null;
  const message = copyMessage('AttributeProto', old?.message);
  setString(message, 'name', name);
  setOptional(message, 'docString', attribute.docString);
  if (!old) message.type = typeCodeOf(attribute);
  const fields: Field[] = (old?.ranges ?? []).map(rangeField);
  setValue(message, attribute, fields, old !== null, writer);
  return writeFramed('AttributeProto', message, fields, old?.shape ?? null);
}

function setValue(
  message: AttributeMessage,
  attribute: Attribute,
  fields: Field[],
  isOld: boolean,
  writer: AttributeWriter,
): void {
  // A default value that the file left out stays left out.
  const isSilent = (field: keyof AttributeMessage, isDefault: boolean) =>
    isOld && isDefault && !isPresent(message, field);
  switch (attribute.kind) {
    case 'float':
      if (!isSilent('f', Object.is(attribute.value, 0))) message.f = attribute.value;
      return;
    case 'int':
      if (!isSilent('i', attribute.value === 0n)) message.i = toLong(attribute.value);
      return;
    case 'string':
      if (!isSilent('s', attribute.value.length === 0)) message.s = attribute.value;
      return;
    case 'floats':
      message.floats = [...attribute.value];
      return;
    case 'ints':
      message.ints = attribute.value.map(toLong);
      return;
    case 'strings':
      message.strings = [...attribute.value];
      return;
    case 'ref':
      message.refAttrName = attribute.value;
      return;
    case 'tensor':
      fields.push(bytesField(5, writer.tensor(attribute.value)));
      return;
    case 'graph':
      fields.push(bytesField(6, writer.graph(attribute.value)));
      return;
    case 'tensors':
      for (const tensor of attribute.value) fields.push(bytesField(10, writer.tensor(tensor)));
      return;
    case 'graphs':
      for (const graph of attribute.value) fields.push(bytesField(11, writer.graph(graph)));
      return;
    case 'opaque':
      return;
  }
}
