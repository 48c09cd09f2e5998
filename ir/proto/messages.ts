/** The messages that pass through protobufjs, typed as far as the reader and writer look into them. */
import protobuf from 'protobufjs/light.js';
import { LONG_DEFAULT_DOMAIN } from '../names.js';
import { isPlain } from './plain-form.js';
import { descriptor } from './schema.js';

/** protobufjs' 64-bit integer. */
export interface Long {
  readonly low: number;
  readonly high: number;
}
export interface EntryMessage {
  key?: string;
  value?: string;
}
export interface DimensionMessage {
  dimValue?: Long;
  dimParam?: string;
}
export interface TypeMessage {
  tensorType?: { elemType?: number; shape?: { dim?: DimensionMessage[] } };
  denotation?: string;
}
export interface ValueInfoMessage {
  name?: string;
  type?: TypeMessage;
  docString?: string;
  metadataProps?: EntryMessage[];
}
export interface NodeMessage {
  input?: string[];
  output?: string[];
  name?: string;
  opType?: string;
  docString?: string;
  domain?: string;
  overload?: string;
  metadataProps?: EntryMessage[];
  deviceConfigurations?: NodeDeviceMessage[];
}
/** NodeDeviceConfigurationProto. */
export interface NodeDeviceMessage {
  configurationId?: string;
  shardingSpec?: ShardingSpecMessage[];
}
export interface ShardingSpecMessage {
  tensorName?: string;
  device?: Long[];
  indexToDeviceGroupMap?: { key?: Long; value?: Long[] }[];
  shardedDim?: { axis?: Long; simpleSharding?: { numShards?: Long }[] }[];
}
export interface AttributeMessage {
  name?: string;
  f?: number;
  i?: Long;
  s?: Uint8Array;
  floats?: number[];
  ints?: Long[];
  strings?: Uint8Array[];
  docString?: string;
  tp?: TypeMessage;
  typeProtos?: TypeMessage[];
  type?: number;
  refAttrName?: string;
}
export interface TensorMessage {
  dims?: Long[];
  dataType?: number;
  segment?: object;
  stringData?: Uint8Array[];
  name?: string;
  docString?: string;
  externalData?: EntryMessage[];
  dataLocation?: number;
  metadataProps?: EntryMessage[];
}
export interface GraphMessage {
  name?: string;
  docString?: string;
  metadataProps?: EntryMessage[];
}
export interface FunctionMessage {
  name?: string;
  input?: string[];
  output?: string[];
  attribute?: string[];
  docString?: string;
  domain?: string;
  overload?: string;
  metadataProps?: EntryMessage[];
}
export interface OpsetMessage {
  domain?: string;
  version?: Long;
}
export interface ModelMessage {
  irVersion?: Long;
  producerName?: string;
  producerVersion?: string;
  domain?: string;
  modelVersion?: Long;
  docString?: string;
  metadataProps?: EntryMessage[];
  configuration?: { name?: string; numDevices?: number; device?: string[] }[];
}

/** The messages read field by field, by name. Framed children are not among the fields. */
export interface Messages {
  ModelProto: ModelMessage;
  GraphProto: GraphMessage;
  NodeProto: NodeMessage;
  AttributeProto: AttributeMessage;
  TensorProto: TensorMessage;
  FunctionProto: FunctionMessage;
  ValueInfoProto: ValueInfoMessage;
  OperatorSetIdProto: OpsetMessage;
  TypeProto: TypeMessage;
  SparseTensorProto: { dims?: Long[] };
}
export type MessageName = keyof Messages;

const root = protobuf.Root.fromJSON(descriptor as protobuf.INamespace);
const types = new Map<string, protobuf.Type>();

function typeOf(name: MessageName): protobuf.Type {
  let type = types.get(name);
  if (!type) {
    type = root.lookupType(`onnx.${name}`);
    types.set(name, type);
  }
  return type;
}

/** A reader whose bytes are copies: a message must not keep what it was read from in memory. */
class CopyingReader extends protobuf.BufferReader {
  override raw(start: number, end: number): Buffer {
    return new Uint8Array(this.buf.subarray(start, end)) as Buffer;
  }
}

/** Decodes one message. Unknown fields are kept and written again. Throws whatever protobufjs throws. */
export function decodeMessage<N extends MessageName>(name: N, wire: Uint8Array): Messages[N] {
  // Buffers turn bytes into text natively.
  const reader = new CopyingReader(Buffer.from(wire.buffer, wire.byteOffset, wire.length));
  reader.discardUnknown = false;
  return typeOf(name).decode(reader) as Messages[N];
}

/** What a check encodes into. A message is looked at and forgotten, so one will do for all. */
let scratch: protobuf.Writer | null = null;

/** The canonical bytes of a message where these are not `wire`; null where they are. */
export function canonicalUnlike<N extends MessageName>(
  name: N,
  message: Messages[N],
  wire: Uint8Array,
): Uint8Array | null {
  if (isPlain(typeOf(name), wire)) return null;
  const writer = scratch ?? protobuf.Writer.create();
  // Whatever goes wrong on the way leaves a writer that nobody uses again.
  scratch = null;
  typeOf(name).encode(message as object, writer);
  const encoded = writer.finish(true);
  const isSame = encoded.length === wire.length && Buffer.compare(encoded, wire) === 0;
  const canonical = isSame ? null : new Uint8Array(encoded);
  if (encoded.length <= LARGEST_SCRATCH) scratch = writer.reset();
  return canonical;
}

const LARGEST_SCRATCH = 1024 * 1024;

/** The canonical bytes of a message: known fields by number, then unknown ones. */
export function encodeMessage<N extends MessageName>(name: N, message: Messages[N]): Uint8Array {
  return typeOf(name)
    .encode(message as object)
    .finish();
}

/** A message of its own with the fields, the presence and the unknown fields of `message`; or an empty one. */
export function copyMessage<N extends MessageName>(name: N, message: Messages[N] | undefined): Messages[N] {
  const copy = typeOf(name).create();
  if (message) {
    for (const key of Object.getOwnPropertyNames(message)) {
      Object.defineProperty(copy, key, Object.getOwnPropertyDescriptor(message, key)!);
    }
  }
  return copy as Messages[N];
}

/** True when the field was in the file, even with its default value. */
export function isPresent(message: object, field: string): boolean {
  return Object.hasOwn(message, field);
}

/** An optional string: undefined when absent, '' when written out empty. */
export function ownString<M extends object>(message: M, field: keyof M & string): string | undefined {
  return isPresent(message, field) ? (message[field] as string) : undefined;
}

/** Sets an optional field, or makes it absent. */
export function setOptional<M extends object, K extends keyof M>(message: M, field: K, value: M[K] | undefined): void {
  if (value === undefined) delete message[field];
  else message[field] = value;
}

/** Sets a string that is absent when empty, unless the file wrote it out although it is empty. */
export function setString<M extends object, K extends keyof M & string>(
  message: M,
  field: K,
  value: M[K] & string,
): void {
  if (value === '' && !isPresent(message, field)) return;
  message[field] = value;
}

/** Sets the domain that the core says, unless the file spells the default domain out, which says the same. */
export function setDomain(message: { domain?: string }, domain: string): void {
  if (domain !== '' || message.domain !== LONG_DEFAULT_DOMAIN) setString(message, 'domain', domain);
}

export function toBigint(value: Long): bigint {
  return (BigInt(value.high) << 32n) | BigInt(value.low >>> 0);
}

/** The number of a Long; NaN when it is beyond 2^53. */
export function toNumber(value: Long): number {
  const number = value.high * 4294967296 + (value.low >>> 0);
  return Number.isSafeInteger(number) ? number : Number.NaN;
}

const LongBits = protobuf.util.Long as unknown as { fromBits(low: number, high: number): Long };

export function toLong(value: bigint | number): Long {
  const wide = BigInt(value);
  return LongBits.fromBits(Number(BigInt.asIntN(32, wide)), Number(BigInt.asIntN(32, wide >> 32n)));
}
