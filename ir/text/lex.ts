/**
 * The lexical level of the ONNX textual syntax: identifiers, quoted strings, numbers, punctuation and comments.
 *
 * The official lexer skips everything from `#` to the end of the line. Lines that start with `#@` are directives of ours:
 * they say about the construct that follows what the official syntax cannot. The lexer collects them while it skips
 * blanks; whoever parses the construct takes them. One that nobody takes is an error, so that nothing is lost silently.
 */
import { type Diagnostic, errors } from '../diagnostic.js';
import { type DataType, dataTypeCode } from '../type.js';
import { visible, visibleLines } from '../visible.js';

/** A `#@` line, split into words. */
export interface Directive {
  /** Offset of its first character in the text. */
  readonly at: number;
  readonly words: readonly Word[];
}
/** A bare word or a quoted string (JSON syntax) of a directive. */
export interface Word {
  readonly at: number;
  readonly text: string;
  readonly quoted: boolean;
}

/** An int, float or string constant; `text` is the number as written or the content of the string. */
export interface Literal {
  readonly kind: 'int' | 'float' | 'string';
  readonly text: string;
  readonly at: number;
}

const IDENTIFIER = /[A-Za-z_][A-Za-z0-9_]*/y;
const NUMBER = /-?(?:(?:infinity|inf|nan)(?![A-Za-z0-9_])|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)/iy;
const TYPE_WORDS = new Set(['seq', 'map', 'optional', 'sparse_tensor', 'opaque']);

/** True for an element type that the official parser knows by name. */
export function isOfficialDataType(dtype: DataType): boolean {
  const code = dataTypeCode(dtype);
  return code > 0 && code <= 26;
}

/** True when a word in a place where a type may stand is read as one. */
export function isTypeWord(word: string): boolean {
  return TYPE_WORDS.has(word) || dataTypeCode(word) >= 0;
}

/**
 * A name as the syntax wants it: bare when it is an identifier that nothing else can be mistaken for, else quoted, on one
 * line whatever is in it.
 */
export function quoteName(name: string): string {
  return isIdentifier(name) && !isTypeWord(name) ? name : visible(quote(name));
}

export function isIdentifier(name: string): boolean {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name);
}

/**
 * A string constant. The official syntax knows only the escapes `\"` and `\\`; a newline stands for itself. What a reader
 * would not see is written as `\u001b`, which is our own.
 */
export function quote(text: string): string {
  return visibleLines(`"${text.replace(/["\\]/g, '\\$&')}"`);
}

/** Splits a text into words, constants and directives, and says where an error lies. */
export class Lexer {
  #at = 0;
  #pending: Directive[] = [];

  /** `placeOf` says where an offset is, for text that is part of a larger one. */
  constructor(
    readonly text: string,
    readonly placeOf?: (at: number) => string,
  ) {
    if (text.charCodeAt(0) === 0xfeff) this.#at = 1;
  }

  /** Offset of the next token. */
  get at(): number {
    this.#skip();
    return this.#at;
  }

  /** A Diagnostic that says what stands at `at` (the next token by default) and what should. */
  error(expected: string, at = this.at, found = this.#excerpt(at)): Diagnostic {
    return errors.text(this.place(at), found, expected);
  }

  /** `line 3, column 7` of an offset. */
  place(at: number): string {
    if (this.placeOf) return this.placeOf(at);
    let line = 1;
    let start = 0;
    for (let i = this.text.indexOf('\n'); i >= 0 && i < at; i = this.text.indexOf('\n', start)) {
      line++;
      start = i + 1;
    }
    return `line ${line}, column ${at - start + 1}`;
  }

  #excerpt(at: number): string {
    if (at >= this.text.length) return 'the end of the text';
    const word = /[^\s,;(){}[\]<>=:]+|./y;
    word.lastIndex = at;
    const found = word.exec(this.text.slice(0, at + 40))?.[0] ?? this.text[at];
    return `'${found}'`;
  }

  #skip(): void {
    const { text } = this;
    for (;;) {
      const code = text.charCodeAt(this.#at);
      if (code === 32 || (code >= 9 && code <= 13)) this.#at++;
      else if (code === 35) {
        const newline = text.indexOf('\n', this.#at);
        const end = newline < 0 ? text.length : newline;
        if (text.charCodeAt(this.#at + 1) === 64) this.#pending.push(this.#directive(this.#at, end));
        this.#at = end;
      } else return;
    }
  }

  #directive(start: number, end: number): Directive {
    const words: Word[] = [];
    for (let at = start + 2; at < end; ) {
      const code = this.text.charCodeAt(at);
      if (code <= 32) at++;
      else if (code === 34) {
        const close = closingQuote(this.text, at, end);
        if (close < 0) throw this.error('a closing quote on this line', at, 'an open string');
        words.push({ at, text: this.#json(at, close + 1), quoted: true });
        at = close + 1;
      } else {
        let stop = at + 1;
        while (stop < end && this.text.charCodeAt(stop) > 32) stop++;
        words.push({ at, text: this.text.slice(at, stop), quoted: false });
        at = stop;
      }
    }
    return { at: start, words };
  }

  #json(from: number, to: number): string {
    try {
      return JSON.parse(this.text.slice(from, to)) as string;
    } catch {
      throw this.error('a string in JSON syntax', from);
    }
  }

  /** The directives in front of the next token. */
  takeDirectives(): readonly Directive[] {
    this.#skip();
    if (this.#pending.length === 0) return this.#pending;
    const taken = this.#pending;
    this.#pending = [];
    return taken;
  }

  #consume(length: number): void {
    const unused = this.#pending[0];
    if (unused) throw this.error('no directive here', unused.at, `'#@ ${unused.words[0]?.text ?? ''}'`);
    this.#at += length;
  }

  get atEnd(): boolean {
    return this.at >= this.text.length;
  }

  /** Refuses whatever is left of the text, directives included. */
  expectEnd(): void {
    if (!this.atEnd) throw this.error('the end of the text');
    this.#consume(0);
  }

  /** True when the next token starts with this character. */
  next(char: string): boolean {
    return this.text[this.at] === char;
  }

  /** Steps over this character if it is next. */
  matches(char: string): boolean {
    if (this.text[this.at] !== char) return false;
    this.#consume(1);
    return true;
  }

  expect(char: string): void {
    if (!this.matches(char)) throw this.error(`'${char}'`);
  }

  /** The identifier that comes next, without stepping over it; empty when there is none. */
  peekIdentifier(): string {
    IDENTIFIER.lastIndex = this.at;
    return IDENTIFIER.exec(this.text)?.[0] ?? '';
  }

  identifier(what = 'an identifier'): string {
    const name = this.peekIdentifier();
    if (name === '') throw this.error(what);
    this.#consume(name.length);
    return name;
  }

  /** An identifier or a quoted name. */
  name(what = 'a name'): string {
    return this.next('"') ? this.string() : this.identifier(what);
  }

  string(what = 'a quoted string'): string {
    const start = this.at;
    if (!this.next('"')) throw this.error(what);
    const close = closingQuote(this.text, start, this.text.length);
    if (close < 0) throw this.error('a closing quote', start, 'an open string');
    this.#consume(close + 1 - start);
    const inner = this.text.slice(start + 1, close);
    return inner.includes('\\') ? inner.replace(/\\(?:u([0-9a-f]{4})|([\s\S]))/g, unescaped) : inner;
  }

  /** What a sticky pattern matches. */
  pattern(pattern: RegExp, what: string): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    if (found === undefined) throw this.error(what);
    this.#consume(found.length);
    return found;
  }

  /** The number that comes next, null when there is none. */
  number(): Literal | null {
    const at = this.at;
    NUMBER.lastIndex = at;
    const text = NUMBER.exec(this.text)?.[0];
    if (text === undefined) return null;
    this.#consume(text.length);
    return { kind: /^-?[0-9]+$/.test(text) ? 'int' : 'float', text, at };
  }

  literal(what = 'a constant'): Literal {
    const at = this.at;
    if (this.next('"')) return { kind: 'string', text: this.string(), at };
    const number = this.number();
    if (!number) throw this.error(what);
    return number;
  }

  /** A whole number as `bigint`. `bits` bounds it, two's complement when `signed`. */
  integer(what = 'an integer', bits = 64, signed = true): bigint {
    const at = this.at;
    const literal = this.number();
    if (literal?.kind !== 'int') throw this.error(what, at);
    return this.toInteger(literal, what, bits, signed);
  }

  toInteger(literal: Literal, what = 'an integer', bits = 64, signed = true): bigint {
    // 20 digits hold every 64-bit integer; refusing more keeps BigInt's quadratic conversion away.
    const value = literal.text.length <= 40 ? BigInt(literal.text) : null;
    const wrapped = value === null ? null : signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value);
    if (value === null || wrapped !== value) {
      throw this.error(`${what} of ${bits} bits${signed ? '' : ' without a sign'}`, literal.at);
    }
    return value;
  }

  /** A whole number below 2^53 in size. */
  safeInteger(what = 'an integer'): number {
    const at = this.at;
    const value = Number(this.integer(what));
    if (!Number.isSafeInteger(value)) throw this.error(`${what} below 2^53`, at);
    return value;
  }
}

function unescaped(_: string, code: string | undefined, character: string | undefined): string {
  return code === undefined ? (character as string) : String.fromCharCode(Number.parseInt(code, 16));
}

/** Offset of the quote that closes the one at `open`; -1 when none does before `end`. */
function closingQuote(text: string, open: number, end: number): number {
  for (let at = open + 1; at < end; at++) {
    const code = text.charCodeAt(at);
    if (code === 34) return at;
    if (code === 92) at++;
  }
  return -1;
}
