import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { checkBytes } from '../../helpers/rank-bytes.js';
import { suite } from '../../helpers/suite.js';
import { findCorpus } from '../folder.js';

const test = suite('corpus: ranks');
const corpus = findCorpus();

test('the bytes add up for models of other exporters, packed and quantised ones among them', () => {
  const files = [
    'phi3-ts17-eager',
    'gpt2-ts17-kv',
    'stories260K-dynamo24-kv',
    'gpt_neox-dynamo18-sdpa',
    'opt-ts17-eager',
  ];
  const paths = [...files.map((name) => `torch/${name}.onnx`), 'genai/babyllama105-int4-cpu/model.onnx'];
  for (const path of paths) {
    assert.is(checkBytes(join(corpus, path), { ranks: 2, style: 'ort', lmHead: 'gather', refuse: false }), null, path);
  }
});

test.run();
