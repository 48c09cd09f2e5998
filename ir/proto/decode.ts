/** ONNX bytes to Model: messages are framed and decoded (frame.ts), then values are made and operands linked by name. */

import { type ReadableSource, readable } from '../bytes.js';
import {
  type Attribute,
  Graph,
  LocalFunction,
  Model,
  type Node,
  type NodeSpec,
  type OpsetImport,
  type Value,
} from '../core.js';
import { errors } from '../diagnostic.js';
import { canonicalDomain } from '../names.js';
import { bitsOf, dataTypeOf } from '../type.js';
import type { ByteSource } from '../weight.js';
import { decodeAttribute } from './attribute.js';
import {
  carry,
  type ExtraInfo,
  type Original,
  type OriginalGraph,
  type OriginalInfo,
  type OriginalModel,
  type OriginalValue,
  originalOf,
  type Section,
} from './carried.js';
import { type Framed, readFramed, readFramedRange, writeFramed } from './frame.js';
import { copyMessage, isPresent, ownString, toBigint, toNumber } from './messages.js';
import { decodeMetadata, decodeType } from './metadata.js';
import { topologicalOrder } from './order.js';
import { decodeTensor, type ExternalResolver } from './tensor.js';
import { WireReader } from './wire.js';

/** Field numbers of ModelProto that fit a one-byte tag. Newer ones follow ir_version in every known writer. */
const MODEL_FIELDS = new Set([1, 2, 3, 4, 5, 6, 7, 8, 14]);

/**
 * Reads a model. Weights above 1 KiB stay in `source` (or in their external files).
 * Throws a Diagnostic for everything that is wrong with the bytes; `label` names them in messages.
 */
export function decodeModel(source: ReadableSource, label: string, resolve: ExternalResolver): Model {
  if (source.size === 0) throw errors.notOnnx(label, 'it is empty');
  const reader = new WireReader(source, label);
  const start = new TextDecoder().decode(reader.copy(0, Math.min(source.size, 32)));
  if (start.startsWith('version https://git-lfs')) {
    throw errors.notOnnx(label, 'it is a Git LFS pointer, the model itself has not been downloaded');
  }
  if (!MODEL_FIELDS.has((reader.copy(0, 1)[0] as number) >> 3)) {
    throw errors.notOnnx(label, 'it does not begin with a field of ModelProto');
  }
  const framed = readFramed(reader, 'ModelProto', 0, source.size);
  const { message, children, ranges, shape } = framed;
  const graphs = (children.get(7) ?? []) as Framed<'GraphProto'>[];
  const hasVersion = isPresent(message, 'irVersion') && message.irVersion;
  if (!hasVersion && graphs.length === 0) throw errors.notOnnx(label, 'it has neither ir_version nor graph');
  if (!hasVersion) throw errors.missingField(label, 'ir_version');
  if (!graphs[0]) throw errors.missingField(label, 'graph');
  if (graphs.length > 1) throw errors.badWire(label, 'more than one graph');
  const irVersion = toNumber(hasVersion);
  if (!(irVersion >= 0)) throw errors.unsafeInteger(`${label}, ir_version`, String(message.irVersion));
  const linker = new Linker(resolve);
  const graph = linker.graph(graphs[0], null, 'the graph');
  const model = new Model(irVersion, decodeOpsets(children.get(8), label), graph);
  for (const child of (children.get(25) ?? []) as Framed<'FunctionProto'>[])
    model.functions.push(linker.function(child));
  model.producerName = ownString(message, 'producerName');
  model.producerVersion = ownString(message, 'producerVersion');
  model.domain = ownString(message, 'domain');
  model.modelVersion =
    isPresent(message, 'modelVersion') && message.modelVersion ? toBigint(message.modelVersion) : undefined;
  model.docString = ownString(message, 'docString');
  model.metadata = decodeMetadata(message);
  const sources = [source, ...linker.externalSources];
  const carried: OriginalModel = { message, ranges, shape, sources };
  model.carried = carry(carried);
  return model;
}

function decodeOpsets(framed: readonly Framed[] | undefined, place: string): OpsetImport[] {
  return ((framed ?? []) as Framed<'OperatorSetIdProto'>[]).map(({ message, ranges, shape }) => {
    const domain = canonicalDomain(message.domain ?? '');
    const version = isPresent(message, 'version') && message.version ? toNumber(message.version) : 0;
    if (!(version >= 0)) throw errors.unsafeInteger(`${place}, opset '${domain}'`, String(message.version));
    const carried: Original<'OperatorSetIdProto'> = { message, ranges, shape };
    return { domain, version, carried: carry(carried) };
  });
}

/** The files a model was read from; empty for one made in memory. */
export function sourcesOf(model: Model): readonly ByteSource[] {
  return originalOf<OriginalModel>(model.carried)?.sources ?? [];
}

class Linker {
  readonly externalSources = new Set<ByteSource>();
  readonly resolve: ExternalResolver;
  constructor(resolve: ExternalResolver) {
    this.resolve = (...request) => {
      const found = resolve(...request);
      this.externalSources.add(found.source);
      return found;
    };
  }

  graph(framed: Framed<'GraphProto'>, parent: Graph | null, place: string): Graph {
    const { message, children, ranges, shape } = framed;
    const graph = new Graph(parent);
    graph.name = message.name ?? '';
    graph.docString = ownString(message, 'docString');
    graph.metadata = decodeMetadata(message);
    const where = graph.name ? `${place} '${graph.name}'` : place;
    const infos = (number: number) => (children.get(number) ?? []) as Framed<'ValueInfoProto'>[];
    for (const info of infos(11)) {
      const name = this.#name(info.message.name, where, 'input name');
      if (graph.value(name)) throw errors.duplicateName(where, name);
      note(graph.addInput(name, decodeType(info.message.type)), graph, 'input', info);
    }
    for (const child of (children.get(5) ?? []) as Framed<'TensorProto'>[]) {
      const name = this.#name(child.message.name, where, 'initializer name');
      if (graph.value(name)?.initializer) throw errors.duplicateName(where, name);
      graph.addInitializer(name, decodeTensor(child, this.resolve));
    }
    for (const range of ranges) {
      const sparse = readFramedRange(new WireReader(readable(range.source), where), 'SparseTensorProto', range);
      const values = sparse.children.get(1)?.[0] as Framed<'TensorProto'> | undefined;
      const name = this.#name(values?.message.name, where, 'sparse initializer name');
      const known = graph.value(name);
      if (known?.initializer || known?.isSparse) throw errors.duplicateName(where, name);
      const elements = (sparse.message.dims ?? []).reduce((count, dim) => count * Math.abs(Number(toBigint(dim))), 1);
      graph.addSparse(name, (elements * bitsOf(dataTypeOf(values?.message.dataType ?? 0))) / 8);
    }
    const unsorted = this.#nodes(graph, (children.get(1) ?? []) as Framed<'NodeProto'>[], where);
    for (const info of infos(12)) {
      const name = this.#name(info.message.name, where, 'output name');
      this.#output(graph, name, where, info);
    }
    const extraInfos = this.#valueInfo(graph, infos(13));
    const carried: OriginalGraph = { message, ranges, shape, extraInfos, unsorted };
    graph.carried = carry(carried);
    return graph;
  }

  function(framed: Framed<'FunctionProto'>): LocalFunction {
    const { message, children, ranges, shape } = framed;
    const name = message.name ?? '';
    const where = `function '${name}'`;
    const body = new Graph(null);
    body.name = name;
    for (const input of message.input ?? []) {
      if (body.value(this.#name(input, where, 'input name'))) throw errors.duplicateName(where, input);
      body.addInput(input, null);
    }
    const unsorted = this.#nodes(body, (children.get(7) ?? []) as Framed<'NodeProto'>[], where);
    for (const output of message.output ?? []) this.#output(body, output, where, null);
    const extraInfos = this.#valueInfo(body, (children.get(12) ?? []) as Framed<'ValueInfoProto'>[]);
    const carriedBody: OriginalGraph = {
      message: copyMessage('GraphProto', undefined),
      ranges: [],
      shape: null,
      extraInfos,
      unsorted,
    };
    body.carried = carry(carriedBody);
    const opsets = decodeOpsets(children.get(9), where);
    const result = new LocalFunction(
      message.domain ?? '',
      name,
      message.overload ?? '',
      body,
      message.attribute ?? [],
      opsets,
    );
    result.docString = ownString(message, 'docString');
    result.metadata = decodeMetadata(message);
    const carried: Original<'FunctionProto'> = { message, ranges, shape };
    result.carried = carry(carried);
    return result;
  }

  #name(name: string | undefined, place: string, field: string): string {
    if (!name) throw errors.missingField(place, field);
    return name;
  }

  #nodes(graph: Graph, framed: readonly Framed<'NodeProto'>[], where: string): OriginalGraph['unsorted'] {
    const placeOf = (index: number): string => {
      const { name, opType } = framed[index]?.message ?? {};
      return `${where}, node ${name ? `'${name}'` : `#${index} (${opType ?? ''})`}`;
    };
    const order = topologicalOrder(framed, placeOf);
    const sorted = order.map((index) => this.#node(graph, framed[index] as Framed<'NodeProto'>, placeOf(index)));
    if (order.every((index, i) => index === i)) return null;
    const file: Node[] = [];
    for (const [i, index] of order.entries()) file[index] = sorted[i] as Node;
    return { file, sorted };
  }

  #node(graph: Graph, framed: Framed<'NodeProto'>, place: string): Node {
    const { message, ranges, shape } = framed;
    if (!message.opType) throw errors.missingField(place, 'op_type');
    const inputs = (message.input ?? []).map((name) => {
      if (name === '') return null;
      const value = graph.lookup(name);
      if (!value) throw errors.undefinedValue(place, name);
      return value;
    });
    const outputs = message.output ?? [];
    for (const [index, name] of outputs.entries()) {
      if (name !== '' && (graph.value(name) || outputs.indexOf(name) !== index))
        throw errors.duplicateName(place, name);
    }
    const attributes = new Map<string, Attribute>();
    const subgraphs: Graph[] = [];
    for (const child of (framed.children.get(5) ?? []) as Framed<'AttributeProto'>[]) {
      const name = child.message.name ?? '';
      if (attributes.has(name)) throw errors.badWire(place, `attribute '${name}' occurs twice`);
      const attribute = decodeAttribute(child, {
        place,
        tensor: (tensor) => decodeTensor(tensor, this.resolve),
        graph: (inner) => {
          const subgraph = this.graph(inner, graph, `${place}, graph`);
          subgraphs.push(subgraph);
          return subgraph;
        },
      });
      attributes.set(name, attribute);
    }
    const spec: NodeSpec = {
      opType: message.opType,
      domain: message.domain ?? '',
      name: message.name ?? '',
      inputs,
      outputs,
    };
    const node = graph.addNode(spec, { exact: true });
    for (const [name, attribute] of attributes) node.attributeMap.set(name, attribute);
    for (const subgraph of subgraphs) subgraph.parentNode = node;
    node.docString = ownString(message, 'docString');
    node.overload = message.overload ?? '';
    node.metadata = decodeMetadata(message);
    const carried: Original<'NodeProto'> = { message, ranges, shape };
    node.carried = carry(carried);
    return node;
  }

  #output(graph: Graph, name: string, where: string, info: Framed<'ValueInfoProto'> | null): void {
    const value = graph.lookup(name);
    if (!value) throw errors.undefinedValue(`${where}, output list`, name);
    graph.addOutput(value);
    if (info) note(value, graph, 'output', info);
  }

  /** Attaches value_info to the values it is about; returns the entries that are about nothing here. */
  #valueInfo(graph: Graph, infos: readonly Framed<'ValueInfoProto'>[]): ExtraInfo[] {
    const extraInfos: ExtraInfo[] = [];
    for (const [index, info] of infos.entries()) {
      const value = graph.value(info.message.name ?? '');
      if (value && !graph.valueInfo.has(value)) {
        graph.valueInfo.add(value);
        note(value, graph, 'info', info);
      } else
        extraInfos.push({
          index,
          repeats: value ?? null,
          rope: writeFramed('ValueInfoProto', info.message, [], info.shape),
        });
    }
    return extraInfos;
  }
}

/** Remembers one ValueInfoProto of a value; the first says the value's type, doc string and metadata. */
function note(value: Value, graph: Graph, section: Section, framed: Framed<'ValueInfoProto'>): void {
  const { message, ranges, shape } = framed;
  const info: OriginalInfo = { message, ranges, shape, graph, section };
  const old = originalOf<OriginalValue>(value.carried);
  if (old) old.infos.push(info);
  else {
    const carried: OriginalValue = { infos: [info] };
    value.carried = carry(carried);
    value.docString = ownString(message, 'docString');
    value.metadata = decodeMetadata(message);
  }
  if (!value.type) value.setTypeInternal(decodeType(message.type));
}
