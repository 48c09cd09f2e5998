/** Model to ONNX bytes: the messages as they were read, with everything the core says about them. */
import type { Graph, LocalFunction, Model, Node, OpsetImport, Tensor, Value } from '../core.js';
import { encodeAttribute } from './attribute.js';
import {
  type Original,
  type OriginalGraph,
  type OriginalInfo,
  type OriginalValue,
  originalOf,
  type Section,
} from './carried.js';
import { bytesField, type Field, rangeField, writeFramed } from './frame.js';
import { copyMessage, setDomain, setOptional, setString, toLong } from './messages.js';
import { encodeMetadata, encodeType } from './metadata.js';
import type { Rope } from './rope.js';
import { type ExternalLocation, encodeTensor } from './tensor.js';

/** Where a tensor's bytes go; null keeps them in the message. */
export type ExternalLocator = (tensor: Tensor) => ExternalLocation | null;

/** The bytes of a model. Tensors that `locate` puts elsewhere leave only a reference. Reads no weight. */
export function encodeModel(model: Model, locate: ExternalLocator = () => null): Rope {
  const old = originalOf<Original<'ModelProto'>>(model.carried);
  const message = copyMessage('ModelProto', old?.message);
  message.irVersion = toLong(model.irVersion);
  setOptional(message, 'producerName', model.producerName);
  setOptional(message, 'producerVersion', model.producerVersion);
  setOptional(message, 'domain', model.domain);
  setOptional(message, 'modelVersion', model.modelVersion === undefined ? undefined : toLong(model.modelVersion));
  setOptional(message, 'docString', model.docString);
  encodeMetadata(message, model.metadata);
  const encoder = new Encoder(locate);
  const fields: Field[] = [
    ...(old?.ranges ?? []).map(rangeField),
    bytesField(7, encoder.graph(model.graph)),
    ...model.opsets.map((opset) => bytesField(8, encodeOpset(opset))),
    ...model.functions.map((item) => bytesField(25, encoder.function(item))),
  ];
  return writeFramed('ModelProto', message, fields, old?.shape ?? null);
}

function encodeOpset(opset: OpsetImport): Rope {
  const old = originalOf<Original<'OperatorSetIdProto'>>(opset.carried);
  const message = copyMessage('OperatorSetIdProto', old?.message);
  if (old) setDomain(message, opset.domain);
  else message.domain = opset.domain; // the reference writers write '' out
  if (!old || opset.version !== 0 || Object.hasOwn(message, 'version')) message.version = toLong(opset.version);
  return writeFramed('OperatorSetIdProto', message, [], old?.shape ?? null);
}

class Encoder {
  constructor(readonly locate: ExternalLocator) {}

  graph(graph: Graph): Rope {
    const old = originalOf<OriginalGraph>(graph.carried);
    const message = copyMessage('GraphProto', old?.message);
    setString(message, 'name', graph.name);
    setOptional(message, 'docString', graph.docString);
    encodeMetadata(message, graph.metadata);
    const infos = new InfoEncoder(graph);
    const fields: Field[] = (old?.ranges ?? []).map(rangeField);
    for (const node of nodesInFileOrder(graph)) fields.push(bytesField(1, this.node(node)));
    for (const { initializer } of graph.initializers)
      if (initializer) fields.push(bytesField(5, this.tensor(initializer)));
    for (const value of graph.inputs) fields.push(bytesField(11, infos.encode(value, 'input')));
    for (const value of graph.outputs) fields.push(bytesField(12, infos.encode(value, 'output')));
    for (const field of valueInfoFields(graph, infos, 13)) fields.push(field);
    return writeFramed('GraphProto', message, fields, old?.shape ?? null);
  }

  function(item: LocalFunction): Rope {
    const old = originalOf<Original<'FunctionProto'>>(item.carried);
    const message = copyMessage('FunctionProto', old?.message);
    setString(message, 'name', item.name);
    setDomain(message, item.domain);
    setString(message, 'overload', item.overload);
    setOptional(message, 'docString', item.docString);
    encodeMetadata(message, item.metadata);
    message.input = item.body.inputs.map((value) => value.name);
    message.output = item.body.outputs.map((value) => value.name);
    message.attribute = [...item.attributeNames];
    const infos = new InfoEncoder(item.body);
    const fields: Field[] = (old?.ranges ?? []).map(rangeField);
    for (const node of nodesInFileOrder(item.body)) fields.push(bytesField(7, this.node(node)));
    for (const opset of item.opsets) fields.push(bytesField(9, encodeOpset(opset)));
    for (const field of valueInfoFields(item.body, infos, 12)) fields.push(field);
    return writeFramed('FunctionProto', message, fields, old?.shape ?? null);
  }

  node(node: Node): Rope {
    const old = originalOf<Original<'NodeProto'>>(node.carried);
    const message = copyMessage('NodeProto', old?.message);
    message.input = node.inputs.map((value) => value?.name ?? '');
    message.output = node.outputs.map((value) => value?.name ?? '');
    setString(message, 'name', node.name);
    setString(message, 'opType', node.opType);
    setDomain(message, node.domain);
    setString(message, 'overload', node.overload);
    setOptional(message, 'docString', node.docString);
    encodeMetadata(message, node.metadata);
    const fields: Field[] = [];
    for (const [name, attribute] of node.attributes) {
      const rope = encodeAttribute(name, attribute, {
        tensor: (tensor) => this.tensor(tensor),
        graph: (graph) => this.graph(graph),
      });
      fields.push(bytesField(5, rope));
    }
    return writeFramed('NodeProto', message, fields, old?.shape ?? null);
  }

  tensor(tensor: Tensor): Rope {
    return encodeTensor(tensor, this.locate(tensor));
  }
}

/** The nodes in the order of the file, where that was no topological one and nobody has changed their number or order. */
export function nodesInFileOrder(graph: Graph): Iterable<Node> {
  const unsorted = originalOf<OriginalGraph>(graph.carried)?.unsorted;
  if (!unsorted || unsorted.sorted.length !== graph.nodeCount) return graph.nodes();
  let index = 0;
  for (const node of graph.nodes()) if (node !== unsorted.sorted[index++]) return graph.nodes();
  return unsorted.file;
}

/** Writes the ValueInfoProtos of one graph: as they were read while the value keeps its name and type, else anew. */
class InfoEncoder {
  /** A value can be listed as an output more than once: which of its entries are written. */
  readonly #used = new Set<OriginalInfo>();
  constructor(readonly graph: Graph) {}

  encode(value: Value, section: Section): Rope {
    const infos = originalOf<OriginalValue>(value.carried)?.infos ?? [];
    const old = infos.find((info) => info.graph === this.graph && info.section === section && !this.#used.has(info));
    if (old) this.#used.add(old);
    const message = copyMessage('ValueInfoProto', old?.message);
    if (!old) {
      message.name = value.name;
      if (value.type) message.type = encodeType(value.type);
    }
    // The doc string and the metadata of the value are those of its first entry.
    if (!old || old === infos[0]) {
      setOptional(message, 'docString', value.docString);
      encodeMetadata(message, value.metadata);
    }
    return writeFramed('ValueInfoProto', message, [], old?.shape ?? null);
  }
}

function valueInfoFields(graph: Graph, infos: InfoEncoder, number: number): Field[] {
  const fields = [...graph.valueInfo].map((value) => bytesField(number, infos.encode(value, 'info')));
  for (const { index, repeats, rope } of originalOf<OriginalGraph>(graph.carried)?.extraInfos ?? []) {
    // A repetition must not go on saying what is no longer true: a stale type or shape is a load error.
    if (repeats && (!graph.valueInfo.has(repeats) || !repeats.carried)) continue;
    fields.splice(index, 0, bytesField(number, rope));
  }
  return fields;
}
