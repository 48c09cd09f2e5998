/** Tolerances follow from what a model computes in, and how deep it is. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openModel } from '../../../ir/index.js';
import { toleranceFor } from '../../../runtime/verify/tolerance.js';
import { atFullAccuracy, mayRoundActivations } from '../../../runtime/verify/twin.js';
import { parseGolden } from '../../helpers/golden.js';
import { goldenModel } from '../../helpers/golden-check.js';
import { GOLDEN_ROOT, TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';

const test = suite('tolerance');

const golden = (name: string) => {
  const path = join(GOLDEN_ROOT, `${name}.golden`);
  return parseGolden(readFileSync(path, 'utf8'), path).input;
};

test('half precision gets more with depth, and float stays at its floor', () => {
  // 24 branches: twice 2^-11 times their root.
  assert.equal(toleranceFor(openModel(TALES12)), { relative: 0.0048, precision: 'float16' });
  assert.equal(toleranceFor(goldenModel(golden('concat-ffn/float16'))), { relative: 2e-3, precision: 'float16' });
  assert.equal(toleranceFor(goldenModel(golden('concat-ffn/folded'))), { relative: 1e-5, precision: 'float' });
});

test('a model that may round its activations is compared at full accuracy', () => {
  const text = golden('concat-ffn/quantised').replaceAll(
    'block_size: int = ',
    'accuracy_level: int = 4, block_size: int = ',
  );
  const model = goldenModel(text);
  assert.is(mayRoundActivations(model), true);
  assert.is(toleranceFor(model).precision, 'int8 activations');
  assert.is(mayRoundActivations(atFullAccuracy(model)), false);
  assert.equal(toleranceFor(model), { relative: 1e-5, precision: 'float' });
  const levels = [...model.graph.nodes()].map((node) => node.intAttribute('accuracy_level'));
  assert.is(levels.filter((level) => level === 0).length, 4);
});

test.run();
