import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { fuse } from '../../../api/index.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { findCorpus } from '../folder.js';

const test = suite('corpus: bfloat16');

test('a bfloat16 export for CUDA is run through its twin', () =>
  inWorkspace(async (folder) => {
    const input = join(findCorpus(), 'genai', 'llama-bf16-cuda', 'model.onnx');
    // Its head reads the first layer (the exporter's mistake), so that only this one has an effect on the scores.
    const { checks } = await fuse({ input, output: join(folder, 'out.onnx'), removeAttention: [0] });
    assert.is(checks.skipped, null);
    assert.is(checks.algebra?.precision, 'bfloat16 (through an fp32 twin)');
    assert.ok(checks.algebra?.pass && checks.algebra.positions > 0);
    assert.ok(checks.drift && (checks.drift.kl ?? 0) > 0);
  }));

test.run();
