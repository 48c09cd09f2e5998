import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { Graph, Model, Tensor } from '../../../ir/core.js';
import { referenceBytes } from '../../../ir/disk/model.js';
import { parseModel } from '../../../ir/text/parse.js';
import { tensorType } from '../../../ir/type.js';
import { inlineWeight } from '../../../ir/weight.js';
import { makeFeeds } from '../../../runtime/run/feeds.js';
import { fitsInMemory, weightBytes } from '../../../runtime/session/memory.js';
import { isRuntimeAvailable, loadRuntime } from '../../../runtime/session/ort.js';
import { openSession, withSession } from '../../../runtime/session/session.js';
import { fillTensor, toFloat32 } from '../../../runtime/session/tensor.js';
import { readSignature } from '../../../runtime/signature/signature.js';
import { suite } from '../../helpers/suite.js';
import { located, tinyDecoder } from '../../helpers/tiny-decoder.js';

const test = suite('runtime: session');

const failure = async (run: Promise<unknown>): Promise<string> => {
  try {
    await run;
  } catch (error) {
    return (error as Error).message;
  }
  return '';
};

test('onnxruntime loads and tells its version', async () => {
  assert.is(await isRuntimeAvailable(), true);
  assert.match((await loadRuntime()).version, /^\d+\.\d+\.\d+/);
});

test('without the package the remedy is to install it', () => {
  const hide = `export async function resolve(s, c, next) {
    if (s !== 'onnxruntime-node') return next(s, c);
    throw Object.assign(new Error("Cannot find package 'onnxruntime-node'"), { code: 'ERR_MODULE_NOT_FOUND' });
  }`;
  const script = `import { register } from 'node:module';
    register('data:text/javascript,' + encodeURIComponent(${JSON.stringify(hide)}));
    const { loadRuntime, isRuntimeAvailable } = await import(${JSON.stringify(new URL('../../../runtime/index.js', import.meta.url))});
    console.log(await isRuntimeAvailable());
    await loadRuntime().catch((error) => console.log(error.message));`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.is(
    stdout,
    'false\nOF_NO_RUNTIME onnxruntime-node: it cannot be loaded: it is not installed; npm install onnxruntime-node\n',
  );
});

test('a model opens from a path and from bytes, with the same inputs and results', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'onnx-fuse-'));
  try {
    const bytes = referenceBytes(tinyDecoder({ attention: false }), folder);
    const path = join(folder, 'model.onnx');
    writeFileSync(path, bytes);
    const feeds = new Map([['x0', fillTensor('int64', [1, 2], (i) => i)]]);
    const results = [];
    for (const model of [path, { bytes, folder }]) {
      results.push(
        await withSession(model, {}, async (session) => {
          assert.equal(session.inputs, [{ name: 'x0', dtype: 'int64', shape: ['b', 's'] }]);
          return [...toFloat32((await session.run(feeds)).get('y0')!)];
        }),
      );
    }
    assert.is(results[0]?.length, 46);
    assert.equal(results[0], results[1]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('float16 goes in and comes out by its bits', async () => {
  const graph = new Graph();
  const x = graph.addInput('x', tensorType('float16', ['n']));
  const node = graph.addNode({
    opType: 'Neg',
    inputs: [x],
    outputs: [{ name: 'y', type: tensorType('float16', ['n']) }],
  });
  graph.addOutput(node.output(0)!);
  const { location } = located(new Model(8, [{ domain: '', version: 17 }], graph));
  await withSession(location, {}, async (session) => {
    const outputs = await session.run(new Map([['x', fillTensor('float16', [3], (i) => [1, -2, 0.5][i] ?? 0)]]));
    assert.ok(outputs.get('y')?.data instanceof Uint16Array);
    assert.equal([...toFloat32(outputs.get('y')!)], [-1, 2, -0.5]);
  });
});

test('a graph that type-checks only after basic optimisation is opened so', async () => {
  // A cast that does nothing, between operators for which onnxruntime inserts casts of its own.
  const text = `<ir_version: 10, opset_import: ["" : 18]>
    g (float16[2] x) => (float16[2] y) { a = Neg (x) b = Cast <to: int = 10> (a) y = Neg (b) }`;
  const location = { bytes: referenceBytes(parseModel(text), '.'), folder: '.' };
  await withSession(location, { optimization: 'disabled' }, async (session) => {
    assert.is(session.optimizationLevel, 'basic');
    const x = { dtype: 'float16', dims: [2], data: Uint16Array.of(0x3c00, 0xc000) } as const;
    assert.equal([...toFloat32((await session.run(new Map([['x', x]]))).get('y')!)], [1, -2]);
  });
});

test('failures are one line, without a stack of the native side', async () => {
  assert.match(await failure(openSession('/nowhere/model.onnx')), 'OF_NO_SUCH_FILE /nowhere/model.onnx');
  const broken = await failure(openSession({ bytes: Uint8Array.of(1, 2, 3), folder: '.' }));
  assert.match(
    broken,
    'OF_RUNTIME the model in memory: onnxruntime failed: Failed to load model because protobuf parsing failed',
  );
  assert.not.match(broken, '\n');
  const { location } = located(tinyDecoder({ attention: false }));
  await withSession(location, {}, async (session) => {
    const outside = new Map([['x0', fillTensor('int64', [1, 1], () => 1000)]]);
    assert.match(await failure(session.run(outside)), /OF_RUNTIME .*idx=1000 must be within/);
    assert.match(await failure(session.run(new Map())), "input 'x0' is missing");
  });
});

test('a released session refuses to run and may be released again', async () => {
  const session = await openSession(located(tinyDecoder({ attention: false })).location);
  await session.release();
  await session.release();
  assert.match(await failure(session.run(new Map())), 'the session was released');
});

test('a provider that is not installed is named', async () => {
  const { location } = located(tinyDecoder());
  assert.match(
    await failure(openSession(location, { provider: 'cuda' })),
    "OF_NO_PROVIDER provider 'cuda': it is not available",
  );
});

test('rotary embeddings that the operator does not do are explained', async () => {
  const model = tinyDecoder();
  const attention = [...model.graph.nodes()].find((node) => node.opType === 'GroupQueryAttention')!;
  attention.setAttribute('do_rotary', { kind: 'int', value: 1n });
  for (const [index, name] of ['cos', 'sin'].entries()) {
    const angles = inlineWeight(new Uint8Array(4 * 16 * 4), 'float', [16, 4]);
    attention.setInput(7 + index, model.graph.addInitializer(name, new Tensor(name, 'float', [16, 4], angles)));
  }
  const feeds = makeFeeds(readSignature(model), { tokens: 2 });
  await withSession(located(model).location, {}, async (session) => {
    const text = await failure(session.run(feeds.tensors));
    const place = "OF_RUNTIME the model in memory: onnxruntime failed: GroupQueryAttention 'attention'";
    assert.match(
      text,
      `${place} applies rotary embeddings itself, which it does only for head sizes that are a multiple of 16`,
    );
  });
});

test('weights are counted once each', () => {
  const model = tinyDecoder({ attention: false });
  assert.is(weightBytes(model), 2 * 23 * 32 * 4);
  const { need, have, fits } = fitsInMemory(model);
  assert.ok(need > weightBytes(model) && have > 0);
  assert.is(fits, need <= have);
});

test.run();
