/** SmolLM2, a trained model of 30 layers with a tokenizer, in real processes over gloo. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { skip, suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { checkRun } from './check-run.js';
import { runRanks } from './processes.js';

const test = suite('corpus: SmolLM2 on ranks');

test('SmolLM2, by its tokenizer', () =>
  inWorkspace(async (folder) => {
    const path = process.env['ONNX_FUSE_SMOLLM2'] ?? '';
    if (!existsSync(path)) skip('ONNX_FUSE_SMOLLM2 names no model.onnx (../shared/tools/smollm2/make.py makes one)');
    for (const ranks of [2, 4]) await checkRun(path, folder, ranks, [504, 3575, 282, 4649, 314]);
    const out = join(folder, 'model.onnx-2');
    const [first] = await runRanks(out, 2, ['--prompt', 'The capital of France is', '--tokens', '8']);
    assert.match(first?.stdout ?? '', /^The capital of France is Paris/);
  }));

test.run();
