/**
 * Text to Model: the official ONNX textual syntax (onnx/defs/parser.cc) with the directives of notes.ts, and whatever the
 * official printer writes. The parser makes a syntax tree; link.ts links names, by the rules of the binary reader.
 *
 * Beyond the official grammar: names of attributes, operators, domains and overloads may be quoted; the name of a graph
 * may be left out; so may the header (IR version 10, opset 21); a float16 or bfloat16 constant may be written as a float.
 */
import type { Model, OpsetImport } from '../core.js';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import { canonicalDomain } from '../names.js';
import type { ByteSource } from '../weight.js';
import type { Resolve } from './expression.js';
import { isTypeWord, Lexer } from './lex.js';
import { linkModel } from './link.js';
import { emptyNotes, parseNotes } from './notes.js';
import { type ParseContext, parseAttribute, parseNode, parseStringPairs, parseTensor } from './parse-node.js';
import type {
  AttributeSyntax,
  FunctionSyntax,
  GraphSyntax,
  HeaderSyntax,
  InfoSyntax,
  InitializerSyntax,
  ModelSyntax,
  NodeSyntax,
} from './syntax.js';
import { parseType } from './type-syntax.js';

/** Where a text finds what it refers to. */
export interface ParseOptions {
  /** The source for a location in the text; without it, text that refers to files is refused. */
  readonly resolve?: Resolve;
}

/** As deep as graphs may nest; the binary reader has the same limit. */
const GRAPH_DEPTH = 64;
const DEFAULT_IR_VERSION = 10;
const DEFAULT_OPSET = 21;

/**
 * Reads a model. Throws a Diagnostic, with line and column, for everything that is wrong with the text. A text that Git gave the
 * line ends of Windows is the same model: a carriage return of a string is printed as an escape, and never as it is.
 */
export function parseModel(text: string, options: ParseOptions = {}): Model {
  const lexer = new Lexer(text.replaceAll('\r\n', '\n'));
  const { resolve } = options;
  const sources = new Set<ByteSource>();
  const remember = (location: string): ByteSource => {
    const source = resolved(resolve as Resolve, location);
    sources.add(source);
    return source;
  };
  const syntax = new Parser(lexer, resolve && remember).model();
  return linkModel(syntax, lexer, [...sources]);
}

function resolved(resolve: Resolve, location: string): ByteSource {
  try {
    return resolve(location);
  } catch (error) {
    if (error instanceof Diagnostic) throw error;
    throw errors.readFailed(location, reasonOf(error));
  }
}

class Parser implements ParseContext {
  #depth = 0;

  constructor(
    readonly lexer: Lexer,
    readonly resolve: Resolve | undefined,
  ) {}

  model(): ModelSyntax {
    const { lexer } = this;
    const hasHeader = lexer.next('<');
    const notes = hasHeader ? parseNotes(lexer, lexer.takeDirectives(), 'model', this.resolve) : emptyNotes();
    const header = { irVersion: DEFAULT_IR_VERSION, ...this.#header(MODEL_KEYS) };
    if (!hasHeader) header.opsets = [{ domain: '', version: DEFAULT_OPSET }];
    const graph = this.graph();
    const functions: FunctionSyntax[] = [];
    while (!lexer.atEnd) functions.push(this.#function());
    lexer.expectEnd();
    return { header, graph, functions, notes };
  }

  #header(keys: Readonly<Record<string, (parser: Parser, header: HeaderSyntax) => void>>): HeaderSyntax {
    const { lexer } = this;
    const header: HeaderSyntax = {};
    if (!lexer.matches('<')) return header;
    do {
      const at = lexer.at;
      const key = lexer.identifier('a key');
      const read = Object.hasOwn(keys, key) ? keys[key] : undefined;
      if (!read) throw lexer.error(`one of ${Object.keys(keys).join(', ')}`, at);
      lexer.expect(':');
      read(this, header);
    } while (lexer.matches(','));
    lexer.expect('>');
    return header;
  }

  opsets(): OpsetImport[] {
    const { lexer } = this;
    const opsets: OpsetImport[] = [];
    lexer.expect('[');
    if (lexer.matches(']')) return opsets;
    do {
      const domain = canonicalDomain(lexer.string('the domain of an opset'));
      lexer.expect(':');
      opsets.push({ domain, version: this.natural('the version of an opset') });
    } while (lexer.matches(','));
    lexer.expect(']');
    return opsets;
  }

  natural(what: string): number {
    const at = this.lexer.at;
    const value = this.lexer.safeInteger(what);
    if (value < 0) throw this.lexer.error(`${what}, not negative`, at);
    return value;
  }

  metadata(): [string, string][] {
    const { lexer } = this;
    lexer.expect('[');
    if (lexer.matches(']')) return [];
    const entries = parseStringPairs(lexer);
    lexer.expect(']');
    return entries;
  }

  graph(): GraphSyntax {
    const { lexer } = this;
    if (this.#depth > GRAPH_DEPTH) throw errors.tooDeep(lexer.place(lexer.at), GRAPH_DEPTH);
    this.#depth++;
    const notes = parseNotes(lexer, lexer.takeDirectives(), 'graph', this.resolve);
    const at = lexer.at;
    const name = lexer.next('(') ? '' : lexer.name('the name of a graph');
    const initializers: InitializerSyntax[] = [];
    const inputs = this.#infos('(', ')', initializers);
    this.#arrow();
    const outputs = this.#infos('(', ')', null);
    const infos = lexer.next('<') ? this.#infos('<', '>', initializers, true) : [];
    const nodes = this.#nodes();
    this.#depth--;
    return { at, name: notes.name ?? name, inputs, outputs, initializers, infos, nodes, notes };
  }

  #arrow(): void {
    this.lexer.expect('=');
    this.lexer.expect('>');
  }

  /** Entries `type name`, or `type name = data` where `initializers` take them; those are entries too unless `apart`. */
  #infos(open: string, close: string, initializers: InitializerSyntax[] | null, apart = false): InfoSyntax[] {
    const { lexer } = this;
    const infos: InfoSyntax[] = [];
    lexer.expect(open);
    if (lexer.matches(close)) return infos;
    do {
      const directives = lexer.takeDirectives();
      const at = lexer.at;
      const type = isTypeWord(lexer.peekIdentifier()) ? parseType(lexer) : null;
      const name = lexer.name();
      const hasData = initializers !== null && lexer.matches('=');
      if (hasData) {
        const notes = apart ? parseNotes(lexer, directives, 'tensor', this.resolve) : emptyNotes();
        initializers.push({ at, name, tensor: parseTensor(this, { at, name }, type, notes) });
      }
      if (!hasData || !apart)
        infos.push({ at, name, type, notes: parseNotes(lexer, directives, 'info', this.resolve) });
    } while (lexer.matches(','));
    lexer.expect(close);
    return infos;
  }

  #nodes(): NodeSyntax[] {
    const nodes: NodeSyntax[] = [];
    this.lexer.expect('{');
    while (!this.lexer.next('}')) nodes.push(parseNode(this));
    this.lexer.expect('}');
    return nodes;
  }

  #function(): FunctionSyntax {
    const { lexer } = this;
    const notes = parseNotes(lexer, lexer.takeDirectives(), 'function', this.resolve);
    const header = this.#header(FUNCTION_KEYS);
    const at = lexer.at;
    const name = lexer.name('the name of a function');
    const attributeNames: string[] = [];
    const defaults: AttributeSyntax[] = [];
    if (lexer.matches('<')) {
      do {
        const attribute = { at: lexer.at, name: lexer.name('an attribute') };
        if (!lexer.next(':') && !lexer.next('=')) attributeNames.push(attribute.name);
        else defaults.push(parseAttribute(this, attribute, emptyNotes()));
      } while (lexer.matches(','));
      lexer.expect('>');
    }
    const inputs = this.#infos('(', ')', null);
    this.#arrow();
    const outputs = this.#infos('(', ')', null);
    // Types of inputs and outputs are value_info.
    const typed = [...inputs, ...outputs].filter((info) => info.type !== null);
    const infos = lexer.next('<') ? [...typed, ...this.#infos('<', '>', null)] : typed;
    const body = { at, name, inputs, outputs, initializers: [], infos, nodes: this.#nodes(), notes: emptyNotes() };
    return { header, attributeNames, defaults, body, notes };
  }
}

type Keys = Readonly<Record<string, (parser: Parser, header: HeaderSyntax) => void>>;

const FUNCTION_KEYS: Keys = {
  opset_import: (parser, header) => {
    header.opsets = parser.opsets();
  },
  doc_string: ({ lexer }, header) => {
    header.docString = lexer.string();
  },
  domain: ({ lexer }, header) => {
    header.domain = lexer.string();
  },
  overload: ({ lexer }, header) => {
    header.overload = lexer.string();
  },
};

const { overload: _, ...SHARED_KEYS } = FUNCTION_KEYS;

const MODEL_KEYS: Keys = {
  ir_version: (parser, header) => {
    header.irVersion = parser.natural('an IR version');
  },
  ...SHARED_KEYS,
  producer_name: ({ lexer }, header) => {
    header.producerName = lexer.string();
  },
  producer_version: ({ lexer }, header) => {
    header.producerVersion = lexer.string();
  },
  model_version: ({ lexer }, header) => {
    header.modelVersion = lexer.integer();
  },
  metadata_props: (parser, header) => {
    header.metadata = parser.metadata();
  },
};
