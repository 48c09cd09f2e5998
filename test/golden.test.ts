import * as assert from 'uvu/assert';
import { registry } from '../passes/index.js';
import { GOLDEN_ROOT, readGoldenTree } from './helpers/golden.js';
import { checkGolden } from './helpers/golden-check.js';
import { suite } from './helpers/suite.js';

const test = suite('golden files');

const accept = process.env['ONNX_FUSE_ACCEPT'] === '1';
const { goldens, problems } = readGoldenTree(GOLDEN_ROOT, [...registry.keys()]);

test('every pass has cases, and every file is one', () => {
  assert.is(problems.join('\n'), '');
});

test('output is not accepted where nobody looks at it', () => {
  assert.not(accept && process.env['CI'] === 'true', 'ONNX_FUSE_ACCEPT is set in CI');
});

for (const golden of goldens) {
  test(golden.name, () => checkGolden(golden, accept && process.env['CI'] !== 'true'));
}

test.run();
