/** LoRA: a decoder that takes its factors as inputs, and the adapter files of onnxruntime that bring them. */
import { type Model, Tensor, tensorType } from '../../ir/index.js';
import { inlineWeight } from '../../ir/weight.js';

/** Gives the query projections of a small decoder optional factors, named as the builder of onnxruntime-genai names them. */
export function addLora(model: Model): string[] {
  const { graph } = model;
  const names: string[] = [];
  for (const [layer, attention] of [...graph.nodes()]
    .filter((node) => node.opType === 'GroupQueryAttention')
    .entries()) {
    const query = attention.input(0);
    const product = query?.producer;
    const [x, width] = [product?.input(0), product?.input(1)?.initializer?.dims[1]];
    if (!query || !product || !x || width === undefined) throw new Error('no query projection');
    const hidden = product.input(1)?.initializer?.dims[0] as number;
    const factor = (side: 'A' | 'B', dims: [number, number]) => {
      const name = `model.layers.${layer}.attn.q_proj.lora_${side}.weight`;
      names.push(name);
      graph.addInput(name, tensorType('float', side === 'A' ? [hidden, 'r'] : ['r', width]));
      return graph.addInitializer(
        name,
        new Tensor(name, 'float', dims, inlineWeight(new Uint8Array(0), 'float', dims)),
      );
    };
    const down = graph.addNode(
      { opType: 'MatMul', inputs: [x, factor('A', [hidden, 0])], outputs: [`lora${layer}.down`] },
      { before: attention },
    );
    const up = graph.addNode(
      { opType: 'MatMul', inputs: [down.output(0), factor('B', [0, width])], outputs: [`lora${layer}.up`] },
      { before: attention },
    );
    const sum = graph.addNode(
      { opType: 'Add', inputs: [query, up.output(0)], outputs: [`lora${layer}.sum`] },
      { before: attention },
    );
    attention.setInput(0, sum.output(0));
  }
  return names;
}

/** A .onnx_adapter file with parameters of these names (and no values, which nobody here reads). */
export function adapterBytes(names: readonly string[]): Buffer {
  const text = names.map((name) => Buffer.from(`${name}\0`));
  const [list, tables] = [36, 36 + 4 + 4 * names.length];
  let at = tables + 8 * names.length;
  const bytes = Buffer.alloc(at + text.reduce((sum, part) => sum + 4 + part.length, 0));
  bytes.writeUInt32LE(28, 0);
  bytes.write('TORT', 4, 'latin1');
  // Slots of the root table, of which the parameters are the fourth, and of a parameter, of which the name is the first.
  for (const [i, slot] of [12, 8, 0, 0, 0, 4].entries()) bytes.writeUInt16LE(slot, 8 + 2 * i);
  for (const [i, slot] of [6, 8, 4].entries()) bytes.writeUInt16LE(slot, 20 + 2 * i);
  bytes.writeInt32LE(28 - 8, 28);
  bytes.writeUInt32LE(4, 32);
  bytes.writeUInt32LE(names.length, list);
  for (const [i, part] of text.entries()) {
    const table = tables + 8 * i;
    bytes.writeUInt32LE(table - (list + 4 + 4 * i), list + 4 + 4 * i);
    bytes.writeInt32LE(table - 20, table);
    bytes.writeUInt32LE(at - (table + 4), table + 4);
    bytes.writeUInt32LE(part.length - 1, at);
    part.copy(bytes, at + 4);
    at += 4 + part.length;
  }
  return bytes;
}
