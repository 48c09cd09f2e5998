import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openModel } from '../../../ir/index.js';
import { ForcedScorer, tokenBatches } from '../../../runtime/quality/forced.js';
import { measureQuality } from '../../../runtime/quality/quality.js';
import { withSession } from '../../../runtime/session/session.js';
import { readSignature } from '../../../runtime/signature/signature.js';
import { suite } from '../../helpers/suite.js';
import { findCorpus } from '../folder.js';

const test = suite('corpus: quality');
const corpus = findCorpus();

test('trained models reach the loss on held-out text that was measured elsewhere', async () => {
  const file = join(corpus, 'tales12', 'tales12-ts17-fp32.onnx');
  const signature = readSignature(openModel(file));
  const lines = readFileSync(join(corpus, 'tales12', 'tales12.heldout.jsonl'), 'utf8')
    .trim()
    .split('\n');
  const batches = tokenBatches(
    lines.map((line) => (JSON.parse(line) as number[]).slice(0, 192)),
    signature,
  );
  await withSession(file, {}, async (session) => {
    const scorer = new ForcedScorer(session, signature);
    const same = (batch: (typeof batches)[number]) => scorer.scores(batch);
    const { originalPerplexity } = await measureQuality(batches.slice(0, 1), same, same);
    // 0.751 nats over all of it (README.md beside the model); a third of the rows is within a few hundredths.
    const loss = Math.log(originalPerplexity);
    assert.ok(Math.abs(loss - 0.751) <= 0.05, `${loss} nats`);
  });
});

test.run();
