/** The programs in Python that pages show, in a folder made by the command above them: SmolLM2 stands where they say smol. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import { ROOT } from '../../helpers/paths.js';
import { skip, suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { blocksOf } from '../../published/commands.js';

const test = suite('corpus: python of pages');

for (const page of ['README.md', 'docs/quickstart.md']) {
  test(`${page}: onnxruntime-genai generates from the folder`, () =>
    inWorkspace(async (folder) => {
      const model = process.env['ONNX_FUSE_SMOLLM2'] ?? '';
      if (!existsSync(model)) skip('ONNX_FUSE_SMOLLM2 names no model.onnx (../shared/tools/smollm2/make.py makes one)');
      const python = process.env['ONNX_FUSE_PYTHON'] || 'python3';
      if (spawnSync(python, ['-c', 'import onnxruntime_genai']).status !== 0)
        skip('there is no Python with onnxruntime_genai (ONNX_FUSE_PYTHON names one)');
      const made = await runCli(dirname(model), join(folder, 'smol-fused'), '--remove-attention', '29', '--no-verify');
      assert.is(made.code, 0, made.stderr);
      const programs = blocksOf(readFileSync(join(ROOT, page), 'utf8')).filter(({ language }) => language === 'python');
      assert.is(programs.length, 1);
      for (const { text } of programs) {
        const { status, stdout, stderr } = spawnSync(python, ['-c', text], { cwd: folder, encoding: 'utf8' });
        assert.is(status, 0, stderr);
        assert.match(stdout, /^The lady of the house\b/, stdout);
        assert.ok(stdout.trim().split(/\s+/).length > 10, stdout);
      }
    }));
}

test.run();
