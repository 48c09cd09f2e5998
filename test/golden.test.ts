import { readFileSync } from 'node:fs';
import { join } from 'node:path';
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

test('the table of families and element types names cases that fuse and cases that do not', () => {
  const rows = readFileSync(join(GOLDEN_ROOT, 'README.md'), 'utf8').match(/^\| [^|]+ \|[^|]*\|[^|]*\|$/gm) ?? [];
  const fused = (name: string) => goldens.find((golden) => golden.name === name)?.remarks.includes('passed concat-ffn');
  let families = 0;
  for (const row of rows) {
    const [, label = '', fuses = '', mustNot = ''] = row.split('|');
    const names = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] as string);
    for (const name of [...names(fuses), ...names(mustNot)]) {
      assert.ok(
        goldens.some((golden) => golden.name === name),
        `${label}: there is no golden/${name}`,
      );
    }
    assert.ok(/none fuses/.test(label) || names(fuses).some(fused), `${label}: none of its cases fuses`);
    assert.ok(names(mustNot).length > 0, `${label}: no near miss`);
    for (const name of names(mustNot)) assert.not(fused(name), `${label}: ${name} fuses`);
    families++;
  }
  assert.ok(families > 20, `${families} rows`);
});

for (const golden of goldens) {
  test(golden.name, () => checkGolden(golden, accept && process.env['CI'] !== 'true'));
}

test.run();
