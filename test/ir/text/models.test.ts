import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { Diagnostic, type Model, openModel, parseModel, printModel, verifyModel } from '../../../ir/index.js';
import { encodeModel } from '../../../ir/proto/encode.js';
import { listSharedModels, needSharedModels } from '../../helpers/shared-models.js';
import { suite } from '../../helpers/suite.js';
import { resolverOf } from './fixtures.js';

const test = suite('ir/text and ir/verify on real models');

function* openable(root: string): Generator<[file: string, model: Model]> {
  for (const file of listSharedModels()) {
    let model: Model;
    try {
      model = openModel(join(root, file));
    } catch (error) {
      // The tests of ir/proto say which files are no valid models.
      if (error instanceof Diagnostic) continue;
      throw error;
    }
    yield [file, model];
  }
}

/** The encoded pieces, weights by what identifies them: nothing is read. */
function encodedKeys(model: Model): string[] {
  return encodeModel(model).chunks.map((chunk) =>
    chunk instanceof Uint8Array ? Buffer.from(chunk).toString('latin1') : chunk.key,
  );
}

test('every model prints, parses, prints the same text again, encodes to the same bytes, and violates no invariant', () => {
  const root = needSharedModels('text round trip and verification of real models');
  if (root === null) return;
  let count = 0;
  for (const [file, model] of openable(root)) {
    const text = printModel(model);
    const parsed = parseModel(text, { resolve: resolverOf(model) });
    assert.ok(printModel(parsed) === text, `${file}: prints differently after parsing`);
    const [found, expected] = [encodedKeys(parsed), encodedKeys(model)];
    assert.is(found.length, expected.length, file);
    assert.ok(
      found.every((key, i) => key === expected[i]),
      `${file}: encodes to other bytes after parsing`,
    );
    assert.equal(verifyModel(model), [], file);
    assert.equal(verifyModel(parsed), [], `${file}, parsed`);
    count++;
  }
  assert.ok(count > 200, `only ${count} models`);
});

test.run();
