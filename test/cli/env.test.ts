/** `onnx-fuse env`: what goes into the report of a bug. */
import { arch, cpus } from 'node:os';
import * as assert from 'uvu/assert';
import type { Environment } from '../../api/verify/environment.js';
import { suite } from '../helpers/suite.js';
import { runCli } from '../helpers/workspace.js';

const test = suite('env');

test('versions, machine and providers, as a table and as JSON', async () => {
  const people = await runCli('env');
  assert.equal({ code: people.code, stderr: people.stderr }, { code: 0, stderr: '' });
  for (const line of [
    /^onnx-fuse +\d+\.\d+\.\d+/m,
    new RegExp(`^Node +${process.versions.node}$`, 'm'),
    /^onnxruntime-node +\S/m,
    /^onnxruntime-genai +\S/m,
    new RegExp(`^system +\\S.*, ${arch()}$`, 'm'),
    new RegExp(`^processor +${cpus().length} x \\S`, 'm'),
    /^memory +[\d.]+ [GMT]iB, of which [\d.]+ [KGMT]iB are free$/m,
    /^provider cpu +\S/m,
    /^provider cuda +\S/m,
    /^provider webgpu +\S/m,
  ]) {
    assert.match(people.stdout, line);
  }
  const { code, stdout } = await runCli('env', '--json');
  assert.is(code, 0);
  const found = JSON.parse(stdout) as Environment & { readonly kind: string; readonly status: string };
  assert.equal([found.kind, found.status], ['onnx-fuse environment', 'done']);
  assert.is(found.versions.node, process.versions.node);
  const [runtime] = found.runtimes;
  const [cpu] = found.providers;
  // Where onnxruntime-node is there, it runs models on the CPU.
  assert.is(cpu?.available, runtime?.available);
  for (const { available, reason } of [...found.runtimes, ...found.providers]) assert.is(reason === null, available);
});

test.run();
