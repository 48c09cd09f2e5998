/** Cases: plans are what was measured, and evidence is of the model that it is shown with. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { caseFile, fuseCase, fusedRuns, removedFrom } from './cases.js';

const test = suite('cases: plans');
const file = (name: string) => caseFile('plans', name);

for (const plan of ['plan-gap-silent.json', 'plan-gap.json']) {
  test(`a run over a gap in the numbers is applied as it was measured: ${plan}`, () =>
    inWorkspace(async (folder) => {
      const fused = await fuseCase(folder, file('gap-in-layers.onnx'), '--plan', file(plan), '--force');
      if (fused.code !== 0) {
        assert.match(fused.stderr, /OF_PLAN/);
        return;
      }
      const runs = fusedRuns(fused.report as NonNullable<typeof fused.report>).map((layers) => layers.join());
      assert.equal(runs, [plan === 'plan-gap.json' ? '3,5,6' : '2,3,5,6']);
    }));
}

test('a plan of a config file does not beat the command line', () =>
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
    if (fused.code !== 0) assert.match(fused.stderr, /plan/);
    else {
      assert.equal(removedFrom(fused, 'attention'), [2, 3]);
    }
  }));

for (const name of ['merged-decoder.onnx', 'layers-as-functions.onnx']) {
  test(`plan works on it: ${name}`, () =>
    inWorkspace(async (folder) => {
      const output = join(folder, 'plan.json');
      const { code, stderr } = await runCli(
        ...['plan', file(name), '-o', output, '--data', file('ids.jsonl'), '--max-kl', '1'],
        ...['--max-evaluations', '2', '--device', 'h100x8', '--quiet'],
      );
      assert.is(code, 0, stderr);
    }));
}

test('figures of another model are not drawn as those of this plan', () =>
  inWorkspace(async (folder) => {
    const page = join(folder, 'page.html');
    const { code, stderr } = await runCli(
      ...['report', file('plan-3-5.json'), '--verify', file('vj.json'), '--bench', file('bench.json'), '-o', page],
    );
    assert.not(code === 0, stderr);
    assert.match(stderr, /OF_(EVIDENCE|PLAN)/);
  }));

test.run();
