/** Measured speed: in onnxruntime-node, and in onnxruntime-genai through the script, for which a small program stands in here. */
import { chmodSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { calibrateFor, measureSpeed, timerFor } from '../../../api/plan/measured-speed.js';
import { openModel } from '../../../ir/index.js';
import { fuseSteps, runPipeline } from '../../../passes/index.js';
import { writeGenaiFolder, writeSmallDecoder } from '../../helpers/small-decoder.js';
import { skip, suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('measured speed');

/**
 * Stands in for Python: says what the script says. A folder must be what onnxruntime-genai loads, the data in it the original's own
 * file; its token takes a millisecond for every KV cache that the header names.
 */
const PYTHON = `#!${process.execPath}
const { readFileSync, statSync } = require('node:fs');
const [script, mode] = process.argv.slice(2);
if (!/import onnxruntime_genai/.test(readFileSync(script, 'utf8'))) throw new Error('no script of ours');
console.log('a library talks');
if (mode === 'version') console.log(JSON.stringify({ version: '0.99' }));
else {
  const request = JSON.parse(readFileSync(0, 'utf8'));
  const times = request.folders.map((folder) => {
    const { decoder } = JSON.parse(readFileSync(folder + '/genai_config.json', 'utf8')).model;
    const header = readFileSync(folder + '/' + decoder.filename, 'latin1');
    if (statSync(folder + '/model.onnx.data').nlink < 2) throw new Error('the data is a copy');
    if (decoder.session_options.intra_op_num_threads !== 1) throw new Error('the threads are not set');
    const caches = new Set(header.match(/past_key_values\\.\\d+\\.key/g)).size;
    const list = (seconds) => new Array(request.rounds).fill(seconds);
    return { token: list(caches / 1000), prompt: request.prompt ? list(request.context / 1000) : [] };
  });
  console.log(JSON.stringify({ done: 1, total: 2 }));
  console.log(JSON.stringify(process.env.BROKEN ? { times: times.slice(1) } : { times }));
}
`;

async function withPython<T>(folder: string, text: string, work: () => Promise<T>): Promise<T> {
  if (process.platform === 'win32') skip('a script is no program here');
  const python = join(folder, 'python');
  writeFileSync(python, text);
  chmodSync(python, 0o755);
  const before = process.env['ONNX_FUSE_PYTHON'];
  process.env['ONNX_FUSE_PYTHON'] = python;
  try {
    return await work();
  } finally {
    if (before === undefined) delete process.env['ONNX_FUSE_PYTHON'];
    else process.env['ONNX_FUSE_PYTHON'] = before;
  }
}

async function refusalOf(work: Promise<unknown>): Promise<string> {
  return work.then(() => 'nothing was refused', String);
}

function without(path: string, ...removeAttention: number[]) {
  const model = openModel(path);
  runPipeline(model, fuseSteps({ removeAttention, fuse: false }));
  return model;
}

test('onnxruntime-genai times folders over links, which are gone afterwards', () =>
  inWorkspace((folder) =>
    withPython(folder, PYTHON, async () => {
      const model = join(folder, 'model');
      writeGenaiFolder(model);
      const path = join(model, 'model.onnx');
      const before = readdirSync(model).sort();
      const options = { context: 100, threads: 1, rounds: 3, prompt: true };
      const speed = await measureSpeed(path, without(path, 1, 2), options);
      // Five caches, and three that are left.
      assert.equal([speed.original, speed.changed], [0.005, 0.003]);
      assert.ok(Math.abs(speed.speedup - 5 / 3) < 1e-12, String(speed.speedup));
      assert.equal(speed.prompt, { original: 0.1, changed: 0.1, speedup: 1 });
      assert.is(speed.runtime, 'onnxruntime-genai 0.99 on cpu, one sequence behind 100 tokens');
      // One of five attentions was left out: a millisecond each, as it is there.
      const device = await calibrateFor(path, options);
      assert.ok(Math.abs(device.secondsPerAttention - 1e-3) < 1e-4, String(device.secondsPerAttention));
      assert.is(device.secondsPerFfn, 0);
      assert.match(device.source, /onnxruntime-genai 0\.99 on cpu: .* behind 100, of the model, without 1 attention/);
      assert.match(device.disturbed ?? '', /what an FFN costs is less than the noise/);
      assert.equal(readdirSync(model).sort(), before);
    }),
  ));

test('what the script does not say is an error, and nothing is left behind', () =>
  inWorkspace((folder) =>
    withPython(folder, PYTHON.replace('process.env.BROKEN', 'true'), async () => {
      const model = join(folder, 'model');
      writeGenaiFolder(model);
      const path = join(model, 'model.onnx');
      const before = readdirSync(model).sort();
      const message = await refusalOf(measureSpeed(path, without(path, 1), { rounds: 1, threads: 1 }));
      assert.match(message, /OF_RUNTIME .*gave no times, but \{"times"/);
      const words = await refusalOf(measureSpeed(path, without(path, 1), { rounds: 1, threads: 2 }));
      assert.match(words, /OF_RUNTIME .*onnxruntime failed/);
      assert.equal(readdirSync(model).sort(), before);
    }),
  ));

test('a Python without it, and a model that is no folder of it, are timed in onnxruntime-node unless it was asked for', () =>
  inWorkspace((folder) =>
    withPython(folder, `#!${process.execPath}\nconsole.error('No module named genai');process.exit(1);`, async () => {
      const model = join(folder, 'model');
      writeGenaiFolder(model);
      const path = join(model, 'model.onnx');
      assert.match((await timerFor(path, {})).runtime, /^onnxruntime-node /);
      const asked = await refusalOf(timerFor(path, { runtime: 'genai' }));
      assert.match(
        asked,
        /OF_USAGE option runtime: onnxruntime-genai cannot time .*: No module named genai; time it in/,
      );
      const alone = writeSmallDecoder(folder);
      assert.match(await refusalOf(timerFor(alone, { runtime: 'genai' })), /there is no genai_config\.json beside/);
      const speed = await measureSpeed(alone, without(alone, 0, 1, 2, 3), { context: 8, rounds: 2 });
      assert.ok(speed.original > 0 && speed.changed > 0 && speed.speedup > 0 && speed.prompt === null);
      assert.match(speed.runtime, /^onnxruntime-node \S+ on cpu, one sequence behind 8 tokens$/);
    }),
  ));

test.run();
