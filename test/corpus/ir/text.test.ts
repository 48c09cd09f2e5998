import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { Diagnostic, type Model, openModel, parseModel, printModel, verifyModel } from '../../../ir/index.js';
import { encodeModel } from '../../../ir/proto/encode.js';
import { suite } from '../../helpers/suite.js';
import { resolverOf } from '../../ir/text/fixtures.js';
import { findCorpus, modelFiles } from '../folder.js';

const test = suite('corpus: text and invariants');
const corpus = findCorpus();

function* openable(): Generator<[file: string, model: Model]> {
  for (const file of modelFiles(corpus)) {
    let model: Model;
    try {
      model = openModel(join(corpus, file));
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
  let count = 0;
  for (const [file, model] of openable()) {
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
