/**
 * Directives: the `#@` lines in front of a construct that say what the official syntax cannot.
 *
 *   doc "text"                      doc_string                  metadata "key" "value"        metadata_props, one each
 *   fields "base64"                 further fields              absent name...                fields left out
 *   present name...                 empty strings written out   order 1 2 1...                field numbers in file order
 *   range 15 2 "base64"             a carried field             range 15 2 "file" 64 1000     the same, offset and length
 *   range none                      none of those implied       wire "base64"                 non-canonical bytes
 *   type "base64"                   TypeProto                   nodata                        a tensor without any
 *   storage typed                   where a tensor's data are   bytes "base64"                data that constants cannot say
 *   bytes 3 "base64"                a string element            sparse "name"                 a value defined by a range
 *   name "text"                     the name of a subgraph or of a tensor in an attribute
 *   opset 1 ...                     any of these for an import  attribute alpha ...           for an attribute of the node
 *   tensor value ..., tensor list 2 ...                         for a tensor in an attribute of the node
 *
 * Strings are in JSON syntax, so that a directive is always one line.
 */
import type { Metadata, Storage } from '../core.js';
import { type RangeNote, type Residue, rangeOfBytes } from '../proto/residue/residue.js';
import { visible } from '../visible.js';
import { type Digest, inlineWeight, sourceWeight } from '../weight.js';
import { type Locate, parseBase64, type Resolve } from './expression.js';
import { type Directive, isIdentifier, type Lexer, type Word } from './lex.js';

/** The directives of one construct, understood. */
export interface Notes {
  doc?: string;
  metadata: [string, string][];
  residue: Residue | null;
  ranges?: RangeNote[];
  type?: Uint8Array;
  storage?: Storage;
  bytes?: Uint8Array;
  nodata?: boolean;
  name?: string;
  readonly items: Map<number, Uint8Array>;
  readonly sparse: string[];
  readonly opsets: Map<number, Notes>;
  readonly attributes: Map<string, Notes>;
  /** By attribute and index in its list. */
  readonly tensors: Map<string, Map<number, Notes>>;
}

type Kind = 'model' | 'function' | 'graph' | 'node' | 'attribute' | 'tensor' | 'info' | 'opset';

const MESSAGE = ['fields', 'present', 'absent', 'wire', 'order'];
const DOCUMENTED = [...MESSAGE, 'doc', 'metadata'];
/** What may stand before what. A model's doc string and metadata, a function's doc string are official syntax. */
const ALLOWED: Readonly<Record<Kind, readonly string[]>> = {
  model: [...MESSAGE, 'range', 'opset'],
  function: [...MESSAGE, 'metadata', 'range', 'opset'],
  graph: [...DOCUMENTED, 'range', 'name', 'sparse'],
  node: [...DOCUMENTED, 'attribute', 'tensor'],
  attribute: [...MESSAGE, 'doc', 'range', 'bytes'],
  tensor: [...DOCUMENTED, 'range', 'storage', 'bytes', 'nodata', 'name'],
  info: [...DOCUMENTED, 'type'],
  opset: MESSAGE,
};

const STORAGES: readonly string[] = ['raw', 'typed', 'external'] satisfies Storage[];

/** A quoted word of a directive. */
export function word(text: string): string {
  return visible(JSON.stringify(text));
}

export function base64(bytes: Uint8Array): string {
  return `"${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')}"`;
}

/** The name of an attribute in a directive. */
export function bareWord(name: string): string {
  return isIdentifier(name) ? name : word(name);
}

/** What directives need to know of the printer. */
export interface NoteContext {
  readonly locate: Locate;
  /** Say what things are and not how the file holds them. */
  readonly digest: Digest | null;
}

/** Directives (without `#@`) for documentation and residues. */
export function noteTexts(
  docs: { readonly docString?: string | undefined; readonly metadata?: Metadata },
  residue: Residue | null,
  { locate, digest }: NoteContext,
): string[] {
  const texts: string[] = [];
  // Documentation changes nothing, and exporters fill it with paths and line numbers.
  if (!digest && docs.docString !== undefined) texts.push(`doc ${word(docs.docString)}`);
  if (!digest) for (const [key, value] of docs.metadata ?? []) texts.push(`metadata ${word(key)} ${word(value)}`);
  if (!residue) return texts;
  const { fields, present, absent, wire, order, ranges } = residue;
  if (fields) texts.push(`fields ${base64(fields)}`);
  if (digest) return [...texts, ...(ranges ?? []).map((range) => rangeDigest(range, digest))];
  if (present) texts.push(`present ${present.join(' ')}`);
  if (absent) texts.push(`absent ${absent.join(' ')}`);
  if (wire) texts.push(`wire ${base64(wire)}`);
  if (order) texts.push(`order ${order.join(' ')}`);
  if (ranges?.length === 0) texts.push('range none');
  for (const range of ranges ?? []) texts.push(rangeText(range, locate));
  return texts;
}

function rangeText({ number, wireType, bytes, source, offset, length }: RangeNote, locate: Locate): string {
  const payload = bytes ? base64(bytes) : `${word(locate(source))} ${offset} ${length}`;
  return `range ${number} ${wireType} ${payload}`;
}

function rangeDigest({ number, wireType, bytes, source, offset, length }: RangeNote, digest: Digest): string {
  const payload = bytes
    ? inlineWeight(bytes, 'uint8', [bytes.length])
    : sourceWeight(source, offset, 'uint8', [length]);
  return `range ${number} ${wireType} sha256 ${digest.hash(payload)}`;
}

/** Understands the directives in front of a construct. Throws OF_TEXT. */
export function parseNotes(
  lexer: Lexer,
  directives: readonly Directive[],
  kind: Kind,
  resolve: Resolve | undefined,
): Notes {
  const notes = emptyNotes();
  for (const { words, at } of directives) apply(new Words(lexer, words, at, resolve), notes, kind);
  return notes;
}

/** What the directives say about the message; null when nothing. */
export function residueIn(notes: Notes): Residue | null {
  return notes.ranges ? { ...notes.residue, ranges: notes.ranges } : notes.residue;
}

export function emptyNotes(): Notes {
  return {
    metadata: [],
    residue: null,
    items: new Map(),
    sparse: [],
    opsets: new Map(),
    attributes: new Map(),
    tensors: new Map(),
  };
}

function apply(words: Words, notes: Notes, kind: Kind): void {
  const allowed = ALLOWED[kind];
  const keyword = words.keyword((text) => allowed.includes(text), `one of ${allowed.join(', ')}`);
  KEYWORDS[keyword]?.(words, notes);
  words.end();
}

const extend = (notes: Notes, residue: Residue): void => {
  notes.residue = { ...notes.residue, ...residue };
};

const KEYWORDS: Readonly<Record<string, (words: Words, notes: Notes) => void>> = {
  doc: (words, notes) => {
    notes.doc = words.quoted();
  },
  metadata: (words, notes) => notes.metadata.push([words.quoted(), words.quoted()]),
  fields: (words, notes) => extend(notes, { fields: words.base64() }),
  wire: (words, notes) => extend(notes, { wire: words.base64() }),
  present: (words, notes) => extend(notes, { present: words.rest((each) => each.name()) }),
  absent: (words, notes) => extend(notes, { absent: words.rest((each) => each.name()) }),
  order: (words, notes) => extend(notes, { order: words.rest((each) => each.integer()) }),
  range: (words, notes) => {
    notes.ranges ??= [];
    if (words.isNext('none')) words.name();
    else notes.ranges.push(words.range());
  },
  type: (words, notes) => {
    notes.type = words.base64();
  },
  storage: (words, notes) => {
    notes.storage = words.keyword((text) => STORAGES.includes(text), STORAGES.join(' or ')) as Storage;
  },
  bytes: (words, notes) => {
    if (words.isInteger()) notes.items.set(words.integer(), words.base64());
    else notes.bytes = words.base64();
  },
  nodata: (_, notes) => {
    notes.nodata = true;
  },
  name: (words, notes) => {
    notes.name = words.quoted();
  },
  sparse: (words, notes) => notes.sparse.push(words.quoted()),
  opset: (words, notes) => apply(words, entry(notes.opsets, words.integer()), 'opset'),
  attribute: (words, notes) => apply(words, entry(notes.attributes, words.name()), 'attribute'),
  tensor: (words, notes) => {
    const name = words.name();
    const list = notes.tensors.get(name) ?? new Map<number, Notes>();
    notes.tensors.set(name, list);
    apply(words, entry(list, words.isInteger() ? words.integer() : 0), 'tensor');
  },
};

function entry<K>(map: Map<K, Notes>, key: K): Notes {
  const known = map.get(key) ?? emptyNotes();
  map.set(key, known);
  return known;
}

/** The words of one directive, one after another. */
class Words {
  #index = 0;

  constructor(
    readonly lexer: Lexer,
    readonly words: readonly Word[],
    readonly at: number,
    readonly resolve: Resolve | undefined,
  ) {}

  #next(what: string, fits: (word: Word) => boolean): string {
    const found = this.words[this.#index];
    if (!found || !fits(found)) {
      throw this.lexer.error(`${what} in this directive`, found?.at ?? this.at, found ? undefined : 'nothing more');
    }
    this.#index++;
    return found.text;
  }

  isNext(text: string): boolean {
    const found = this.words[this.#index];
    return found?.text === text && !found.quoted;
  }

  isInteger(): boolean {
    const found = this.words[this.#index];
    return found !== undefined && !found.quoted && /^[0-9]+$/.test(found.text);
  }

  keyword(fits: (text: string) => boolean, what: string): string {
    return this.#next(what, (word) => !word.quoted && fits(word.text));
  }

  /** Bare or quoted. */
  name(): string {
    return this.#next('a name', () => true);
  }

  quoted(): string {
    return this.#next('a quoted string', (word) => word.quoted);
  }

  integer(): number {
    return Number(this.#next('an integer below 2^53', (word) => !word.quoted && isSafe(word.text)));
  }

  base64(): Uint8Array {
    return parseBase64(this.#next('base64', (word) => word.quoted && parseBase64(word.text) !== null)) as Uint8Array;
  }

  rest<T>(read: (words: this) => T): T[] {
    const found: T[] = [];
    while (this.#index < this.words.length) found.push(read(this));
    return found;
  }

  range(): RangeNote {
    const number = this.integer();
    const wireType = this.integer();
    if (this.words.length - this.#index < 2) return rangeOfBytes(number, wireType, this.base64());
    const location = this.quoted();
    const offset = this.integer();
    const length = this.integer();
    if (!this.resolve) throw this.lexer.error('no reference to a file: no folder is known for this text', this.at);
    const source = this.resolve(location);
    if (offset + length > source.size) throw this.lexer.error(`a range within ${source.size} bytes`, this.at);
    return { number, wireType, bytes: null, source, offset, length };
  }

  end(): void {
    const extra = this.words[this.#index];
    if (extra) throw this.lexer.error('the end of the line', extra.at);
  }
}

function isSafe(text: string): boolean {
  return /^[0-9]{1,16}$/.test(text) && Number.isSafeInteger(Number(text));
}
