import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { openSession } from '../../runtime/index.js';
import { fillTensor, type HostTensor } from '../../runtime/session/tensor.js';
import { suite } from '../helpers/suite.js';
import { decoderBytes } from './decoders/build.js';
import { decoderCase, simplerDecoders } from './decoders/case.js';
import { checkDecoder, feedsFor, questionFor } from './decoders/check.js';
import { compare } from './decoders/compare.js';
import { FOUND } from './decoders/found.js';
import { evaluate, loadProgram } from './evaluate.js';
import { Wrong } from './failure.js';
import { type Tensor, tensor } from './operators/tensor.js';
import { shrink } from './shrink.js';
import { runCampaign } from './supervisor.js';

const test = suite('fuzz');

const RUN = { seed: 1, out: null, onnxruntime: true } as const;

test('16 decoders of a fixed seed: whatever is not refused is right, and much is fused', async () => {
  const { ran, counts, failures } = await runCampaign({ ...RUN, kind: 'decoders', count: 16 });
  assert.equal(failures, []);
  assert.is(ran, 16);
  assert.is((counts['same'] ?? 0) + (counts['refused'] ?? 0), 16);
  assert.ok((counts['same'] ?? 0) >= 10, `${counts['same']} were compared`);
  assert.ok((counts['fused runs'] ?? 0) >= 2, `${counts['fused runs']} fused`);
  assert.ok((counts['cut branches'] ?? 0) >= 10, `${counts['cut branches']} cut`);
});

test('30 mutated models of a fixed seed: no crash, and what onnxruntime loads it loads afterwards', async () => {
  const { ran, counts, failures } = await runCampaign({ ...RUN, kind: 'models', count: 30 });
  assert.equal(failures, []);
  assert.is(ran, 30);
  assert.is((counts['accepted'] ?? 0) + (counts['refused'] ?? 0), 30);
  assert.ok((counts['accepted'] ?? 0) >= 8, `${counts['accepted']} were accepted`);
  assert.ok((counts['loaded'] ?? 0) >= 10, `${counts['loaded']} were loaded`);
});

for (const found of FOUND) {
  test(`found once: ${found.name}`, () => {
    const { refused, comparisons } = checkDecoder(found);
    assert.is(refused, null);
    assert.ok(comparisons >= 3);
  });
}

test('the evaluator gives what onnxruntime gives', async () => {
  let compared = 0;
  for (let index = 0; index < 10; index++) {
    const { spec } = decoderCase(1, index);
    // GroupQueryAttention takes several tokens behind a past for one row only.
    const feeds = feedsFor(spec, questionFor(spec, 1));
    const bytes = decoderBytes(spec);
    const expected = evaluate(loadProgram(bytes), feeds);
    const session = await openSession({ bytes, folder: '.' }, { optimization: 'disabled', threads: 1 });
    try {
      const given = session.inputs.map(({ name }) => [name, hostTensor(feeds.get(name) as Tensor)] as const);
      const outputs = await session.run(new Map(given));
      for (const [name, { dims, data }] of outputs) {
        const one = new Map([[name, tensor(dims, Array.from(data, Number))]]);
        compare(one, new Map([[name, expected.get(name) as Tensor]]), 1e-4, `decoder ${index}`, 'the evaluator');
        compared++;
      }
    } finally {
      await session.release();
    }
  }
  assert.ok(compared >= 10, `${compared} outputs`);
});

function hostTensor({ dims, data, type }: Tensor): HostTensor {
  const dtype = type === 7 ? 'int64' : type === 6 ? 'int32' : 'float';
  return fillTensor(dtype, dims, (i) => data[i] as number);
}

test('a wrong result is noticed', () => {
  const { spec } = FOUND[0] as (typeof FOUND)[number];
  const feeds = feedsFor(spec, questionFor(spec));
  const bytes = decoderBytes(spec);
  const other = decoderBytes({ ...spec, seed: spec.seed + 1 });
  const [a, b] = [bytes, other].map((each) => evaluate(loadProgram(each), feeds));
  assert.throws(
    () => compare(a!, b!, 1e-3, 'meaning', 'another'),
    (error: Error) => error instanceof Wrong,
  );
  assert.is(compare(a!, a!, 0, 'meaning', 'itself'), 0);
});

test('a failing case is made smaller while it fails alike', async () => {
  const { spec, request } = decoderCase(1, 1);
  const fails = async ({ spec: each }: { spec: typeof spec }) =>
    each.layers.some(({ ffn }) => ffn) ? 'has an FFN' : null;
  const small = await shrink({ spec, request }, 'has an FFN', simplerDecoders, fails, 10_000);
  assert.is(small.spec.layers.length, 1);
  assert.is(small.request.shard, null);
});

test('a crash, a hang, a full heap and a large process cost their own case, not the campaign', async () => {
  const worker = fileURLToPath(new URL('./stub-worker.js', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-fuzz-test-'));
  try {
    const request = { ...RUN, kind: 'decoders', count: 10, out: folder, worker, patience: [5000, 15_000] } as const;
    const { ran, counts, failures } = await runCampaign(request);
    const found = failures.map(({ signature, cases }) => [signature.split(' ')[0], cases]);
    assert.equal(found, [
      ['crash', [1]],
      ['hang', [3]],
      ['memory', [5]],
      ['wrong', [6]],
      ['memory', [7]],
      ['slow', [8]],
    ]);
    assert.is(counts['cases'], 5);
    assert.is(ran, 10);
    const kept = JSON.parse(readFileSync(join(folder, 'decoders-1-3.json'), 'utf8'));
    assert.equal(kept, JSON.parse(JSON.stringify(decoderCase(1, 3))));
    assert.is(readdirSync(folder).length, 4);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
