/** Changed models in real processes over gloo. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { fuse } from '../../../api/index.js';
import { ROOT } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { findCorpus } from '../folder.js';
import { checkRun, ONCE } from './check-run.js';
import { torchPython } from './processes.js';

const test = suite('corpus: fused models on ranks');
const TALES12 = join(findCorpus(), 'tales12/tales12-ts17-fp32.onnx');

test('fused and recovered: one all-reduce a run', () =>
  inWorkspace(async (folder) => {
    torchPython();
    const removeAttention = [3, 4, 5, 6, 7, 8];
    const [fused, recovered] = [join(folder, 'fused.onnx'), join(folder, 'recovered.onnx')];
    await fuse({ input: TALES12, output: fused, removeAttention, verify: false });
    // 3-8 lose their attention, and all FFNs but the last one become one.
    assert.is((await checkRun(fused, folder, 2, ONCE)).token.allReduces, 24 - 6 - 4);
    const data = ['--recover', '--data', join(ROOT, 'CHANGELOG.md'), '--max-tokens', '4000', '--no-verify', '--quiet'];
    const { code, stderr } = await runCli(TALES12, recovered, '--remove-attention', '3-8', ...data);
    assert.is(code, 0, stderr);
    for (const ranks of [2, 4]) {
      assert.is((await checkRun(recovered, folder, ranks, ONCE)).token.allReduces, 24 - 6 - 4);
    }
  }));

test.run();
