/**
 * ONNX files as trees of protobuf fields, read and written without the code under test: what the mutations change and what
 * the evaluator reads. Unknown fields stay what they are, bytes.
 */

/** Messages of onnx.proto whose fields are looked into: which fields hold which message. */
const CHILDREN = {
  model: { 7: 'graph', 8: 'opset', 14: 'entry', 25: 'function' },
  graph: { 1: 'node', 5: 'tensor', 11: 'value', 12: 'value', 13: 'value', 15: 'sparse', 16: 'entry' },
  node: { 5: 'attribute', 9: 'entry' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 14: 'type', 15: 'type', 22: 'sparse', 23: 'sparse' },
  value: { 2: 'type', 4: 'entry' },
  type: { 1: 'tensorType', 4: 'sequence', 9: 'sequence' },
  sequence: { 1: 'type' },
  tensorType: { 2: 'shape' },
  shape: { 1: 'dimension' },
  dimension: {},
  tensor: { 13: 'entry' },
  sparse: { 1: 'tensor', 2: 'tensor' },
  entry: {},
  opset: {},
  function: { 7: 'node', 9: 'opset', 11: 'attribute', 12: 'value', 14: 'entry' },
} as const;

export type Kind = keyof typeof CHILDREN;

export interface Message {
  readonly kind: Kind;
  fields: Field[];
}

export interface Field {
  number: number;
  /** Wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. */
  type: number;
  value: bigint | Uint8Array | Message;
  /** Added to the length that is written, to make it a lie. */
  lie?: number;
}

export function isMessage(value: Field['value']): value is Message {
  return typeof value === 'object' && 'kind' in value;
}

/** Reads a well-formed message. Throws a RangeError where it is none. */
export function parseMessage(bytes: Uint8Array, kind: Kind): Message {
  const fields: Field[] = [];
  const children: Readonly<Record<number, Kind>> = CHILDREN[kind];
  let at = 0;
  const varint = (): bigint => {
    const first = bytes[at];
    if (first !== undefined && first < 128) {
      at++;
      return BigInt(first);
    }
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new RangeError('a varint ends early');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new RangeError('a varint of more than ten bytes');
  };
  const take = (count: number): Uint8Array => {
    if (at + count > bytes.length) throw new RangeError('a field ends early');
    at += count;
    return bytes.subarray(at - count, at);
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const [number, type] = [Math.floor(tag / 8), tag % 8];
    if (type === 0) fields.push({ number, type, value: varint() });
    else if (type === 1 || type === 5) fields.push({ number, type, value: take(type === 1 ? 8 : 4) });
    else if (type === 2) {
      const content = take(Number(varint()));
      const child = children[number];
      fields.push({ number, type, value: child ? parseMessage(content, child) : content });
    } else throw new RangeError(`wire type ${type}`);
  }
  return { kind, fields };
}

export function encodeMessage({ fields }: Message): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const { number, type, value, lie } of fields) {
    parts.push(varintBytes(BigInt(number) * 8n + BigInt(type)));
    if (typeof value === 'bigint') parts.push(varintBytes(value));
    else {
      const content = isMessage(value) ? encodeMessage(value) : value;
      if (type === 2) parts.push(varintBytes(BigInt(Math.max(0, content.length + (lie ?? 0)))));
      parts.push(content);
    }
  }
  return Buffer.concat(parts);
}

function varintBytes(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** The messages in field `number`. */
export function childrenOf(message: Message, number: number): Message[] {
  const found: Message[] = [];
  for (const field of message.fields) if (field.number === number && isMessage(field.value)) found.push(field.value);
  return found;
}
export function childOf(message: Message, number: number): Message | null {
  return childrenOf(message, number).at(-1) ?? null;
}
/** The contents of field `number`, each as bytes. */
export function bytesOf(message: Message, number: number): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (const { number: own, value } of message.fields)
    if (own === number && value instanceof Uint8Array) found.push(value);
  return found;
}
export function textsOf(message: Message, number: number): string[] {
  return bytesOf(message, number).map((bytes) =>
    Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'),
  );
}
export function textOf(message: Message, number: number): string {
  return textsOf(message, number).at(-1) ?? '';
}
/** The integers of field `number`, packed or one by one. */
export function integersOf(message: Message, number: number): bigint[] {
  return message.fields.flatMap(({ number: own, type, value }) => {
    if (own !== number) return [];
    if (typeof value === 'bigint') return [BigInt.asIntN(64, value)];
    if (type !== 2 || !(value instanceof Uint8Array)) return [];
    // A packed field is a row of varints: as fields of number 0 they would have tags, so it is read here.
    const found: bigint[] = [];
    let [current, shift] = [0n, 0n];
    for (const byte of value) {
      current |= BigInt(byte & 127) << shift;
      shift += 7n;
      if (byte >= 128) continue;
      found.push(BigInt.asIntN(64, current));
      [current, shift] = [0n, 0n];
    }
    return found;
  });
}
/** The float32 numbers of field `number`, packed or one by one. */
export function floatsOf(message: Message, number: number): number[] {
  return bytesOf(message, number).flatMap((bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Array.from({ length: Math.floor(bytes.length / 4) }, (_, i) => view.getFloat32(4 * i, true));
  });
}

export function textField(number: number, text: string): Field {
  return { number, type: 2, value: new TextEncoder().encode(text) };
}
export function integerField(number: number, value: bigint | number): Field {
  return { number, type: 0, value: BigInt.asUintN(64, BigInt(value)) };
}
export function messageField(number: number, value: Message): Field {
  return { number, type: 2, value };
}

/** `message` and all messages in it, each with the field it stands in (null for the first). */
export function* messagesIn(message: Message, field: Field | null = null): Generator<[Message, Field | null]> {
  yield [message, field];
  for (const inner of message.fields) if (isMessage(inner.value)) yield* messagesIn(inner.value, inner);
}

/** A copy that shares nothing that mutations change. */
export function copyMessage({ kind, fields }: Message): Message {
  return {
    kind,
    fields: fields.map((field) => ({
      ...field,
      value: isMessage(field.value) ? copyMessage(field.value) : field.value,
    })),
  };
}
