import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { codecFor } from '../../../api/tokens/text-codec.js';
import { loadTokenData } from '../../../api/tokens/token-data.js';
import { suite } from '../../helpers/suite.js';
import { findCorpus } from '../folder.js';

const test = suite('corpus: tokenizers');
const corpus = findCorpus();

test('real tokenizers turn text into the ids that models were trained on, and back', async () => {
  for (const name of ['stories260K', 'babyllama105']) {
    const codec = await codecFor(join(corpus, 'tokenizers', name, 'model.onnx'), null);
    const { sequences } = await loadTokenData(join(corpus, 'text', `${name}.heldout.jsonl`), {
      vocabulary: 512,
      codec,
    });
    const ids = (sequences[0] ?? []).slice(0, 150);
    assert.is(ids.length, 150);
    assert.equal((await codec?.encode(await codec.decode(ids)))?.slice(0, 140), ids.slice(0, 140));
  }
});

test.run();
