/** From the syntax tree to the graph: names become values, by the rules of the binary reader (proto/decode.ts). */
import {
  type Attribute,
  type AttributeValue,
  Graph,
  LocalFunction,
  Model,
  type Node,
  type OpsetImport,
  type Value,
} from '../core.js';
import { type Diagnostic, errors } from '../diagnostic.js';
import {
  canonicalAttribute,
  canonicalFunction,
  canonicalInfo,
  canonicalNode,
  canonicalOpset,
} from '../proto/canonical.js';
import type { ExtraInfo, OriginalGraph, Section } from '../proto/carried.js';
import type { Framed } from '../proto/frame.js';
import type { MessageName } from '../proto/messages.js';
import { topologicalOrder } from '../proto/order.js';
import { defaultRanges, restoreAttribute } from '../proto/residue/attribute.js';
import { noteInfo, restoreExtraInfo } from '../proto/residue/info.js';
import { restoreCarried, restoreGraph, restoreModel } from '../proto/residue/residue.js';
import type { ByteSource } from '../weight.js';
import type { Lexer } from './lex.js';
import { type Notes, residueIn } from './notes.js';
import { guard } from './parse-node.js';
import type {
  AttributeSyntax,
  FunctionSyntax,
  GraphSyntax,
  InfoSyntax,
  ModelSyntax,
  NameSyntax,
  NodeSyntax,
} from './syntax.js';
import { typeFromWire } from './type-syntax.js';

/** `sources` are the files that the text refers to. Throws OF_TEXT, OF_DUPLICATE_NAME, OF_UNDEFINED_VALUE and OF_CYCLE, with the place in the text. */
export function linkModel(syntax: ModelSyntax, lexer: Lexer, sources: readonly ByteSource[]): Model {
  return new Linker(lexer).model(syntax, sources);
}

class Linker {
  constructor(readonly lexer: Lexer) {}

  model({ header, graph, functions, notes }: ModelSyntax, sources: readonly ByteSource[]): Model {
    const opsets = this.#opsets(header.opsets ?? [], notes);
    const model = new Model(header.irVersion ?? 0, opsets, this.graph(graph, null));
    for (const item of functions) model.functions.push(this.#function(item));
    model.producerName = header.producerName;
    model.producerVersion = header.producerVersion;
    model.domain = header.domain;
    model.modelVersion = header.modelVersion;
    model.docString = header.docString;
    model.metadata = header.metadata ?? [];
    guard(this.lexer, 0, () => {
      restoreModel(model, residueIn(notes), sources);
    });
    return model;
  }

  #opsets(opsets: readonly OpsetImport[], notes: Notes): OpsetImport[] {
    return opsets.map((opset, index) => {
      const own = notes.opsets.get(index);
      if (!own) return opset;
      const restored = () => restoreCarried('OperatorSetIdProto', canonicalOpset(opset), residueIn(own));
      return { ...opset, carried: guard(this.lexer, 0, restored) };
    });
  }

  graph(syntax: GraphSyntax, parent: Graph | null): Graph {
    const graph = new Graph(parent);
    graph.name = syntax.name;
    graph.docString = syntax.notes.doc;
    graph.metadata = syntax.notes.metadata;
    for (const input of syntax.inputs) {
      this.#named(input);
      if (graph.value(input.name)) throw this.#duplicate(input);
      this.#note(graph.addInput(input.name, null), graph, 'input', input);
    }
    for (const initializer of syntax.initializers) {
      this.#named(initializer);
      if (graph.value(initializer.name)?.initializer) throw this.#duplicate(initializer);
      graph.addInitializer(initializer.name, initializer.tensor);
    }
    for (const name of syntax.notes.sparse) {
      const known = graph.value(name);
      if (name === '' || known?.initializer || known?.isSparse) throw this.#duplicate({ name, at: syntax.at });
      graph.addSparse(name);
    }
    const unsorted = this.#nodes(graph, syntax.nodes);
    for (const output of syntax.outputs) {
      this.#note(this.#output(graph, output), graph, 'output', output);
    }
    const extraInfos = this.#valueInfo(graph, syntax.infos);
    guard(this.lexer, syntax.at, () => restoreGraph(graph, residueIn(syntax.notes), extraInfos, unsorted));
    return graph;
  }

  #function({ header, attributeNames, defaults, body, notes }: FunctionSyntax): LocalFunction {
    const { lexer } = this;
    const graph = new Graph(null);
    graph.name = body.name;
    for (const input of body.inputs) {
      this.#named(input);
      if (graph.value(input.name)) throw this.#duplicate(input);
      graph.addInput(input.name, null);
    }
    const unsorted = this.#nodes(graph, body.nodes);
    for (const output of body.outputs) this.#output(graph, output);
    restoreGraph(graph, null, this.#valueInfo(graph, body.infos), unsorted);
    const opsets = this.#opsets(header.opsets ?? [], notes);
    const item = new LocalFunction(
      header.domain ?? '',
      body.name,
      header.overload ?? '',
      graph,
      attributeNames,
      opsets,
    );
    item.docString = header.docString;
    item.metadata = notes.metadata;
    const values = defaults.map((each): [string, Attribute] => {
      if (each.value.kind === 'graph' || each.value.kind === 'graphs' || each.value.kind.startsWith('tensor')) {
        throw lexer.error('a plain value as the default of a function attribute', each.at);
      }
      return [each.name, each.value as Attribute];
    });
    guard(lexer, body.at, () => {
      item.carried = restoreCarried('FunctionProto', canonicalFunction(item), residueIn(notes), defaultRanges(values));
    });
    return item;
  }

  /** Adds the nodes, sorted; says how they stood when that was another order. */
  #nodes(graph: Graph, nodes: readonly NodeSyntax[]): OriginalGraph['unsorted'] {
    const placeOf = (index: number): string => this.lexer.place(nodes[index]?.at ?? 0);
    const order = topologicalOrder(nodes.map(framedNode), placeOf);
    const sorted = order.map((index) => this.#node(graph, nodes[index] as NodeSyntax));
    if (order.every((index, i) => index === i)) return null;
    const file: Node[] = [];
    for (const [i, index] of order.entries()) file[index] = sorted[i] as Node;
    return { file, sorted };
  }

  #node(graph: Graph, syntax: NodeSyntax): Node {
    const { lexer } = this;
    if (syntax.opType === '') throw lexer.error('an operator', syntax.at);
    const inputs = syntax.inputs.map((input) => {
      if (input.name === '') return null;
      return graph.lookup(input.name) ?? this.#undefined(input);
    });
    const seen = new Set<string>();
    for (const output of syntax.outputs) {
      if (output.name !== '' && (graph.value(output.name) || seen.has(output.name))) throw this.#duplicate(output);
      seen.add(output.name);
    }
    const subgraphs: Graph[] = [];
    const attributes = syntax.attributes.map((each) => this.#attribute(graph, each, subgraphs));
    const { opType, domain, name, notes } = syntax;
    const outputs = syntax.outputs.map((output) => output.name);
    const node = graph.addNode({ opType, domain, name, inputs, outputs }, { exact: true });
    for (const [index, attribute] of attributes.entries()) {
      node.attributeMap.set((syntax.attributes[index] as AttributeSyntax).name, attribute);
    }
    for (const subgraph of subgraphs) subgraph.parentNode = node;
    node.overload = syntax.overload;
    node.docString = notes.doc;
    node.metadata = notes.metadata;
    guard(lexer, syntax.at, () => {
      node.carried = restoreCarried('NodeProto', canonicalNode(node), residueIn(notes));
    });
    return node;
  }

  #attribute(graph: Graph, { name, at, value, types, notes }: AttributeSyntax, subgraphs: Graph[]): Attribute {
    const isGraph = value.kind === 'graph' || value.kind === 'graphs';
    const graphs = isGraph ? value.graphs.map((each) => this.graph(each, graph)) : [];
    for (const each of graphs) subgraphs.push(each);
    let made: AttributeValue;
    if (value.kind === 'graph') made = { kind: 'graph', value: graphs[0] as Graph };
    else if (value.kind === 'graphs') made = { kind: 'graphs', value: graphs };
    else made = value;
    const attribute: Attribute = { ...made, docString: notes.doc };
    const residue = residueIn(notes);
    if (!residue && types.length === 0) return attribute;
    const canonical = canonicalAttribute(name, attribute, types);
    return guard(this.lexer, at, () => restoreAttribute(attribute, canonical, residue));
  }

  #output(graph: Graph, output: NameSyntax): Value {
    this.#named(output);
    const value = graph.lookup(output.name) ?? this.#undefined(output);
    graph.addOutput(value);
    return value;
  }

  /** Attaches types to the values they are about; returns the entries that are about nothing here. */
  #valueInfo(graph: Graph, infos: readonly InfoSyntax[]): ExtraInfo[] {
    const extraInfos: ExtraInfo[] = [];
    for (const [index, info] of infos.entries()) {
      const value = graph.value(info.name);
      if (value && !graph.valueInfo.has(value)) {
        graph.valueInfo.add(value);
        this.#note(value, graph, 'info', info);
      } else {
        const residue = residueIn(info.notes);
        extraInfos.push(
          guard(this.lexer, info.at, () => restoreExtraInfo(index, value ?? null, infoMessage(info), residue)),
        );
      }
    }
    return extraInfos;
  }

  #note(value: Value, graph: Graph, section: Section, info: InfoSyntax): void {
    const residue = residueIn(info.notes);
    guard(this.lexer, info.at, () => noteInfo(value, graph, section, infoMessage(info), residue));
  }

  #named({ name, at }: NameSyntax): void {
    if (name === '') throw this.lexer.error('a name that is not empty', at);
  }

  #duplicate({ name, at }: NameSyntax): Diagnostic {
    return errors.duplicateName(this.lexer.place(at), name);
  }

  #undefined({ name, at }: NameSyntax): never {
    throw errors.undefinedValue(this.lexer.place(at), name);
  }
}

function infoMessage({ name, type, notes }: InfoSyntax) {
  const found = notes.type ? typeFromWire(notes.type) : type;
  return canonicalInfo(name, found, { docString: notes.doc, metadata: notes.metadata });
}

/** The reader's order of nodes is made for its messages: these have what it looks at. */
function framed<N extends MessageName>(
  type: N,
  message: Framed<N>['message'],
  children: readonly (readonly [number, readonly Framed[]])[],
): Framed<N> {
  return { type, message, children: new Map(children), ranges: [], shape: null };
}

function framedNode(node: NodeSyntax): Framed<'NodeProto'> {
  const graphs = node.attributes.flatMap(({ value }) => ('graphs' in value ? value.graphs : []));
  const attribute = framed('AttributeProto', {}, [[11, graphs.map(framedGraph)]]);
  const names = (list: readonly NameSyntax[]) => list.map((each) => each.name);
  return framed('NodeProto', { input: names(node.inputs), output: names(node.outputs) }, [[5, [attribute]]]);
}

const framedGraphs = new WeakMap<GraphSyntax, Framed<'GraphProto'>>();

function framedGraph(graph: GraphSyntax): Framed<'GraphProto'> {
  const known = framedGraphs.get(graph);
  if (known) return known;
  const named = ({ name }: NameSyntax) => framed('ValueInfoProto', { name }, []);
  const made = framed('GraphProto', {}, [
    [1, graph.nodes.map(framedNode)],
    [5, graph.initializers.map(({ name }) => framed('TensorProto', { name }, []))],
    [11, graph.inputs.map(named)],
    [12, graph.outputs.map(named)],
  ]);
  framedGraphs.set(graph, made);
  return made;
}
