/** Small files: what a figure that is no finite number becomes. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import * as assert from 'uvu/assert';
import { jsonOf, readJson, writeJson } from '../../../api/basics/small-file.js';
import { errors } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('small files');

/** Any value of JSON, infinite numbers and texts that look like them included. */
const values = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, null, 0, 'infinite+', 'infinite!-', '1e999'),
    fc.string(),
    fc.double({ noNaN: true }).map((each) => each + 0),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom('kl', 'infinite+', 'a', 'b'), tie('value'), { noNullPrototype: true }),
  ),
})).value;

test('infinite numbers survive in JSON, and everything else is written as ever', () => {
  assert.is(jsonOf({ kl: Number.POSITIVE_INFINITY, top1: [-1 / 0, 0.5] }), '{"kl":1e999,"top1":[-1e999,0.5]}');
  assert.is(jsonOf({ a: [1, 'x'], b: null }, 2), JSON.stringify({ a: [1, 'x'], b: null }, null, 2));
  fc.assert(
    fc.property(values, (value) => {
      assert.equal(JSON.parse(jsonOf(value)), value);
    }),
  );
});

test('a file of JSON that an editor of Windows wrote is read: a mark in front, and its line ends', () =>
  inWorkspace((folder) => {
    const path = join(folder, 'plan.json');
    writeFileSync(path, '\ufeff{\r\n  "kl": 0.05\r\n}\r\n');
    assert.equal(
      readJson(path, (_, why) => errors.usage(path, why, '')),
      { kl: 0.05 },
    );
  }));

test('a file gives back what was written into it', () =>
  inWorkspace((folder) => {
    const path = join(folder, 'figures.json');
    const figures = { worst: Number.POSITIVE_INFINITY, rows: [{ kl: -0.25 }] };
    writeJson(path, figures);
    const read = () => readJson(path, (_, why) => errors.usage(path, why, ''));
    assert.equal(read(), figures);
    writeFileSync(path, '{ "worst": Infinity }');
    assert.throws(read, /it is no JSON/);
  }));

test.run();
