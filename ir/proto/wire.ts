/** Protobuf's wire format below the messages: tags, varints, lengths. Offsets are numbers up to 2^53, never int32. */

import type { ReadableSource } from '../bytes.js';
import { type Diagnostic, errors } from '../diagnostic.js';
import { counted } from '../visible.js';
export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;
export const START_GROUP = 3;
export const END_GROUP = 4;
export const FIXED32 = 5;

const SMALLEST_WINDOW = 16 * 1024;
const LARGEST_WINDOW = 1024 * 1024;
/** protobufjs and C++ refuse deeper groups too. */
const GROUP_DEPTH = 100;

/** Reads forward through a source in windows; jumps cost nothing but the next window. */
export class WireReader {
  pos = 0;
  #window = new Uint8Array(0);
  #start = 0;
  #nextSize = SMALLEST_WINDOW;

  constructor(
    readonly source: ReadableSource,
    /** What messages call the source. */
    readonly label: string,
  ) {}

  /** Throws unless `length` bytes are left before `end`: the file is short, or a length inside it lies. */
  need(length: number, end: number): void {
    if (length <= end - this.pos) return;
    if (end === this.source.size) throw errors.truncated(this.label, this.pos, length, end - this.pos);
    throw this.bad(`${counted(length, 'byte')} expected, ${end - this.pos} left in the message`);
  }

  bad(why: string): Diagnostic {
    return errors.badWire(`${this.label}, offset ${this.pos}`, why);
  }

  #byte(end: number): number {
    if (this.pos >= end) this.need(1, end);
    let index = this.pos - this.#start;
    if (index < 0 || index >= this.#window.length) {
      this.#fill();
      index = 0;
    }
    this.pos++;
    return this.#window[index] as number;
  }

  #fill(): void {
    // Read ahead more and more while reading on, little after a jump: a tensor's header is small.
    const isSequential = this.pos === this.#start + this.#window.length;
    this.#nextSize = isSequential ? Math.min(this.#nextSize * 2, LARGEST_WINDOW) : SMALLEST_WINDOW;
    const window = new Uint8Array(Math.min(this.#nextSize, this.source.size - this.pos));
    this.source.readInto(window, 0, window.length, this.pos);
    this.#window = window;
    this.#start = this.pos;
  }

  /** A tag or a length. */
  #unsigned(end: number, limit: number, what: string): number {
    const index = this.pos - this.#start;
    if (index >= 0 && index < this.#window.length && this.pos < end) {
      // Nearly all have one byte.
      const byte = this.#window[index] as number;
      if (byte < 128) {
        this.pos++;
        return byte;
      }
    }
    let value = 0;
    for (let factor = 1, i = 0; i < 10; i++, factor *= 128) {
      const byte = this.#byte(end);
      value += (byte & 127) * factor;
      if (byte < 128) {
        if (value > limit) break;
        return value;
      }
    }
    throw this.bad(`${what} out of range`);
  }

  /** Eight times the number of a field and its wire type: an object for each of them would take more than reading it. */
  tag(end: number): number {
    const tag = this.#unsigned(end, 0xffffffff, 'tag');
    if (tag < 8) throw this.bad('field number 0');
    return tag;
  }

  length(end: number): number {
    const length = this.#unsigned(end, Number.MAX_SAFE_INTEGER, 'length');
    this.need(length, end);
    return length;
  }

  /** The value of a varint field, as two halves. */
  varint64(end: number): { low: number; high: number } {
    let low = 0;
    let high = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.#byte(end);
      const bits = byte & 127;
      if (i < 4) low |= bits << (7 * i);
      else if (i === 4) {
        low |= bits << 28;
        high |= bits >>> 4;
      } else high |= bits << (7 * i - 32);
      if (byte < 128) return { low: low >>> 0, high: high >>> 0 };
    }
    throw this.bad('a varint of more than 10 bytes');
  }

  /** Moves behind the value of a field whose tag has been read. */
  skip(number: number, type: number, end: number, depth = 0): void {
    switch (type) {
      case VARINT:
        for (let i = 0; i < 10; i++) if (this.#byte(end) < 128) return;
        throw this.bad('a varint of more than 10 bytes');
      case FIXED64:
      case FIXED32: {
        const width = type === FIXED64 ? 8 : 4;
        this.need(width, end);
        this.pos += width;
        return;
      }
      case BYTES: {
        const length = this.length(end);
        this.pos += length;
        return;
      }
      case START_GROUP:
        if (depth >= GROUP_DEPTH) throw this.bad('groups nested too deeply');
        for (;;) {
          const inner = this.tag(end);
          if (inner % 8 === END_GROUP) {
            if (Math.floor(inner / 8) !== number) throw this.bad('a group ends that did not begin');
            return;
          }
          this.skip(Math.floor(inner / 8), inner % 8, end, depth + 1);
        }
      default:
        throw this.bad(`wire type ${type}`);
    }
  }

  /** A copy of `length` bytes from `start`; `pos` does not move. */
  copy(start: number, length: number): Uint8Array {
    return this.view(start, length).slice();
  }

  /** The bytes themselves, for whoever keeps nothing of them: what is read ahead stays in memory as long as they do. */
  view(start: number, length: number): Uint8Array {
    const index = start - this.#start;
    if (index >= 0 && index + length <= this.#window.length) return this.#window.subarray(index, index + length);
    const bytes = new Uint8Array(length);
    this.source.readInto(bytes, 0, length, start);
    return bytes;
  }
}

/** Bytes of a varint. */
export function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++;
  return size;
}

function putVarint(target: Uint8Array, at: number, value: number): number {
  let rest = value;
  let index = at;
  for (; rest >= 128; rest = Math.floor(rest / 128)) target[index++] = (rest % 128) + 128;
  target[index++] = rest;
  return index;
}

/** The tag of a field, with its length when `type` is BYTES. */
export function fieldHead(number: number, type: number, length: number): Uint8Array {
  const tag = number * 8 + type;
  const hasLength = type === BYTES;
  const head = new Uint8Array(varintSize(tag) + (hasLength ? varintSize(length) : 0));
  const next = putVarint(head, 0, tag);
  if (hasLength) putVarint(head, next, length);
  return head;
}

export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0] as Uint8Array;
  let total = 0;
  for (const part of parts) total += part.length;
  const joined = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
