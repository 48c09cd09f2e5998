/**
 * JSON files of other tools, edited in place: what is not changed keeps every character (key order, indentation, `1e-05`,
 * `10000.0`). NaN and Infinity, which Python writes, are read too.
 */
import { errors } from '../../ir/index.js';

/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
/** A JSON object. */
export type JsonObject = { readonly [key: string]: Json };
/** Keys and indices from the root. */
export type JsonPath = readonly (string | number)[];

/** True for an object that is no list. */
export function isJsonObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

interface Span {
  readonly start: number;
  readonly end: number;
  readonly value: Json;
  /** Members of an object or items of an array, in order; `at` is where the key, or the item, begins. */
  readonly parts: readonly { readonly key: string | number; readonly at: number; readonly span: Span }[];
}

/** No config is larger. What is known of each of its values takes a hundred times its text. */
export const LONGEST_CONFIG = 2 * 2 ** 20;

/** A JSON text and the edits made to it. */
export class JsonText {
  #text: string;
  #root: Span;

  /** @throws Diagnostic OF_USAGE naming the file and the line. */
  constructor(
    readonly original: string,
    readonly file: string,
  ) {
    // What does not even begin like JSON (a model, say) is called that, whatever its size.
    if (original.length > LONGEST_CONFIG && /^\uFEFF?\s*[[{"]/.test(original)) {
      throw errors.usage(file, `it has ${original.length} characters, which no config has`, 'check the file');
    }
    this.#text = original;
    this.#root = new Reader(original, file).read();
  }

  get value(): Json {
    return this.#root.value;
  }

  /** Whether any edit changed the text. */
  get isChanged(): boolean {
    return this.#text !== this.original;
  }

  toString(): string {
    return this.#text;
  }

  /** The value at `path`; undefined where there is none. */
  get(path: JsonPath): Json | undefined {
    return this.#find(path)?.value;
  }

  /** Replaces the value at `path`, or adds it as the last member of its object. Nothing happens when it is equal. */
  set(path: JsonPath, value: Json): void {
    const old = this.#find(path);
    if (old) {
      if (JSON.stringify(old.value) === JSON.stringify(value)) return;
      const isOneLine = !this.#text.slice(old.start, old.end).includes('\n');
      // A list on one line stays on one line; what was simple and is not any more is laid out.
      this.#edit(old.start, old.end, this.#print(value, path.length, isOneLine && Array.isArray(old.value)));
      return;
    }
    const parent = this.#find(path.slice(0, -1));
    if (!isJsonObject(parent?.value)) throw new RangeError(`${this.file} has no object at ${path.slice(0, -1)}`);
    const member = `${JSON.stringify(path.at(-1))}: ${this.#print(value, path.length, false)}`;
    const last = parent?.parts.at(-1);
    if (last) this.#edit(last.span.end, last.span.end, `,${this.#newLine(path.length)}${member}`);
    else {
      const text = `{${this.#newLine(path.length)}${member}${this.#newLine(path.length - 1)}}`;
      this.#edit((parent as Span).start, (parent as Span).end, text);
    }
  }

  /** Removes the member at `path`, if it is there. */
  remove(path: JsonPath): void {
    const parent = this.#find(path.slice(0, -1));
    const index = parent?.parts.findIndex(({ key }) => key === path.at(-1)) ?? -1;
    if (!parent || index < 0) return;
    const part = parent.parts[index];
    const [before, after] = [parent.parts[index - 1], parent.parts[index + 1]];
    if (!part) return;
    if (before) this.#edit(before.span.end, part.span.end, '');
    else this.#edit(part.at, after ? after.at : part.span.end, '');
  }

  #edit(start: number, end: number, text: string): void {
    this.#text = this.#text.slice(0, start) + text + this.#text.slice(end);
    this.#root = new Reader(this.#text, this.file).read();
  }

  #find(path: JsonPath): Span | undefined {
    let span: Span | undefined = this.#root;
    for (const key of path) span = span?.parts.find((part) => part.key === key)?.span;
    return span;
  }

  /** The indentation of one level; empty for a text on one line. */
  get #indent(): string {
    return /\n([ \t]+)\S/.exec(this.#text)?.[1] ?? '';
  }

  #newLine(depth: number): string {
    return this.#text.includes('\n') ? `\n${this.#indent.repeat(depth)}` : '';
  }

  #print(value: Json, depth: number, oneLine: boolean): string {
    if (oneLine || !this.#text.includes('\n')) {
      if (!Array.isArray(value)) return JSON.stringify(value);
      return `[${value.map((item) => this.#print(item, depth, true)).join(', ')}]`;
    }
    return JSON.stringify(value, null, this.#indent).replaceAll('\n', this.#newLine(depth));
  }
}

/** Deeper than any config. */
const DEEPEST = 200;

class Reader {
  #at = 0;

  constructor(
    readonly text: string,
    readonly file: string,
  ) {}

  read(): Span {
    if (this.text.startsWith('\uFEFF')) this.#at = 1;
    const span = this.#value(0);
    this.#space();
    if (this.#at < this.text.length) this.#fail('the end');
    return span;
  }

  #fail(expected: string): never {
    const line = this.text.slice(0, this.#at).split('\n').length;
    const found = this.text.slice(this.#at, this.#at + 20).split('\n')[0] || 'the end';
    throw errors.usage(
      this.file,
      `it is not JSON: line ${line}: expected ${expected}, found '${found}'`,
      'correct the file',
    );
  }

  #space(): void {
    while (' \t\r\n'.includes(this.text[this.#at] ?? 'x')) this.#at++;
  }

  #take(character: string): boolean {
    this.#space();
    if (this.text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #value(depth: number): Span {
    if (depth > DEEPEST) this.#fail('less nesting');
    this.#space();
    const start = this.#at;
    const first = this.text[start];
    if (first === '{') return this.#object(start, depth);
    if (first === '[') return this.#array(start, depth);
    if (first === '"') {
      const value = this.#string();
      return { start, end: this.#at, value, parts: [] };
    }
    const word = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity)(?![\w.])/.exec(
      this.text.slice(start, start + 400),
    )?.[0];
    if (!word) this.#fail('a value');
    this.#at += word.length;
    const value = /^(?:NaN|-?Infinity)$/.test(word) ? Number(word) : (JSON.parse(word) as Json);
    return { start, end: this.#at, value, parts: [] };
  }

  #object(start: number, depth: number): Span {
    this.#at++;
    const parts: { key: string; at: number; span: Span }[] = [];
    if (!this.#take('}')) {
      do {
        this.#space();
        const at = this.#at;
        if (this.text[at] !== '"') this.#fail('a key');
        const key = this.#string();
        if (!this.#take(':')) this.#fail("':'");
        parts.push({ key, at, span: this.#value(depth + 1) });
      } while (this.#take(','));
      if (!this.#take('}')) this.#fail("'}'");
    }
    const value = Object.fromEntries(parts.map(({ key, span }) => [key, span.value]));
    return { start, end: this.#at, value, parts };
  }

  #array(start: number, depth: number): Span {
    this.#at++;
    const parts: { key: number; at: number; span: Span }[] = [];
    if (!this.#take(']')) {
      do {
        const span = this.#value(depth + 1);
        parts.push({ key: parts.length, at: span.start, span });
      } while (this.#take(','));
      if (!this.#take(']')) this.#fail("']'");
    }
    return { start, end: this.#at, value: parts.map(({ span }) => span.value), parts };
  }

  #string(): string {
    const match = /"(?:[^"\\\n]|\\.)*"/y;
    match.lastIndex = this.#at;
    const text = match.exec(this.text)?.[0];
    if (text === undefined) this.#fail('the end of a string');
    try {
      const value = JSON.parse(text) as string;
      this.#at += text.length;
      return value;
    } catch {
      this.#fail('a string');
    }
  }
}
