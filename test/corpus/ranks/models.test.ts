/** Models of several exporters in real processes over gloo. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { readRanks } from '../../../api/shard/ranks-file.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { findCorpus } from '../folder.js';
import { checkRun, ONCE } from './check-run.js';

const test = suite('corpus: models on ranks');
const corpus = findCorpus();
const TALES12 = join(corpus, 'tales12/tales12-ts17-fp32.onnx');

for (const ranks of [2, 4]) {
  // Two heads of keys and values: pairs of four ranks hold the same ones.
  test(`tales12 on ${ranks} ranks, its key-value heads shared where there are more`, () =>
    inWorkspace(async (folder) => {
      const { branches } = await checkRun(TALES12, folder, ranks, ONCE);
      assert.ok(branches.every(({ reason }) => reason === null));
    }));
}

test('caches that onnxruntime writes in place, learned positions, and a model without caches', () =>
  inWorkspace(async (folder) => {
    const genai = join(corpus, 'genai/babyllama105-fp32-cpu/model.onnx');
    await checkRun(genai, folder, 2, [1, 5, 9, 13]);
    const { chain } = readRanks(join(folder, 'model.onnx-2'));
    assert.ok(chain?.caches.every(({ in_place }) => in_place));
    await checkRun(join(corpus, 'torch/gpt2-ts17-kv.onnx'), folder, 2, [1, 5, 9, 13]);
    await checkRun(join(corpus, 'torch/stories260K-ts17-eager.onnx'), folder, 2, [1, 5, 9, 13]);
  }));

test.run();
