/** Whether the bytes of a message are the canonical ones, read off the bytes: what most files hold, at a fraction of encoding them again. */
import type protobuf from 'protobufjs/light.js';
import { BYTES } from './wire.js';

/** A field as its bytes are looked at. */
interface Form {
  readonly wireType: number;
  readonly isRepeated: boolean;
  readonly type: string;
  /** Those of a message in the field. */
  readonly forms: Forms | null;
  /** A bit of its own for each oneof of the message; 0 outside of one. Of several fields in one, protobufjs keeps the last. */
  readonly oneof: number;
}
/** By field number. */
type Forms = (Form | undefined)[];

const FIXED32 = 5;
const WIRE_TYPES: Readonly<Record<string, number>> = {
  int32: 0,
  int64: 0,
  float: FIXED32,
  string: BYTES,
  bytes: BYTES,
};
const known = new Map<protobuf.Type, Forms>();

function formsOf(type: protobuf.Type): Forms {
  const found = known.get(type);
  if (found) return found;
  const forms: Forms = [];
  known.set(type, forms);
  for (const field of type.fieldsArray) {
    const { resolvedType } = field.resolve();
    const child = resolvedType ? formsOf(resolvedType as protobuf.Type) : null;
    const wireType = child ? BYTES : WIRE_TYPES[field.type];
    // What is not looked at here is encoded and compared, like all that is unusual.
    if (wireType === undefined || field.packed) continue;
    const oneof = field.partOf ? 1 << type.oneofsArray.indexOf(field.partOf) : 0;
    forms[field.id] = { wireType, isRepeated: field.repeated, type: field.type, forms: child, oneof };
  }
  return forms;
}

/** True only where protobufjs would write these very bytes; false says nothing. */
export function isPlain(type: protobuf.Type, wire: Uint8Array): boolean {
  return isPlainFrom(formsOf(type), wire, 0, wire.length);
}

function isPlainFrom(forms: Forms, wire: Uint8Array, start: number, end: number): boolean {
  let at = start;
  let last = 0;
  let oneofs = 0;
  while (at < end) {
    let tag = wire[at++] as number;
    if (tag > 127) {
      const more = wire[at++] as number;
      if (more === 0 || more > 127) return false;
      tag += (more - 1) * 128;
    }
    const number = tag >> 3;
    const form = forms[number];
    if (!form || form.wireType !== (tag & 7) || number < last || (number === last && !form.isRepeated)) return false;
    last = number;
    if ((oneofs & form.oneof) !== 0) return false;
    oneofs |= form.oneof;
    if (form.wireType === FIXED32) {
      // NaNs, of which there are many, come out as one.
      if (((wire[at + 3] as number) & 0x7f) === 0x7f) return false;
      at += 4;
      continue;
    }
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = wire[at++] as number;
      value += (byte & 127) * scale;
      if (byte < 128) {
        if (byte === 0 && scale > 1) return false;
        break;
      }
      // Negative numbers, and numbers that are none any more.
      if (scale > 2 ** 42) return false;
    }
    if (form.wireType !== BYTES) {
      if (form.type === 'int32' && value >= 2 ** 31) return false;
      continue;
    }
    const next = at + value;
    if (next > end) return false;
    if (form.forms && !isPlainFrom(form.forms, wire, at, next)) return false;
    if (form.type === 'string') {
      for (let i = at; i < next; i++) if ((wire[i] as number) > 127) return false;
    }
    at = next;
  }
  return at === end;
}
