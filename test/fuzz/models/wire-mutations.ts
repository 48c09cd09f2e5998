/** Damage to bytes and fields: what a broken download, a foreign writer or an attacker makes of a file. */
import type { Random } from '../random.js';
import { copyMessage, encodeMessage, type Field, isMessage, type Message, messageField, messagesIn } from '../wire.js';

const NUMBERS = [
  0n,
  1n,
  2n,
  7n,
  127n,
  128n,
  255n,
  65_535n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 40n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
  2n ** 64n - 2n,
];
const TEXTS = [
  '',
  '\0',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  '../x',
  'ai.onnx',
  '\u202e\x1b[31m',
  'layers.99999999999',
  '日本',
  '-1',
  '1e999',
];

const fieldsOf = (root: Message): [Message, Field][] =>
  [...messagesIn(root)].flatMap(([message]) => message.fields.map((field): [Message, Field] => [message, field]));

/** Changes one field, or one place, of the tree. */
export function mutateFields(root: Message, random: Random): void {
  const fields = fieldsOf(root);
  if (fields.length === 0) return;
  const [parent, field] = random.pick(fields);
  const at = parent.fields.indexOf(field);
  switch (random.below(12)) {
    case 0:
      parent.fields.splice(at, 1);
      return;
    case 1:
      parent.fields.splice(random.below(parent.fields.length + 1), 0, copyField(field));
      return;
    case 2: {
      const other = random.below(parent.fields.length);
      [parent.fields[at], parent.fields[other]] = [parent.fields[other] as Field, field];
      return;
    }
    case 3:
      field.number = random.chance(0.5) ? random.between(1, 30) : random.pick([0, 100, 2 ** 28, 2 ** 29 - 1]);
      return;
    case 4:
      field.lie = random.pick([-1, 1, -5, 5, 100, 2 ** 20, 2 ** 31, 2 ** 40]);
      return;
    case 5: {
      // A subtree in the place of another, anywhere.
      const [, other] = random.pick(fields);
      field.value = isMessage(other.value) ? copyMessage(other.value) : other.value;
      field.type = other.type;
      return;
    }
    case 6:
      random.pick([...messagesIn(root)])[0].fields.push(copyField(field));
      return;
    case 7:
      nest(parent, field, random.pick([2, 20, 70, 200]));
      return;
    case 8:
      for (let i = random.pick([3, 50, 400]); i > 0; i--) parent.fields.splice(at, 0, copyField(field));
      return;
    default:
      mutateValue(field, random);
  }
}

function copyField(field: Field): Field {
  return { ...field, value: isMessage(field.value) ? copyMessage(field.value) : field.value };
}

function mutateValue(field: Field, random: Random): void {
  const { value } = field;
  if (typeof value === 'bigint') {
    field.value = BigInt.asUintN(64, random.chance(0.3) ? value + random.pick([-1n, 1n, 2n]) : random.pick(NUMBERS));
    return;
  }
  const bytes = isMessage(value) ? encodeMessage(value) : Uint8Array.from(value);
  if (field.type === 2 && random.chance(0.3)) field.value = new TextEncoder().encode(random.pick(TEXTS));
  else if (field.type === 2 && random.chance(0.1))
    field.value = new Uint8Array(random.pick([1, 64, 5000])).fill(random.below(256));
  else field.value = damaged(bytes, random, field.type === 2);
}

/** A message inside itself, many times. */
function nest(parent: Message, field: Field, times: number): void {
  if (!isMessage(field.value)) return;
  let inner = field.value;
  for (let i = 0; i < times; i++)
    inner = { kind: inner.kind, fields: [...inner.fields.slice(0, 4), messageField(field.number, inner)] };
  parent.fields[parent.fields.indexOf(field)] = messageField(field.number, inner);
}

/** Some bytes changed; with `isLong`, also cut, grown or cut out. */
export function damaged(bytes: Uint8Array, random: Random, isLong = true): Uint8Array {
  const changed = Uint8Array.from(bytes);
  const at = random.below(Math.max(1, bytes.length));
  switch (random.below(isLong ? 6 : 2)) {
    case 0:
      if (changed.length > 0) changed[at] = (changed[at] as number) ^ (1 << random.below(8));
      return changed;
    case 1:
      if (changed.length > 0) changed[at] = random.pick([0, 1, 127, 128, 255, random.below(256)]);
      return changed;
    case 2:
      return changed.slice(0, at);
    case 3:
      return Buffer.concat([
        changed.slice(0, at),
        Uint8Array.from({ length: random.between(1, 9) }, () => random.below(256)),
        changed.slice(at),
      ]);
    case 4:
      return Buffer.concat([changed.slice(0, at), changed.slice(at + random.between(1, 30))]);
    default: {
      const from = random.below(Math.max(1, bytes.length));
      const piece = changed.slice(from, from + random.between(1, 40));
      return Buffer.concat([changed.slice(0, at), piece, changed.slice(at + piece.length)]);
    }
  }
}
