/** Models as no exporter writes them: a pass does what it says or refuses, and never breaks down on a name. */
import * as assert from 'uvu/assert';
import { inspectModel } from '../../api/inspect/inspect.js';
import { openModel, parseModel, tensorType, verifyModel } from '../../ir/index.js';
import { parsePipeline, registry, runPipeline } from '../../passes/index.js';
import { makeFeeds } from '../../runtime/run/feeds.js';
import { withSession } from '../../runtime/session/session.js';
import { readSignature } from '../../runtime/signature/signature.js';
import { writeSmallDecoder } from '../helpers/small-decoder.js';
import { suite } from '../helpers/suite.js';
import { located } from '../helpers/tiny-decoder.js';
import { inWorkspace } from '../helpers/workspace.js';

const test = suite('strange models');

const run = (model: ReturnType<typeof parseModel>, pipeline: string) =>
  runPipeline(model, parsePipeline(pipeline, registry));

/** What every object of JavaScript has: a table that is one has it too. */
const INHERITED = ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf'];

test('operators called like what every object has are operators like any other', () =>
  inWorkspace((folder) => {
    for (const name of INHERITED) {
      for (const domain of ['', 'com.microsoft']) {
        const model = openModel(writeSmallDecoder(folder));
        // In the place of an attention, of a norm, of an element-wise operator and of a product.
        for (const opType of ['GroupQueryAttention', 'SkipSimplifiedLayerNormalization', 'Mul', 'MatMul']) {
          const node = [...model.graph.nodes()].find((each) => each.opType === opType);
          if (!node) continue;
          const outputs = node.outputs.map((value) => value && { name: `${value.name}.new`, type: value.type });
          const made = model.graph.addNode({ opType: name, domain, inputs: node.inputs, outputs }, { before: node });
          for (const [i, value] of node.outputs.entries()) {
            if (value && !value.isGraphOutput) model.graph.replaceUses(value, made.output(i) as never);
          }
        }
        assert.type(inspectModel(model, 'strange').layers.length, 'number');
        readSignature(model);
        run(model, 'inline-functions,parallelize-ffn{keep-last=0},concat-ffn,drop-dead');
        assert.equal(
          verifyModel(model).filter((line) => !line.startsWith('M')),
          [],
        );
      }
    }
  }));

test('an input and an attribute called __proto__ are kept', async () => {
  const model = parseModel(`<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2] "__proto__") => (float[2] y) { y = local.f<alpha = 0.5>("__proto__") }
<domain: "local", opset_import: ["" : 17]>
f <alpha> (x) => (z) { z = LeakyRelu<alpha: float = @alpha>(x) }`);
  run(model, 'inline-functions');
  const [node] = [...model.graph.nodes()];
  assert.is(node?.floatAttribute('alpha'), 0.5);
  const { tensors } = makeFeeds(readSignature(model));
  const outputs = await withSession(located(model).location, {}, (session) => session.run(tensors));
  assert.is(outputs.get('y')?.data.length, 2);
});

test('a cache that is listed as an output twice goes with its attention', () =>
  inWorkspace((folder) => {
    const model = openModel(writeSmallDecoder(folder));
    const present = model.graph.value('present.1.key');
    assert.ok(present?.isGraphOutput);
    model.graph.addOutput(present as never);
    run(model, 'remove-attention{layers=1}');
    const names = [...model.graph.inputs, ...model.graph.outputs].map(({ name }) => name);
    assert.not(
      names.some((name) => /\\.1\\.(key|value)/.test(name)),
      names.join(),
    );
    assert.equal(verifyModel(model), []);
  }));

const CALL = `<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2] x) => (float[2] y) { CALLS }
<domain: "local", opset_import: ["" : 17]>
f (a, b) => (c, b) { c = Neg(a) }`;

test('a call that wants more than its function gives stays a call, as do the others of that function', () => {
  for (const calls of [
    'u, v, w = local.f(x, x) t = Add(u, v) y = Add(t, w)',
    'u, v = local.f(x) y = Add(u, v)',
    'p, q = local.f(x, x) u, v = local.f(p) t = Add(u, v) y = Add(t, q)',
  ]) {
    const model = parseModel(CALL.replace('CALLS', calls));
    const before = model.graph.nodeCount;
    const { remarks } = run(model, 'inline-functions');
    assert.ok(
      remarks.some(({ message }) => /stays a call: a call of it has the output/.test(message)),
      calls,
    );
    assert.is(model.functions.length, 1);
    assert.ok(model.graph.nodeCount >= before);
    assert.equal(verifyModel(model), []);
  }
});

test('a model of IR 3 gets its new weights as inputs, as all of its weights are', () =>
  inWorkspace((folder) => {
    const model = openModel(writeSmallDecoder(folder));
    (model as { irVersion: number }).irVersion = 3;
    for (const { name, initializer } of [...model.graph.initializers]) {
      model.graph.addInput(name, tensorType(initializer?.dtype ?? 'float', initializer?.dims ?? null));
    }
    assert.equal(
      verifyModel(model).filter((line) => line.startsWith('M2')),
      [],
    );
    const { facts } = run(model, 'remove-attention{layers=1-3},parallelize-ffn{keep-last=0},concat-ffn,drop-dead');
    assert.is(facts['concat-ffn']?.length, 1);
    assert.ok([...model.graph.initializers].every((value) => value.isInput));
    assert.ok(model.graph.inputs.every((value) => value.type?.kind === 'tensor' && value.type.shape));
    assert.equal(
      verifyModel(model).filter((line) => line.startsWith('M2')),
      [],
    );
  }));

test.run();
