/** Fields of onnx.proto by name, and the small edits that mutations of graphs are made of. */
import type { Random } from '../random.js';
import { type Field, integerField, type Message, messageField, textField } from '../wire.js';

/** Graph, node and value fields of onnx.proto, by what they are. */
export const NODE = { input: 1, output: 2, name: 3, op: 4, attribute: 5, domain: 7 } as const;
export const GRAPH = { node: 1, initializer: 5, input: 11, output: 12, info: 13 } as const;

export interface Place {
  readonly graph: Message;
  readonly nodes: readonly Message[];
  readonly names: readonly string[];
}

export const INTEGERS = [
  -9_223_372_036_854_775_808n,
  -3n,
  -2n,
  -1n,
  0n,
  1n,
  2n,
  3n,
  4n,
  8n,
  16n,
  1000n,
  2n ** 31n,
  2n ** 53n,
  2n ** 62n,
];

export function floatField(number: number, value: number): Field {
  return { number, type: 5, value: new Uint8Array(Float32Array.of(value).buffer) };
}

export function changeNumber(field: Field, random: Random): void {
  if (typeof field.value === 'bigint')
    field.value = BigInt.asUintN(64, random.chance(0.5) ? field.value + 1n : random.pick(INTEGERS));
  else if (field.type === 5) field.value = floatField(0, random.pick([0, 1, -1, 1e-6, 1e-3, 1e30, Number.NaN])).value;
}

export function valueInfo(name: string, type: number, dims: readonly bigint[] | null): Message {
  const shape: Message = {
    kind: 'shape',
    fields: (dims ?? []).map((dim) => messageField(1, { kind: 'dimension', fields: [integerField(1, dim)] })),
  };
  const tensorType: Message = {
    kind: 'tensorType',
    fields: [integerField(1, type), ...(dims ? [messageField(2, shape)] : [])],
  };
  return {
    kind: 'value',
    fields: [textField(1, name), messageField(2, { kind: 'type', fields: [messageField(1, tensorType)] })],
  };
}

export function fieldOf(parent: Message, value: Message): Field {
  return parent.fields.find((field) => field.value === value) as Field;
}

export function textIs({ value }: Field, text: string): boolean {
  return value instanceof Uint8Array && new TextDecoder().decode(value) === text;
}

export function setBytes(field: Field, text: string): void {
  field.value = new TextEncoder().encode(text);
}

export function setText(message: Message, number: number, text: string): void {
  const field = message.fields.find((each) => each.number === number);
  if (field) setBytes(field, text);
  else message.fields.push(textField(number, text));
}
