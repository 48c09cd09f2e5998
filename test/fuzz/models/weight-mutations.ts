/** Changes of sizes, weights, graph inputs and outputs. */
import type { Random } from '../random.js';
import {
  bytesOf,
  childOf,
  childrenOf,
  type Field,
  integerField,
  integersOf,
  isMessage,
  type Message,
  messageField,
  messagesIn,
  textField,
  textOf,
} from '../wire.js';
import { changeNumber, fieldOf, GRAPH, NODE, type Place, setText, valueInfo } from './graph-parts.js';

export function changeSizes({ graph }: Place, random: Random): void {
  const dimensions = [...messagesIn(graph)].flatMap(([message]) => (message.kind === 'shape' ? message.fields : []));
  const tensors = childrenOf(graph, GRAPH.initializer);
  if (tensors.length > 0 && (dimensions.length === 0 || random.chance(0.3))) {
    const sizes = random.pick(tensors).fields.filter(({ number }) => number === 1);
    if (sizes.length > 0) changeNumber(random.pick(sizes), random);
    return;
  }
  if (dimensions.length === 0) return;
  const field = random.pick(dimensions);
  const size = random.pick([-1n, 0n, 1n, 2n, 4n, 16n, 2n ** 28n, 2n ** 60n]);
  field.value = {
    kind: 'dimension',
    fields: random.chance(0.6)
      ? [integerField(1, size)]
      : [textField(2, random.pick(['batch', 'b', '', 's', 'total']))],
  };
}

export function changeWeights({ graph, names }: Place, random: Random): void {
  const tensors = childrenOf(graph, GRAPH.initializer);
  if (tensors.length === 0) return;
  const tensor = random.pick(tensors);
  const raw = tensor.fields.find(({ number, value }) => number === 9 && value instanceof Uint8Array);
  switch (random.below(7)) {
    case 0:
      if (raw) raw.value = new Uint8Array((raw.value as Uint8Array).length).fill(random.pick([0, 0, 255, 127, 0x7f]));
      return;
    case 1:
      graph.fields.splice(graph.fields.indexOf(fieldOf(graph, tensor)), 1);
      return;
    case 2:
      // Also a graph input, whose default it is.
      graph.fields.push(
        messageField(
          GRAPH.input,
          valueInfo(textOf(tensor, 8), Number(integersOf(tensor, 2)[0] ?? 1n), integersOf(tensor, 1)),
        ),
      );
      return;
    case 3: {
      const constant: Message = {
        kind: 'node',
        fields: [textField(NODE.output, textOf(tensor, 8)), textField(NODE.op, 'Constant')],
      };
      const value: Message = {
        kind: 'attribute',
        fields: [textField(1, 'value'), messageField(5, tensor), integerField(20, 4)],
      };
      constant.fields.push(messageField(NODE.attribute, value));
      graph.fields.splice(graph.fields.indexOf(fieldOf(graph, tensor)), 1);
      graph.fields.unshift(messageField(GRAPH.node, constant));
      return;
    }
    case 4: {
      const type = tensor.fields.find(({ number }) => number === 2);
      if (type) type.value = BigInt(random.pick([0, 1, 2, 3, 7, 9, 10, 11, 16, 17, 21, 22, 99]));
      return;
    }
    case 5: {
      tensor.fields = tensor.fields.filter(({ number }) => number !== 9);
      const entry = (key: string, value: string): Field =>
        messageField(13, { kind: 'entry', fields: [textField(1, key), textField(2, value)] });
      const location = random.pick(['absent.bin', '../up.bin', '/etc/hostname', '', '.', 'model.onnx', 'a\0b']);
      tensor.fields.push(
        entry('location', location),
        entry('offset', random.pick(['0', '-1', '1e3', '9007199254740993', ''])),
        integerField(14, 1),
      );
      return;
    }
    default: {
      const [one, other] = [bytesOf(tensor, 9)[0], random.pick(tensors)];
      if (one && raw && random.chance(0.5)) raw.value = bytesOf(other, 9)[0] ?? one;
      else setText(tensor, 8, random.pick(names));
    }
  }
}

export function changeInterface({ graph, names }: Place, random: Random): void {
  const values = graph.fields.filter(
    ({ number }) => number === GRAPH.input || number === GRAPH.output || number === GRAPH.info,
  );
  switch (random.below(4)) {
    case 0:
      // Something inside is an output too.
      graph.fields.push(messageField(GRAPH.output, valueInfo(random.pick(names), random.pick([1, 1, 1, 7]), null)));
      return;
    case 1:
      if (values.length > 0) graph.fields.splice(graph.fields.indexOf(random.pick(values)), 1);
      return;
    case 2:
      graph.fields.push(
        messageField(
          GRAPH.input,
          valueInfo(random.chance(0.5) ? 'extra' : random.pick(names), random.pick([1, 7]), [2n, 3n]),
        ),
      );
      return;
    default: {
      const field = values.length > 0 ? random.pick(values) : null;
      const type = field && isMessage(field.value) ? childOf(field.value, 2) : null;
      const tensorType = type && childOf(type, 1);
      const element = tensorType?.fields.find(({ number }) => number === 1);
      if (element) element.value = BigInt(random.pick([0, 1, 6, 7, 9, 10, 16, 50]));
    }
  }
}
