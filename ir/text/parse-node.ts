/** Tensors, attributes and nodes from text. */
import { type Storage, Tensor } from '../core.js';
import { ATTRIBUTE_TYPES, canonicalTensor, TYPE_PROTO, TYPE_PROTOS } from '../proto/canonical.js';
import { restoreTensor } from '../proto/residue/tensor.js';
import { bitsOf, type DataType, elementCount, MAX_CODE, type ValueType } from '../type.js';
import { inlineWeight, type Weight } from '../weight.js';
import { MAX_ELEMENTS, parseEntries, type Resolve } from './expression.js';
import { isTypeWord, type Lexer, type Literal } from './lex.js';
import { parseConstants, parseLiteral, parseNumber } from './literal.js';
import { emptyNotes, type Notes, parseNotes, residueIn } from './notes.js';
import type { AttributeSyntax, GraphSyntax, NameSyntax, NodeSyntax, ValueSyntax } from './syntax.js';
import { parseType } from './type-syntax.js';

/** What parsing needs everywhere. */
export interface ParseContext {
  readonly lexer: Lexer;
  readonly resolve: Resolve | undefined;
  /** Reads a graph in an attribute. */
  graph(): GraphSyntax;
}

/** Entries that say where the data are; all others are carried. */
const DATA_KEYS = new Set(['location', 'offset', 'length', 'storage', 'expr']);
const STORAGES: readonly string[] = ['raw', 'typed', 'external'] satisfies Storage[];

const encoder = new TextEncoder();

/** Reads `{...}` or `["location": ...]` behind the type of a tensor. Throws OF_TEXT, OF_TENSOR_SIZE, OF_EXTERNAL_*. */
export function parseTensor(context: ParseContext, name: NameSyntax, type: ValueType | null, notes: Notes): Tensor {
  const { lexer } = context;
  const [dtype, dims] = concreteType(lexer, name.at, type);
  const at = lexer.at;
  let tensor: Tensor;
  let extras: [string, string][] = [];
  if (lexer.next('[')) {
    const entries = parseEntryList(lexer);
    const map = new Map(entries);
    const storage = map.get('storage') ?? 'external';
    if (!STORAGES.includes(storage)) throw lexer.error(STORAGES.join(', '), at, `"storage": "${storage}"`);
    const weight = parseEntries(map, name.name, dtype, dims, context.resolve, () => lexer.place(at));
    tensor = new Tensor(name.name, dtype, dims, weight, storage as Storage);
    extras = entries.filter(([key]) => !DATA_KEYS.has(key));
  } else if (dtype === 'string') {
    tensor = new Tensor(name.name, dtype, dims, null, notes.storage ?? 'typed', parseStrings(lexer, dims, notes));
  } else {
    const weight = parseWeight(lexer, dtype, dims, notes);
    tensor = new Tensor(name.name, dtype, dims, weight, notes.storage ?? 'raw');
  }
  if (notes.doc !== undefined) tensor.docString = notes.doc;
  tensor.metadata = notes.metadata;
  guard(lexer, at, () => restoreTensor(tensor, canonicalTensor(tensor), residueIn(notes), extras));
  return tensor;
}

/** Turns whatever protobufjs makes of bad bytes in a directive into a Diagnostic. */
export function guard<T>(lexer: Lexer, at: number, run: () => T): T {
  try {
    return run();
  } catch {
    throw lexer.error('directives that fit what follows', at);
  }
}

function concreteType(lexer: Lexer, at: number, type: ValueType | null): [DataType, number[]] {
  const fail = () => lexer.error('a tensor type with a size for every dimension', at);
  if (type?.kind !== 'tensor' || !type.shape) throw fail();
  const dims = type.shape.map((dim) => {
    if (typeof dim !== 'number' || dim < 0) throw fail();
    return dim;
  });
  if (elementCount(dims) > MAX_ELEMENTS) throw lexer.error('a tensor of less than 2^49 elements', at);
  return [type.dtype, dims];
}

function parseWeight(lexer: Lexer, dtype: DataType, dims: number[], notes: Notes): Weight | null {
  if (!notes.bytes && !notes.nodata) {
    const bytes = parseLiteral(lexer, dtype, dims);
    return bitsOf(dtype) > 0 ? inlineWeight(bytes, dtype, dims) : null;
  }
  parseConstants(lexer);
  return notes.bytes ? inlineWeight(notes.bytes, dtype, dims) : null;
}

function parseStrings(lexer: Lexer, dims: number[], notes: Notes): Uint8Array[] | null {
  const strings: Uint8Array[] = [];
  const at = lexer.at;
  lexer.expect('{');
  if (!lexer.matches('}')) {
    do {
      const bytes = encoder.encode(lexer.string());
      strings.push(notes.items.get(strings.length) ?? bytes);
    } while (lexer.matches(','));
    lexer.expect('}');
  }
  if (notes.nodata) return null;
  const expected = elementCount(dims);
  if (strings.length !== expected) throw lexer.error(`${expected} strings`, at, `${strings.length}`);
  return strings;
}

function parseEntryList(lexer: Lexer): [string, string][] {
  lexer.expect('[');
  const entries = parseStringPairs(lexer);
  lexer.expect(']');
  return entries;
}

/** `"key": "value", ...`, at least one. */
export function parseStringPairs(lexer: Lexer): [string, string][] {
  const entries: [string, string][] = [];
  do {
    const key = lexer.string();
    lexer.expect(':');
    entries.push([key, lexer.string()]);
  } while (lexer.matches(','));
  return entries;
}

/** Names separated by commas; nothing before a comma is an absent one. */
export function parseNames(lexer: Lexer): NameSyntax[] {
  const names: NameSyntax[] = [];
  do {
    const at = lexer.at;
    if (lexer.next('"') || lexer.peekIdentifier() !== '') names.push({ at, name: lexer.name() });
    else if (lexer.next(',')) names.push({ at, name: '' });
    else break;
  } while (lexer.matches(','));
  return names;
}

/** Reads a node. */
export function parseNode(context: ParseContext): NodeSyntax {
  const { lexer, resolve } = context;
  const notes = parseNotes(lexer, lexer.takeDirectives(), 'node', resolve);
  const at = lexer.at;
  let name = '';
  if (lexer.matches('[')) {
    if (!lexer.next(']')) name = lexer.name();
    lexer.expect(']');
  }
  const outputs = parseNames(lexer);
  lexer.expect('=');
  const path = [lexer.name('an operator')];
  while (lexer.matches('.')) path.push(lexer.name('an operator'));
  const opType = path.pop() as string;
  const overload = lexer.matches(':') ? lexer.name('an overload') : '';
  let attributes = parseAttributes(context, notes);
  lexer.expect('(');
  const inputs = parseNames(lexer);
  lexer.expect(')');
  if (attributes.length === 0) attributes = parseAttributes(context, notes);
  const seen = new Set<string>();
  for (const attribute of attributes) {
    if (seen.has(attribute.name)) throw lexer.error('another name: this attribute is there already', attribute.at);
    seen.add(attribute.name);
  }
  for (const name of [...notes.attributes.keys(), ...notes.tensors.keys()]) {
    if (!seen.has(name)) throw lexer.error(`an attribute '${name}', which a directive is about`, at);
  }
  return { at, name, domain: path.join('.'), opType, overload, inputs, outputs, attributes, notes };
}

function parseAttributes(context: ParseContext, notes: Notes): AttributeSyntax[] {
  const { lexer } = context;
  const attributes: AttributeSyntax[] = [];
  if (!lexer.matches('<')) return attributes;
  do {
    const at = lexer.at;
    attributes.push(parseAttribute(context, { at, name: lexer.name('an attribute') }, notes));
  } while (lexer.matches(','));
  lexer.expect('>');
  return attributes;
}

/** Reads `: type = value` behind the name of an attribute. `notes` are those of the node. */
export function parseAttribute(context: ParseContext, { name, at }: NameSyntax, notes: Notes): AttributeSyntax {
  const { lexer } = context;
  const code = lexer.matches(':') ? parseAttributeType(lexer) : null;
  lexer.expect('=');
  const own = notes.attributes.get(name) ?? emptyNotes();
  const tensors = notes.tensors.get(name);
  const reader = new AttributeReader(context, own, (index) => tensors?.get(index) ?? emptyNotes());
  const value = reader.value(code);
  return { at, name, value, types: reader.types, notes: own };
}

function parseAttributeType(lexer: Lexer): number {
  const at = lexer.at;
  const word = lexer.identifier('the type of the attribute');
  const code = (ATTRIBUTE_TYPES as readonly string[]).indexOf(word);
  if (code >= 0) return code;
  const newer = Number(/^type([0-9]+)$/.exec(word)?.[1] ?? Number.NaN);
  if (!(newer <= MAX_CODE)) throw lexer.error('the type of an attribute', at);
  return newer;
}

const LISTS = ['floats', 'ints', 'strings', 'tensors', 'graphs', 'type_protos'];
type Single = 'float' | 'int' | 'string' | 'tensor' | 'graph' | 'type_proto';
type Item =
  | { readonly kind: 'number'; readonly literal: Literal }
  | { readonly kind: 'string'; readonly value: Uint8Array }
  | { readonly kind: 'tensor'; readonly value: Tensor }
  | { readonly kind: 'graph'; readonly value: GraphSyntax }
  | { readonly kind: 'type_proto'; readonly value: ValueType };

class AttributeReader {
  readonly types: ValueType[] = [];
  readonly #lexer: Lexer;

  constructor(
    readonly context: ParseContext,
    readonly notes: Notes,
    readonly tensorNotes: (index: number) => Notes,
  ) {
    this.#lexer = context.lexer;
  }

  /** `code` is the type that was written, null when none was. */
  value(code: number | null): ValueSyntax {
    const lexer = this.#lexer;
    if (lexer.matches('@')) return { kind: 'ref', value: lexer.name(), type: code ?? 0 };
    if (code !== null && lexer.matches('{')) {
      lexer.expect('}');
      return { kind: 'opaque', type: code };
    }
    const at = lexer.at;
    const word = code === null ? null : (ATTRIBUTE_TYPES[code] ?? '');
    if (!lexer.matches('[')) return this.#only(this.#item(word as Single | null, 0), word, at);
    const single = word?.endsWith('s') ? (word.slice(0, -1) as Single) : null;
    if (word !== null && !LISTS.includes(word)) throw lexer.error(`one value of type ${word}`, at);
    const items: Item[] = [];
    if (!lexer.next(']'))
      do items.push(this.#item(single, items.length));
      while (lexer.matches(','));
    lexer.expect(']');
    return this.#list(items, single, at);
  }

  #item(expected: Single | null, index: number): Item {
    const lexer = this.#lexer;
    const at = lexer.at;
    if (expected === 'graph') return { kind: 'graph', value: this.context.graph() };
    if (lexer.next('"')) {
      const value = encoder.encode(lexer.string());
      return { kind: 'string', value: this.notes.items.get(index) ?? value };
    }
    const literal = lexer.number();
    if (literal) return { kind: 'number', literal };
    const word = lexer.peekIdentifier();
    if (word === '') throw lexer.error('a value');
    if (!isTypeWord(word)) return { kind: 'graph', value: this.context.graph() };
    const type = parseType(lexer);
    const isNamed = lexer.next('"') || lexer.peekIdentifier() !== '';
    if (!isNamed && !lexer.next('{') && !lexer.next('=')) return { kind: 'type_proto', value: type };
    const notes = this.tensorNotes(index);
    const written = isNamed ? lexer.name() : '';
    lexer.matches('=');
    return { kind: 'tensor', value: parseTensor(this.context, { at, name: notes.name ?? written }, type, notes) };
  }

  #only(item: Item, word: string | null, at: number): ValueSyntax {
    const found = item.kind === 'number' ? (word === 'float' ? 'float' : item.literal.kind) : item.kind;
    if (word !== null && found !== word) throw this.#lexer.error(`a value of type ${word}`, at);
    switch (item.kind) {
      case 'number':
        return found === 'float'
          ? { kind: 'float', value: parseNumber(this.#lexer, item.literal) }
          : { kind: 'int', value: this.#lexer.toInteger(item.literal) };
      case 'graph':
        return { kind: 'graph', graphs: [item.value] };
      case 'type_proto':
        this.types.push(item.value);
        return { kind: 'opaque', type: TYPE_PROTO };
      case 'string':
        return { kind: 'string', value: this.notes.bytes ?? item.value };
      case 'tensor':
        return { kind: 'tensor', value: item.value };
    }
  }

  #list(items: readonly Item[], single: Single | null, at: number): ValueSyntax {
    const lexer = this.#lexer;
    const first = items[0];
    if (!first && !single) throw lexer.error('a type for this empty list', at);
    const hasFloat = items.some((item) => item.kind === 'number' && item.literal.kind === 'float');
    const kind = single ?? (first?.kind === 'number' ? (hasFloat ? 'float' : 'int') : first?.kind);
    const pick = <K extends Item['kind']>(wanted: K): Extract<Item, { kind: K }>[] =>
      items.map((item) => {
        if (item.kind !== wanted) throw lexer.error(`only values of type ${kind} in this list`, at);
        return item as Extract<Item, { kind: K }>;
      });
    switch (kind) {
      case 'float':
        return { kind: 'floats', value: pick('number').map(({ literal }) => parseNumber(lexer, literal)) };
      case 'int':
        return {
          kind: 'ints',
          value: pick('number').map(({ literal }) => {
            if (literal.kind !== 'int') throw lexer.error('an integer', literal.at);
            return lexer.toInteger(literal);
          }),
        };
      case 'string':
        return { kind: 'strings', value: pick('string').map(({ value }) => value) };
      case 'tensor':
        return { kind: 'tensors', value: pick('tensor').map(({ value }) => value) };
      case 'graph':
        return { kind: 'graphs', graphs: pick('graph').map(({ value }) => value) };
      default:
        for (const { value } of pick('type_proto')) this.types.push(value);
        return { kind: 'opaque', type: TYPE_PROTOS };
    }
  }
}
