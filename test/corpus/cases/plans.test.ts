/** Cases: plans are what was measured, and evidence is of the model that it is shown with. */
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { assertRefused, caseFile, fuseCase, fusedRuns, mustFuse, removedFrom } from './cases.js';

const test = suite('cases: plans');
const file = (name: string) => caseFile('plans', name);

for (const [plan, run] of [
  ['plan-gap-silent.json', [2, 3, 5, 6]],
  ['plan-gap.json', [3, 5, 6]],
] as const) {
  test(`gap-in-layers + ${plan}: a run over a gap in the numbers is applied as it was measured`, () =>
    inWorkspace(async (folder) => {
      const { chosen } = JSON.parse(readFileSync(file(plan), 'utf8'));
      assert.equal(chosen.runs, [run]);
      const fused = await mustFuse(folder, file('gap-in-layers.onnx'), 1, '--plan', file(plan));
      assert.equal(fusedRuns(fused.report as Report), [run.map(String)]);
      assert.equal(removedFrom(fused, 'attention'), chosen.removeAttention);
    }));
}

test('config-with-plan: the command line beats the plan of a config file', () =>
  inWorkspace(async (folder) => {
    for (const name of ['gap-in-layers.onnx', 'config-with-plan.json', 'plan-gap.json', 'plan-3-5.json']) {
      cpSync(file(name), join(folder, name));
    }
    const config = join(folder, 'config-with-plan.json');
    const fused = await fuseCase(
      folder,
      join(folder, 'gap-in-layers.onnx'),
      '--config',
      config,
      '--remove-attention',
      '2,3',
    );
    assert.is(fused.code, 0, fused.stderr);
    assert.equal(removedFrom(fused, 'attention'), [2, 3]);
    assert.equal(removedFrom(fused, 'ffn'), []);
  }));

for (const name of ['merged-decoder.onnx', 'layers-as-functions.onnx']) {
  test(`${name}: plan and bench --calibrate see its layers, and the plan can be applied`, () =>
    inWorkspace(async (folder) => {
      const output = join(folder, 'plan.json');
      const { code, stderr } = await runCli(
        ...['plan', file(name), '-o', output, '--data', file('ids.jsonl'), '--max-kl', '1'],
        ...['--max-evaluations', '2', '--device', 'h100x8', '--quiet'],
      );
      assert.is(code, 0, stderr);
      const { layers, front } = JSON.parse(readFileSync(output, 'utf8'));
      assert.equal(
        layers.map(({ layer, attention, ffn }: Record<string, unknown>) => [layer, attention, ffn]),
        [0, 1].map((layer) => [layer, name === 'merged-decoder.onnx', true]),
      );
      assert.ok(front.length > 0);
      const applied = await runCli(file(name), join(folder, 'out.onnx'), '--plan', output, '--quiet');
      assert.is(applied.code, 0, applied.stderr);
      const device = join(folder, 'device.json');
      const quick = ['--runtime', 'node', '--rounds', '1', '--prompt', '8', '--decode', '2', '--context', '16'];
      const timed = await runCli('bench', file(name), '--calibrate', device, ...quick, '--quiet');
      assert.is(timed.code, 0, timed.stderr);
      // Sub-blocks were counted: what is left out to measure them is said.
      assert.match(JSON.parse(readFileSync(device, 'utf8')).source, /without 1 (attention|FFN)\b/);
    }));
}

test('plan-3-5 + vj + bench: figures that do not say of which models they are, or are of others, are refused', () =>
  inWorkspace(async (folder) => {
    const page = join(folder, 'page.html');
    const report = (...flags: string[]) => runCli('report', file('plan-3-5.json'), ...flags, '-o', page);
    const refused = async (...flags: string[]) => {
      assertRefused(await report(...flags), /OF_EVIDENCE/, 2);
      assert.not(existsSync(page));
    };
    await refused('--verify', file('vj.json'), '--bench', file('bench.json'));
    await refused('--verify', file('vj.json'));
    await refused('--bench', file('bench.json'));
    // With heads, as verify and bench write them today: the plan's model is the first of both, and the result is one.
    const { model } = JSON.parse(readFileSync(file('plan-3-5.json'), 'utf8'));
    const result = { file: 'out.onnx', bytes: 1, sha256: 'ab'.repeat(32) };
    const headed = (name: string, kind: string, ...files: unknown[]): string => {
      const path = join(folder, `${kind}.json`);
      const body = JSON.parse(readFileSync(file(name), 'utf8'));
      writeFileSync(path, JSON.stringify({ ...body, kind: `onnx-fuse ${kind}`, version: 1, files }));
      return path;
    };
    const other = { ...result, sha256: 'cd'.repeat(32) };
    const verified = headed('vj.json', 'verification', model, result);
    await refused('--verify', verified, '--bench', headed('bench.json', 'benchmark', other, result));
    await refused('--verify', verified, '--bench', headed('bench.json', 'benchmark', model, other));
    const drawn = await report('--verify', verified, '--bench', headed('bench.json', 'benchmark', model, result));
    assert.is(drawn.code, 0, drawn.stderr);
  }));

test.run();
