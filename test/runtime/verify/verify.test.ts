import * as assert from 'uvu/assert';
import { Tensor, type Value } from '../../../ir/core.js';
import { inlineWeight } from '../../../ir/weight.js';
import { toleranceFor } from '../../../runtime/verify/tolerance.js';
import { KnownRuns, type VerifyOptions, verifyPair } from '../../../runtime/verify/verify.js';
import { suite } from '../../helpers/suite.js';
import { located, type TinyOptions, tinyDecoder } from '../../helpers/tiny-decoder.js';

const test = suite('runtime: verify');

const verify = (a: TinyOptions, b: TinyOptions, options?: VerifyOptions) =>
  verifyPair(located(tinyDecoder(a)), located(tinyDecoder(b)), options);

test('a model agrees with itself in prefill and decode, logits and caches', async () => {
  const found = await verify({}, {});
  assert.equal(found.worst, { relative: 0, absolute: 0, cosine: 1, kl: 0, top1: 1 });
  assert.equal(found.decode, found.worst);
  assert.equal(
    found.perOutput.map((output) => output.name),
    ['y0', 'y1', 'y2'],
  );
  // Prefills of 6 tokens in a batch of 1 and one of 2, and of 16 tokens; a decode step after each.
  assert.is(found.positions, 6 + 1 + 12 + 2 + 16 + 1);
  assert.equal(found.cached, [true, true]);
});

test('a candidate that is compared twice is loaded once, and again where other cases are run', async () => {
  const candidate = located(tinyDecoder({ gain: 1.001 }));
  let loads = 0;
  const counted = {
    model: candidate.model,
    get location() {
      loads++;
      return candidate.location;
    },
  };
  const known = new KnownRuns();
  const first = await verifyPair(located(tinyDecoder({})), counted, { known });
  const once = loads;
  const second = await verifyPair(located(tinyDecoder({ gain: 1.001 })), counted, { known });
  // Its place is looked at before anything is run, but no session is opened.
  assert.is(loads, once + 1);
  assert.ok(first.worst.relative > 1e-4);
  assert.equal(second.worst, { relative: 0, absolute: 0, cosine: 1, kl: 0, top1: 1 });
  loads = 0;
  await verifyPair(located(tinyDecoder({})), counted, { known, seeds: [5] });
  assert.is(loads, once, 'other inputs are run');
});

test('a difference is measured relative to the norm', async () => {
  const found = await verify({}, { gain: 1.001 });
  assert.ok(Math.abs(found.worst.relative - 1e-3) < 1e-5);
  assert.ok(found.worst.kl > 0 && found.worst.kl < 1e-4);
  assert.is(found.perOutput.find((output) => output.name === 'y1')?.relative, 0);
});

test('a model that lost its caches is compared by its scores, and the caches are listed', async () => {
  const found = await verify({}, { attention: false });
  assert.equal(found.onlyReference, ['y1', 'y2']);
  assert.equal(found.cached, [true, false]);
  assert.ok(found.worst.relative > 0.01 && found.worst.relative < 2);
  assert.ok(found.decode !== null && found.decode.relative > 0.01);
  assert.equal(
    found.runs.map((run) => run.step),
    ['prefill', 'decode', 'prefill', 'decode', 'prefill', 'decode'],
  );
});

test('scores that are not finite never pass silently', async () => {
  const broken = await verify({}, { overflow: true });
  assert.is(broken.worst.relative, Number.POSITIVE_INFINITY);
  assert.ok(broken.nonFinite[1] > 0);
  const both = await verify({ overflow: true }, { overflow: true });
  assert.is(both.worst.relative, 0);
  assert.ok(both.nonFinite[0] > 0);
});

test('a candidate that cannot run what the reference can is an error', async () => {
  const text = await verify({ attention: false }, { attention: false, sequence: 3 }).then(
    String,
    (error: Error) => error.message,
  );
  assert.match(
    text,
    "OF_CANNOT_FEED graph input 'x0': no value can be made for it: it takes 3 tokens at a time, not 7",
  );
});

test('inputs that the reference itself cannot run are left out and listed', async () => {
  const model = tinyDecoder({ attention: false });
  const [ids] = model.graph.inputs;
  // The embedding once more, by way of a shape of one row, as exporters leave behind.
  const rows = inlineWeight(new Uint8Array(BigInt64Array.of(1n, -1n).buffer), 'int64', [2]);
  const shape = model.graph.addInitializer('shape', new Tensor('shape', 'int64', [2], rows));
  const add = (opType: string, inputs: (Value | null)[]) =>
    model.graph.addNode({ opType, inputs, outputs: [opType] }, { before: head! }).output(0);
  const head = [...model.graph.nodes()].at(-1);
  const again = add('Gather', [model.graph.value('table')!, add('Reshape', [ids!, shape])]);
  head!.setInput(0, add('Add', [head!.input(0), again]));
  const found = await verifyPair(located(model), located(model));
  assert.is(found.skipped.length, 1);
  assert.match(found.skipped[0]!, /^batch 2, 7 tokens: onnxruntime failed: .*Add/);
  assert.equal(
    found.runs.map((run) => run.batch),
    [1, 1, 1, 1],
  );
});

test('a fixed batch and length are kept', async () => {
  const found = await verify({ batch: 2, sequence: 5, attention: false }, { batch: 2, sequence: 5, attention: false });
  assert.equal(
    found.runs.map((run) => [run.step, run.batch, run.tokens]),
    [
      ['prefill', 2, 5],
      ['prefill', 2, 5],
    ],
  );
  assert.is(found.decode, null);
});

test('progress counts the runs of both models', async () => {
  const seen: string[] = [];
  await verify({}, {}, { onRun: (done, total) => void seen.push(`${done}/${total}`) });
  assert.equal(seen, ['0/6', '1/6', '2/6', '3/6', '4/6', '5/6']);
});

test('the tolerance follows the precision of the computation', () => {
  assert.equal(toleranceFor(tinyDecoder()), { relative: 1e-5, precision: 'float' });
});

test.run();
