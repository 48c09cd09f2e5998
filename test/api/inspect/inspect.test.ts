/** What `inspect` counts and names, on models whose numbers are known. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { inspectModel } from '../../../api/inspect/inspect.js';
import { parseGolden } from '../../helpers/golden.js';
import { goldenModel } from '../../helpers/golden-check.js';
import { GOLDEN_ROOT } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';

const test = suite('inspect');

function inspected(name: string) {
  const path = join(GOLDEN_ROOT, 'concat-ffn', `${name}.golden`);
  return inspectModel(goldenModel(parseGolden(readFileSync(path, 'utf8'), path).input), name);
}

/** Embedding, head and three norms of 16. */
const AROUND = 11 * 16 + 16 * 11 + 3 * 16;

test('4-bit matrices count by their elements, not by their bytes and scales, and are named', () => {
  const { model, layers } = inspected('quantised');
  assert.is(model.parameters, AROUND + 2 * 16 * 16 + 2 * 16 * 32);
  assert.equal(
    layers.map(({ ffn }) => ffn.dtype),
    ['int4 (block 16)', 'int4 (block 16)'],
  );
});

test('dequantised matrices count once, whatever their scales are made of', () => {
  for (const name of ['dequantised-blocks', 'dequantised-two-levels']) {
    const { model, layers } = inspected(name);
    assert.is(model.parameters, AROUND + 3 * 16 * 16 + 3 * 16 * 32, name);
    assert.is(layers[0]?.ffn.dtype, 'int4 (block 16)');
  }
});

test('dense matrices are named by their type', () => {
  assert.is(inspected('float16').layers[0]?.ffn.dtype, 'float16');
});

test.run();
