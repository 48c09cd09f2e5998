/** A first run in a process of its own: what loops, fills memory or breaks onnxruntime down is ended there. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { openModel, parseModel, saveModel } from '../../../ir/index.js';
import { probe } from '../../../runtime/verify/probe.js';
import { BIN } from '../../helpers/paths.js';
import { writeSmallDecoder } from '../../helpers/small-decoder.js';
import { skip, suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('runtime: probe');

/** Sums up what `body` gives, so many times; the number of times and sizes are computed, so nothing shows them before. */
function loop(times: number, body: string): string {
  return `<ir_version: 8, opset_import: ["" : 17]>
g (int64[b,s] ids) => (float[b,s,4] logits)
<float[8,4] table = {${Array.from({ length: 32 }, (_, i) => i / 32).join()}}, int64[1] half = {${times / 2}}> {
  x = Gather(table, ids)
  twice = Add(half, half)
  empty = Constant<value = int64[0] {}>()
  count = Reshape(twice, empty)
  go = Constant<value = bool {1}>()
  zero = Constant<value = float {0}>()
  total = Loop(count, go, zero) <body = one (int64 i, bool c, float t) => (bool d, float u) { d = Identity(c) ${body} }>
  logits = Add(x, total)
}`;
}

const ENDLESS = loop(2 ** 52, 'u = Cos(t)');
const GROWING = loop(
  1000,
  'many = Mul(twice, twice) f = ConstantOfShape(many) s = ReduceSum<keepdims = 0>(f) u = Add(t, s)',
);

test('a model that runs is left to run', () =>
  inWorkspace(async (folder) => {
    const path = writeSmallDecoder(folder);
    assert.equal(await probe(path, openModel(path)), { reason: null, stopped: false });
  }));

test('a model that never ends, or takes memory without end, is stopped', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'm.onnx');
    for (const [text, why] of [
      [ENDLESS, /^it was stopped at 6 s of computing, far more than its weights explain$/],
      [GROWING.replace('{500}', '{20000}'), /^it was stopped at (350 MiB of memory|6 s of computing)/],
    ] as const) {
      await saveModel(parseModel(text), path);
      const { reason, stopped } = await probe(path, openModel(path));
      assert.ok(stopped);
      assert.match(reason ?? '', why);
    }
  }));

test('what onnxruntime says is handed on', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'm.onnx');
    const text = '<ir_version: 8, opset_import: ["" : 17]> g (float[b] x) => (float[b] y) { y = NoSuchOperator(x) }';
    await saveModel(parseModel(text), path);
    const { reason, stopped } = await probe(path, openModel(path));
    assert.not(stopped);
    assert.match(reason ?? '', /NoSuchOperator/);
  }));

test('a comparison with a model that never ends is one line, and an interrupt is heard meanwhile', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'm.onnx');
    await saveModel(parseModel(ENDLESS), path);
    const { code, stdout, stderr } = await runCli('verify', path, path, '--quiet');
    assert.is(code, 1);
    assert.is(stdout, '');
    assert.match(stderr, /^onnx-fuse: OF_RUNTIME .*it was stopped at 6 s of computing.*\n$/);
  }));

test('an interrupt is heard while a model runs that never ends, and nothing of it goes on', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'm.onnx');
    await saveModel(parseModel(ENDLESS), path);
    const child = spawn(process.execPath, [BIN, 'verify', path, path], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.on('close', resolve));
    const list = `/proc/${child.pid}/task/${child.pid}/children`;
    if (!existsSync(list)) skip('the system does not tell the children of a process');
    let running = '';
    while (running === '' && child.exitCode === null) {
      await sleep(20);
      running = existsSync(list) ? readFileSync(list, 'utf8').trim() : '';
    }
    assert.match(running, /^\d+$/);
    await sleep(200);
    child.kill('SIGINT');
    assert.is(await ended, 130);
    for (let waited = 0; waited < 5000 && existsSync(`/proc/${running}`); waited += 20) await sleep(20);
    assert.not(existsSync(`/proc/${running}`));
  }));

test.run();
