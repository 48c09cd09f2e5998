import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { checkCombinedCaches, checkFolder, layersToRemove } from '../../api/folder/genai-folder-check.js';
import { suite } from '../../helpers/suite.js';
import { runCli } from '../../helpers/workspace.js';
import { findCorpus } from '../folder.js';

const genai = suite('corpus: genai folders');
const corpus = findCorpus();
const folders = readdirSync(join(corpus, 'genai')).sort();
const fused: string[] = [];

for (const name of folders) {
  const input = join(corpus, 'genai', name);
  for (const naming of ['preserve', 'compact'] as const) {
    genai(`${name}, --kv-naming ${naming}: caches and configs agree, and the algebra holds`, async () => {
      const removed = await layersToRemove(input);
      if (removed.length === 0) {
        const { code, stderr } = await runCli(
          join(input, 'model.onnx'),
          'out.onnx',
          '--remove-attention',
          '1',
          '--dry-run',
        );
        assert.is(code, 1);
        assert.match(stderr, /^onnx-fuse: OF_CANNOT_REMOVE layer 1: /);
      } else if (await checkFolder(input, removed, naming)) fused.push(name);
    });
  }
}

genai('the trained folders are fused, not only relieved of attention', () => {
  for (const name of folders.filter((folder) => /^(babyllama105|stories260K)-fp/.test(folder))) {
    assert.ok(fused.includes(name), name);
  }
});

genai('a folder of combined caches (GPT-2) is counted from 0 without being asked', () => {
  const folder = 'public/microsoft__onnxruntime-genai/test/models/hf-internal-testing/tiny-random-gpt2-fp32';
  return checkCombinedCaches(join(corpus, folder, 'past.onnx'), 5, [1, 2]);
});

genai.run();
