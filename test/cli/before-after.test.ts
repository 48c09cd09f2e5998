/** What a run says of the model before and after: operators with their parameters and bytes, and the time of a token. */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { OperatorFigures } from '../../api/fuse/figures.js';
import type { Report } from '../../api/fuse/report.js';
import { saveModel } from '../../ir/index.js';
import { goldenInput } from '../helpers/golden-check.js';
import { TALES12 } from '../helpers/paths.js';
import { planExample } from '../helpers/plan-example.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const test = suite('before-after');

/** Where a token takes the time of reading the weights, and a millisecond for each attention. */
const DEVICE = {
  ...{ name: 'a slow disk', source: 'made up', ranks: 1, bytesPerSecond: 1e6 },
  ...{ secondsPerAttention: 1e-3, secondsPerFfn: 0, secondsPerLinear: 0 },
};

function sum(report: Report, when: 'before' | 'after', what: keyof OperatorFigures): number {
  return report.operators.reduce((total, each) => total + each[when][what], 0);
}

test('operators are listed with what they read, and their parameters are those of the model', () =>
  inWorkspace(async (folder) => {
    const [out, report] = [join(folder, 'out.onnx'), join(folder, 'report.json')];
    const { code, stdout, stderr } = await runCli(
      TALES12,
      out,
      '--remove-attention',
      '4-9',
      '--no-verify',
      '--report',
      report,
    );
    assert.is(code, 0, stderr);
    const found = JSON.parse(readFileSync(report, 'utf8')) as Report;
    assert.is(sum(found, 'before', 'nodes'), found.nodes.before);
    assert.is(sum(found, 'after', 'nodes'), found.nodes.after);
    assert.is(sum(found, 'before', 'parameters'), found.parameters.before);
    assert.is(sum(found, 'after', 'parameters'), found.parameters.after);
    const softmax = found.operators.find(({ operator }) => operator === 'Softmax');
    assert.equal([softmax?.before.nodes, softmax?.after.nodes], [12, 6]);
    assert.is(found.operators[0]?.operator, 'MatMul', 'what changed most comes first');
    assert.is(found.predicted, null);
    assert.not.match(stdout, /predicted/);
    assert.match(stdout, /^operator +nodes +parameters +bytes of weights$/m);
    assert.match(stdout, /^MatMul +110 -> 62 +2\.24 M -> 1\.95 M +4\.28 MiB -> 3\.72 MiB$/m);
    assert.match(stdout, /^11 more operators changed, 8 operators did not change \(--report lists all\)$/m);
  }));

test('a copy has no operators that changed, and what quantised matrices stand for is counted', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'in.onnx');
    await saveModel(goldenInput('pipeline/adds'), path);
    const copy = await runCli(path, join(folder, 'copy.onnx'), '--pipeline', '', '--no-verify');
    assert.is(copy.code, 0, copy.stderr);
    assert.not.match(copy.stdout, /operator/);
    const json = await runCli(path, join(folder, 'out.onnx'), '--remove-attention', '1-2', '--no-verify', '--json');
    const found = JSON.parse(json.stdout) as Report;
    assert.is(sum(found, 'before', 'parameters'), found.parameters.before);
  }));

test('a device, or the plan that is applied, says what a token is predicted to take', () =>
  inWorkspace(async (folder) => {
    const [device, out] = [join(folder, 'device.json'), join(folder, 'out.onnx')];
    writeFileSync(device, JSON.stringify(DEVICE));
    const remove = ['--remove-attention', '3-5', '--no-fuse', '--no-verify'];
    const asked = await runCli(TALES12, out, ...remove, '--device', device);
    assert.is(asked.code, 0, asked.stderr);
    assert.match(asked.stdout, /^time of a token \(predicted\) +[\d.e+]+ ms +[\d.e+]+ ms$/m);
    assert.match(asked.stdout, /^predicted for a slow disk, not measured: made up$/m);
    const json = await runCli(TALES12, out, ...remove, '--device', device, '--json');
    const { predicted, options } = JSON.parse(json.stdout) as Report;
    const { before, after } = predicted?.secondsPerToken ?? { before: 0, after: 0 };
    // Three attentions, a millisecond each, and the bytes of their weights.
    assert.ok(before - after > 3e-3 && before - after < 0.5, `${before} - ${after}`);
    assert.is(options['device'], undefined, 'a device is not what was asked of the model');

    const example = planExample();
    const sha256 = createHash('sha256').update(readFileSync(TALES12)).digest('hex');
    const model = { ...example.model, sha256 };
    const chosen = { ...example.chosen, removeAttention: [3, 4, 5], linearizeAttention: [], runs: [] };
    const plan = join(folder, 'plan.json');
    const apply = async (cost: object): Promise<Report> => {
      writeFileSync(plan, JSON.stringify({ ...example, model, chosen, fit: null, cost }));
      const applied = await runCli(TALES12, out, '--plan', plan, '--no-verify', '--json');
      assert.is(applied.code, 0, applied.stderr);
      return JSON.parse(applied.stdout) as Report;
    };
    const planned = await apply({ ...DEVICE, secondsPerToken: 0, disturbed: null, originalSeconds: before });
    assert.equal(planned.predicted, predicted);
    assert.is((await apply({ name: 'damaged' })).predicted, null);

    const wrong = await runCli(TALES12, out, ...remove, '--device', 'h100x9');
    assert.is(wrong.code, 2);
    assert.match(wrong.stderr, /OF_USAGE --device: there is no device 'h100x9'/);
  }));

test.run();
