import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { Diagnostic } from '../../../ir/diagnostic.js';
import { suite } from '../../helpers/suite.js';
import { checkGates } from '../../runtime/choose/gate-check.js';
import { findCorpus, indexedModels } from '../folder.js';

const test = suite('corpus: gates');
const corpus = findCorpus();

/** Files whose graphs can have no gates, and why. */
const WITHOUT: readonly [RegExp, RegExp][] = [
  [/genai\/(granite|olmo|phi3|qwen3)/, /the exporter wired the head to an earlier layer/],
  // The stream is flattened around each FFN.
  [/opt-ts17/, /what layer 2 reads of layer 1 has no gate/],
];

test('plans on the decoders of others through gates are the rewritten graphs', async () => {
  const files = indexedModels(corpus).filter(({ file, runs }) => runs === 'runs' && !file.startsWith('public/'));
  let count = 0;
  for (const { file } of files) {
    const path = join(corpus, file);
    try {
      const { plan, tolerance, changing } = await checkGates(path);
      if (process.env['VERBOSE']) console.log(file, plan.toExponential(1), tolerance, changing);
      if (changing > 0) count++;
    } catch (error) {
      if (!(error instanceof Diagnostic)) throw error;
      const known = WITHOUT.some(([name, why]) => name.test(file) && why.test(error.message));
      if (process.env['VERBOSE']) console.log(file, error.message);
      else assert.ok(known, `${file}: ${error.message}`);
    }
  }
  assert.ok(count >= 40, `${count} files`);
});

test.run();
