import * as assert from 'uvu/assert';
import { Graph, Model, Tensor, type Value } from '../../../ir/core.js';
import { type DataType, type Dim, tensorType } from '../../../ir/type.js';
import { inlineWeight } from '../../../ir/weight.js';
import { readSignature, type Signature } from '../../../runtime/signature/signature.js';
import { suite } from '../../helpers/suite.js';
import { HEAD_SIZE, tinyDecoder, VOCABULARY } from '../../helpers/tiny-decoder.js';

const test = suite('runtime: signature');

const rolesOf = (signature: Signature) => signature.inputs.map((input) => `${input.name}:${input.role}`).join(' ');

/** A graph with the inputs given and whatever `build` makes of them. */
function modelOf(
  inputs: Record<string, [DataType, Dim[]]>,
  build: (graph: Graph, values: Record<string, Value>) => Value[],
): Model {
  const graph = new Graph();
  const values: Record<string, Value> = {};
  for (const [name, [dtype, shape]] of Object.entries(inputs))
    values[name] = graph.addInput(name, tensorType(dtype, shape));
  for (const output of build(graph, values)) graph.addOutput(output);
  return new Model(10, [{ domain: '', version: 21 }], graph);
}

function constant(graph: Graph, name: string, dims: number[]): Value {
  const bytes = new Uint8Array(4 * dims.reduce((a, b) => a * b, 1));
  return graph.addInitializer(name, new Tensor(name, 'float', dims, inlineWeight(bytes, 'float', dims)));
}

const apply = (
  graph: Graph,
  opType: string,
  inputs: Value[],
  name: string,
  type: [DataType, Dim[]] | null = null,
): Value =>
  graph
    .addNode({ opType, name, inputs, outputs: [{ name, type: type ? tensorType(...type) : null }] })
    .output(0) as Value;

test('roles come from use and type where the names say nothing', () => {
  const signature = readSignature(tinyDecoder());
  assert.is(rolesOf(signature), 'x0:tokens x1:cache x2:cache x3:last-index x4:total-length');
  assert.is(signature.logits, 'y0');
  assert.is(signature.vocabulary, VOCABULARY);
  assert.equal([signature.batch, signature.sequence], [null, null]);
});

test('pasts are paired with presents by data flow, and the head size comes from the weights', () => {
  const [key, value] = readSignature(tinyDecoder()).caches;
  assert.equal([key?.input, key?.output, key?.part], ['x1', 'y1', 'key']);
  assert.equal([value?.input, value?.output, value?.part], ['x2', 'y2', 'value']);
  assert.equal(key?.dims, [null, 2, null, HEAD_SIZE]);
  assert.equal([key?.batchAxis, key?.sequenceAxis, key?.capacity], [0, 2, null]);
});

test('fixed dimensions are read', () => {
  const signature = readSignature(tinyDecoder({ batch: 1, sequence: 8 }));
  assert.equal([signature.batch, signature.sequence], [1, 8]);
});

test('a cache that is concatenated is found through casts and transposes, and named by its layer', () => {
  const model = modelOf(
    { input_ids: ['int64', ['b', 's']], 'past_key_values.7.value': ['float', ['b', 2, 'p', 8]] },
    (graph, { input_ids, 'past_key_values.7.value': past }) => {
      const fresh = apply(graph, 'Gather', [constant(graph, 'w', [32, 8]), input_ids as Value], 'e');
      const joined = graph.addNode({
        opType: 'Concat',
        inputs: [apply(graph, 'Identity', [past as Value], 'i'), fresh],
        outputs: ['j'],
        attributes: { axis: { kind: 'int', value: -2n } },
      });
      return [apply(graph, 'Cast', [joined.output(0) as Value], 'out', ['float', ['b', 2, 't', 8]])];
    },
  );
  const [port] = readSignature(model).caches;
  assert.equal([port?.output, port?.layer, port?.part, port?.sequenceAxis], ['out', '7', 'value', 2]);
});

test('stacked caches have the batch in their second axis', () => {
  const model = modelOf({ ids: ['int64', ['b', 's']], past_0: ['float', [2, 'b', 4, 'p', 8]] }, (graph, values) => {
    apply(graph, 'Gather', [constant(graph, 'w', [32, 8]), values['ids'] as Value], 'e');
    const joined = apply(graph, 'Concat', [values['past_0'] as Value, values['past_0'] as Value], 'present_0', [
      'float',
      [2, 'b', 4, 't', 8],
    ]);
    joined.producer?.setAttribute('axis', { kind: 'int', value: 3n });
    return [joined];
  });
  const [port] = readSignature(model).caches;
  assert.equal([port?.output, port?.part, port?.batchAxis, port?.sequenceAxis], ['present_0', 'both', 1, 3]);
});

test('of two lookups the larger table is the vocabulary, the other one positions', () => {
  const model = modelOf({ u: ['int64', ['b', 's']], v: ['int64', ['b', 's']] }, (graph, { u, v }) => {
    const small = apply(graph, 'Gather', [constant(graph, 'wpe', [16, 8]), u as Value], 'p');
    const large = apply(graph, 'Gather', [constant(graph, 'wte', [64, 8]), v as Value], 'e');
    return [apply(graph, 'Add', [small, large], 'sum', ['float', ['b', 's', 8]])];
  });
  const signature = readSignature(model);
  assert.is(rolesOf(signature), 'u:positions v:tokens');
  assert.equal([signature.vocabulary, signature.positions, signature.logits], [64, 16, null]);
});

test('an attention that counts positions by itself has as many as its table has rows', () => {
  for (const [given, positions] of [
    [false, 16],
    [true, null],
  ] as const) {
    const model = modelOf({ ids: ['int64', ['b', 's']] }, (graph, { ids }) => {
      const embedded = apply(graph, 'Gather', [constant(graph, 'w', [32, 8]), ids as Value], 'e');
      const inputs: (Value | null)[] = [embedded, null, null, null, null, null, null, constant(graph, 'cos', [16, 4])];
      inputs.push(constant(graph, 'sin', [16, 4]));
      if (given) inputs.push(apply(graph, 'Shape', [embedded], 'counted'));
      const outputs = [{ name: 'a', type: null }];
      const spec = { opType: 'GroupQueryAttention', domain: 'com.microsoft', inputs, outputs };
      return [graph.addNode(spec).output(0) as Value];
    });
    assert.is(readSignature(model).positions, positions);
  }
});

test('masks of rank 2 and 4 are told apart, and weights that a caller may override are no inputs', () => {
  const model = modelOf(
    { input_ids: ['int64', ['b', 's']], attention_mask: ['int64', ['b', 't']], bias: ['bool', ['b', 1, 's', 't']] },
    (graph, { input_ids }) => {
      graph.addInput('w', tensorType('float', [32, 8]));
      return [
        apply(graph, 'Gather', [constant(graph, 'w', [32, 8]), input_ids as Value], 'e', ['float', ['b', 's', 8]]),
      ];
    },
  );
  assert.is(rolesOf(readSignature(model)), 'input_ids:tokens attention_mask:mask bias:bias');
});

test('a model that starts from vectors has embeddings', () => {
  const model = modelOf({ h: ['float16', ['b', 's', 64]] }, (graph, { h }) => [
    apply(graph, 'MatMul', [h as Value, constant(graph, 'w', [64, 99])], 'logits', ['float16', ['b', 's', 99]]),
  ]);
  const signature = readSignature(model);
  assert.is(rolesOf(signature), 'h:embeddings');
  assert.equal([signature.logits, signature.vocabulary, signature.driver?.name], ['logits', 99, 'h']);
});

test.run();
