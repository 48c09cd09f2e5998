/**
 * Model to text: the official ONNX textual syntax, one node, initializer or value_info a line, in file order, with
 * directives (notes.ts) for what it cannot say. `parseModel(printModel(m))` is `m`.
 */
import { Graph, type LocalFunction, type Model, type OpsetImport, type Tensor, type Value } from '../core.js';
import {
  canonicalFunction,
  canonicalGraph,
  canonicalInfo,
  canonicalModel,
  canonicalOpset,
} from '../proto/canonical.js';
import { nodesInFileOrder } from '../proto/encode.js';
import { ownString } from '../proto/messages.js';
import { decodeMetadata, decodeType } from '../proto/metadata.js';
import { defaultRanges, functionDefaults } from '../proto/residue/attribute.js';
import { extraInfosOf, InfoFinder, type InfoNote, infoResidue } from '../proto/residue/info.js';
import { residueOf } from '../proto/residue/residue.js';
import { visible } from '../visible.js';
import { attributeTensors, nestedGraphs } from '../walk.js';
import { type ByteSource, leaves } from '../weight.js';
import type { Digest } from '../weight-types.js';
import type { Locate } from './expression.js';
import { isIdentifier, isTypeWord, quote, quoteName } from './lex.js';
import { base64, noteTexts, word } from './notes.js';
import { attributeText, nodeLines, type PrintContext, type Printed, tensorData } from './print-node.js';
import { tensorText, typeText, typeWire } from './type-syntax.js';

/** How a model is printed. */
export interface PrintOptions {
  /** `elide` leaves out inline weights above 1 KiB; such text is for reading only. Default `full`. */
  readonly weights?: 'full' | 'elide';
  /** False leaves out the directives, all that the official syntax cannot say; for reading only. Default true. */
  readonly directives?: boolean;
  /**
   * Says what the model holds and not how the file holds it: tensors above 64 bytes appear as their type, shape and hash,
   * smaller ones in full; documentation of graphs, nodes, values and tensors is left out. Equal text means that the
   * models compute the same, wherever their weights lie. For comparing only.
   */
  readonly digest?: Digest;
  /** The location of a source in text. Default: its path from the folder that holds all sources of the model. */
  readonly location?: (source: ByteSource) => string;
}

const LINE_WIDTH = 120;

/** The text of a model, ending in a newline. */
export function printModel(model: Model, options: PrintOptions = {}): string {
  return new Printer(options, options.location ?? locations(model)).model(model);
}

/** The text of one graph, as it stands in a model, ending in a newline. */
export function printGraph(graph: Graph, options: PrintOptions = {}): string {
  const printer = new Printer(options, options.location ?? locations(graph));
  const { text, notes } = printer.graph(graph, '', false);
  return `${printer.noteLines(notes, '')}${text}\n`;
}

/** Names sources by their path below the deepest folder that holds them all. */
function locations(thing: Model | Graph): Locate {
  const paths = new Map<ByteSource, string>();
  const roots = thing instanceof Graph ? [thing] : [thing.graph, ...thing.functions.map((item) => item.body)];
  for (const tensor of roots.flatMap((root) => [...tensorsOf(root)])) {
    if (!tensor.weight) continue;
    for (const leaf of leaves(tensor.weight)) if (leaf.op === 'source') paths.set(leaf.source, pathOf(leaf.source));
  }
  const folders = [...paths.values()].map((path) => path.split('/').slice(0, -1));
  let depth = 0;
  const first = folders[0] ?? [];
  while (depth < first.length && folders.every((folder) => folder[depth] === first[depth])) depth++;
  return (source) =>
    pathOf(source)
      .split('/')
      .slice(paths.has(source) ? depth : -1)
      .join('/');
}

function* tensorsOf(root: Graph): Generator<Tensor> {
  for (const graph of nestedGraphs(root)) {
    for (const { initializer } of graph.initializers) if (initializer) yield initializer;
    for (const node of graph.nodes()) yield* attributeTensors(node);
  }
}

/** Sources on disk know their path; others are named by what identifies them. */
function pathOf(source: ByteSource): string {
  const path = 'path' in source && typeof source.path === 'string' ? source.path : source.id;
  return path.replaceAll('\\', '/');
}

class Printer implements PrintContext {
  readonly elide: boolean;
  readonly digest: Digest | null;
  readonly #isBare: boolean;

  constructor(
    options: PrintOptions,
    readonly locate: Locate,
  ) {
    this.elide = options.weights === 'elide';
    this.digest = options.digest ?? null;
    this.#isBare = options.directives === false;
  }

  noteLines(notes: readonly string[], indent: string): string {
    return this.#isBare ? '' : notes.map((note) => `${indent}#@ ${note}\n`).join('');
  }

  model(model: Model): string {
    const notes = noteTexts({}, residueOf('ModelProto', model, canonicalModel(model)), this);
    const header = [`ir_version: ${model.irVersion}`, `opset_import: ${this.#opsets(model.opsets, notes)}`];
    // On one line each, unlike the strings of nodes: nothing in them may look like a line of the header.
    const line = (text: string): string => visible(quote(text));
    if (model.producerName !== undefined) header.push(`producer_name: ${line(model.producerName)}`);
    if (model.producerVersion !== undefined) header.push(`producer_version: ${line(model.producerVersion)}`);
    if (model.domain !== undefined) header.push(`domain: ${line(model.domain)}`);
    if (model.modelVersion !== undefined) header.push(`model_version: ${model.modelVersion}`);
    if (model.docString !== undefined) header.push(`doc_string: ${line(model.docString)}`);
    if (model.metadata.length > 0) {
      const entries = model.metadata.map(([key, value]) => `${line(key)}: ${line(value)}`);
      header.push(`metadata_props: [${entries.join(', ')}]`);
    }
    const graph = this.graph(model.graph, '', false);
    const parts = [
      `${this.noteLines(notes, '')}${angled(header, '')}\n${this.noteLines(graph.notes, '')}${graph.text}\n`,
    ];
    for (const item of model.functions) parts.push(this.#function(item));
    return parts.join('\n');
  }

  #opsets(opsets: readonly OpsetImport[], notes: string[]): string {
    const texts = opsets.map((opset, index) => {
      const residue = residueOf('OperatorSetIdProto', opset, canonicalOpset(opset));
      for (const note of noteTexts({}, residue, this)) notes.push(`opset ${index} ${note}`);
      return `${quote(opset.domain)} : ${opset.version}`;
    });
    return `[${texts.join(', ')}]`;
  }

  #function(item: LocalFunction): string {
    const defaults = [...functionDefaults(item)];
    const texts = defaults.map(([name, attribute]) => attributeText(name, attribute, '', this));
    // A default that needs directives stays carried, and with it the others.
    const isPlain = texts.every((each) => each.notes.length === 0);
    const attributes = [
      ...item.attributeNames.map((name) => (isIdentifier(name) ? name : quote(name))),
      ...(isPlain ? texts.map((each) => each.text) : []),
    ];
    const ranges = isPlain ? defaultRanges(defaults) : [];
    const residue = residueOf('FunctionProto', item, canonicalFunction(item), ranges);
    const notes = noteTexts({ metadata: item.metadata }, residue, this);
    const header = [`domain: ${quote(item.domain)}`];
    if (item.overload !== '') header.push(`overload: ${quote(item.overload)}`);
    header.push(`opset_import: ${this.#opsets(item.opsets, notes)}`);
    if (item.docString !== undefined) header.push(`doc_string: ${quote(item.docString)}`);
    const list = (values: readonly Value[]) => values.map((value) => ({ text: quoteName(value.name), notes: [] }));
    const body = item.body;
    const text = this.#body(
      `${quoteName(item.name)} ${attributes.length > 0 ? `<${attributes.join(', ')}> ` : ''}`,
      list(body.inputs),
      list(body.outputs),
      body,
      '',
    );
    return `${this.noteLines(notes, '')}${angled(header, '')}\n${text}\n`;
  }

  graph(graph: Graph, indent: string, isNested = true): Printed {
    const notes = noteTexts(graph, residueOf('GraphProto', graph, canonicalGraph(graph)), this);
    for (const value of graph.values) if (value.isSparse) notes.push(`sparse ${word(value.name)}`);
    let name = quoteName(graph.name);
    if (isNested && !isSubgraphName(graph.name)) {
      // The official parser takes only identifiers here.
      notes.push(`name ${word(graph.name)}`);
      name = 'subgraph';
    }
    const infos = new InfoFinder(graph);
    const list = (values: readonly Value[], section: 'input' | 'output') =>
      values.map((value) => this.#info(value, infos.find(value, section)));
    const inputs = list(graph.inputs, 'input');
    const outputs = list(graph.outputs, 'output');
    return { text: this.#body(`${name} `, inputs, outputs, graph, indent, infos), notes };
  }

  /** Everything of a graph or function from its inputs on. */
  #body(
    head: string,
    inputs: readonly Printed[],
    outputs: readonly Printed[],
    graph: Graph,
    indent: string,
    infos = new InfoFinder(graph),
  ): string {
    const inner = `${indent}  `;
    const initializers: Printed[] = [];
    for (const { initializer, name } of graph.initializers) {
      if (!initializer) continue;
      const { text, notes } = tensorData(initializer, this);
      initializers.push({
        text: `${tensorText(initializer.dtype, initializer.dims)} ${quoteName(name)} = ${text}`,
        notes,
      });
    }
    const entries = [...initializers, ...this.#valueInfo(graph, infos)];
    const parts = [`${head}${this.#parenthesised(inputs, indent)} => ${this.#parenthesised(outputs, indent)} `];
    if (entries.length > 0) parts.push(`<\n${this.#listLines(entries, inner)}\n${indent}> `);
    parts.push(graph.nodeCount > 0 ? '{\n' : '{');
    for (const node of nodesInFileOrder(graph)) parts.push(`${nodeLines(node, inner, this)}\n`);
    parts.push(graph.nodeCount > 0 ? `${indent}}` : '}');
    return parts.join('');
  }

  /** The entries of value_info in file order, those for names that nobody defines in their places. */
  #valueInfo(graph: Graph, infos: InfoFinder): Printed[] {
    const extras = extraInfosOf(graph).values();
    let extra = extras.next().value;
    const entries: Printed[] = [];
    const addExtras = (isDue: (index: number) => boolean): void => {
      for (; extra && isDue(extra.index); extra = extras.next().value) {
        entries.push(this.#infoText(extra.info.message.name ?? '', extra.info));
      }
    };
    for (const value of graph.valueInfo) {
      addExtras((index) => index <= entries.length);
      entries.push(this.#info(value, infos.find(value, 'info')));
    }
    addExtras(() => true);
    return entries;
  }

  /** An entry of inputs, outputs or value_info: as it was read, or as the writer would make it. */
  #info(value: Value, note: InfoNote | null): Printed {
    if (note) return this.#infoText(value.name, note, note.isFirst ? value : undefined);
    return this.#infoText(value.name, {
      message: canonicalInfo(value.name, value.type, value),
      shape: null,
      isFirst: true,
    });
  }

  /** `owner` has the documentation where the message may be stale. */
  #infoText(name: string, info: InfoNote, owner?: Value): Printed {
    const type = decodeType(info.message.type);
    const docs = owner ?? { docString: ownString(info.message, 'docString'), metadata: decodeMetadata(info.message) };
    const notes = noteTexts(docs, infoResidue(info, canonicalInfo(name, type, docs)), this);
    const text = type && typeText(type);
    if (type && !text) notes.unshift(`type ${base64(typeWire(type))}`);
    return { text: text ? `${text} ${quoteName(name)}` : quoteName(name), notes };
  }

  /** Entries in parentheses: on one line when they fit and nothing needs a directive. */
  #parenthesised(entries: readonly Printed[], indent: string): string {
    const line = `(${entries.map((entry) => entry.text).join(', ')})`;
    if (line.length <= LINE_WIDTH && entries.every((entry) => this.noteLines(entry.notes, '') === '')) return line;
    return `(\n${this.#listLines(entries, `${indent}  `)}\n${indent})`;
  }

  #listLines(entries: readonly Printed[], indent: string): string {
    return entries.map(({ text, notes }) => `${this.noteLines(notes, indent)}${indent}${text}`).join(',\n');
  }
}

/** True when the official parser reads the name of a graph in an attribute as one. */
function isSubgraphName(name: string): boolean {
  return isIdentifier(name) && !isTypeWord(name) && !/^(inf|infinity|nan)$/i.test(name);
}

/** Entries in angle brackets, one a line. */
function angled(entries: readonly string[], indent: string): string {
  return `<\n${entries.map((entry) => `${indent}  ${entry}`).join(',\n')}\n${indent}>`;
}
