/**
 * Checks that a model is carried without loss, for any model: ours in the tests beside this file, those of the corpus in its room. The
 * second reader is the code that protobufjs makes of onnx.proto, which knows nothing of ours.
 */
import onnxProto from 'onnx-proto';
import * as assert from 'uvu/assert';
import { allGraphs, allTensors, type Model } from '../../../ir/index.js';
import { encoded } from './fixtures.js';

const { onnx } = onnxProto;

export const isExternal = (model: Model): boolean =>
  [...allTensors(model)].some(({ storage }) => storage === 'external');

/** A model comes out byte for byte; its external tensors are given the places that `bytes`, its header, has for them. */
export function assertIdentical(model: Model, bytes: Buffer, what: string): void {
  const places = new Map(
    (onnx.ModelProto.decode(bytes).graph?.initializer ?? []).map((tensor) => {
      const entries = Object.fromEntries((tensor.externalData ?? []).map(({ key, value }) => [key, value]));
      const { location = '', offset = '0', length = '0' } = entries as Record<string, string>;
      return [tensor.name, { location, offset: Number(offset), length: Number(length) }];
    }),
  );
  const out = encoded(model, (tensor) => (tensor.storage === 'external' ? (places.get(tensor.name) ?? null) : null));
  assert.ok(out.equals(bytes), `${what} does not come out as it came in`);
}

/** What the second reader knows of a model, without where tensors keep their bytes. */
function outline(bytes: Uint8Array) {
  const { graph, opsetImport, irVersion } = onnx.ModelProto.decode(bytes);
  const names = (infos: readonly { name?: string | null; type?: unknown }[] | null | undefined) =>
    (infos ?? []).map(({ name, type }) => [
      name,
      // Some write -1 for a size that is not known, others nothing.
      (JSON.stringify(type) ?? 'none').replaceAll('{"dimValue":"-1"}', '{}'),
    ]);
  return {
    irVersion: String(irVersion),
    opsets: (opsetImport ?? []).map(({ domain, version }) => [domain || '', String(version)]),
    inputs: names(graph?.input),
    outputs: names(graph?.output),
    valueInfo: names(graph?.valueInfo),
    nodes: (graph?.node ?? []).map((node) => ({
      op: [node.domain || '', node.opType],
      name: node.name || '',
      inputs: node.input,
      outputs: node.output,
      // Some writers leave zeros out.
      attributes: (node.attribute ?? []).map(({ name, type, f, i, s, t, g, floats, ints, strings }) =>
        [
          name,
          type,
          f ?? 0,
          String(i ?? 0),
          s ?? '',
          floats,
          ints?.map(String),
          strings,
          t?.dims?.map(String),
          g?.name,
        ].join('|'),
      ),
    })),
    initializers: (graph?.initializer ?? []).map(({ name, dims, dataType }) => [
      name,
      (dims ?? []).map(String),
      dataType,
    ]),
  };
}

/** Forgets everything the reader kept for the writer, so that every message is written from the core alone. */
function forget(model: Model): void {
  model.carried = null;
  for (const opset of model.opsets) opset.carried = null;
  for (const item of model.functions) item.carried = null;
  for (const tensor of allTensors(model)) tensor.carried = null;
  for (const graph of allGraphs(model)) {
    graph.carried = null;
    for (const value of graph.values) value.carried = null;
    for (const node of graph.nodes()) {
      node.carried = null;
      for (const [name, attribute] of node.attributes) {
        if (attribute.kind !== 'opaque') node.attributeMap.set(name, { ...attribute, carried: null });
      }
    }
  }
}

/**
 * The second reader finds the same graph in a model that is written from the core alone. Afterwards the model has forgotten what was
 * carried from its file.
 */
export function assertSecondReaderAgrees(model: Model, bytes: Uint8Array, what: string): void {
  forget(model);
  const before = outline(bytes);
  const after = outline(encoded(model));
  // Nodes may have been sorted, and value_info about nothing is carried: both are forgotten here.
  const sorted = (items: readonly unknown[]) => items.map((item) => JSON.stringify(item)).sort();
  assert.equal(sorted(after.nodes), sorted(before.nodes), `${what}: nodes`);
  // A value with two types, as an output and in value_info, keeps the first.
  const known = new Set(before.valueInfo.map(([name]) => name));
  for (const [name] of after.valueInfo) assert.ok(known.has(name), `${what}: value_info ${name}`);
  assert.equal({ ...after, nodes: [], valueInfo: [] }, { ...before, nodes: [], valueInfo: [] }, what);
}
