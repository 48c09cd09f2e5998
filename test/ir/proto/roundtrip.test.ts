/** Bytes to bytes, on whole models of our own: the trained one, and every model of a golden file. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openModel, openModelBytes, saveModel, verifyModel } from '../../../ir/index.js';
import { registry } from '../../../passes/index.js';
import { GOLDEN_ROOT, readGoldenTree } from '../../helpers/golden.js';
import { goldenModel } from '../../helpers/golden-check.js';
import { TALES12 } from '../../helpers/paths.js';
import { writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { roundTrip, roundTripBytes } from '../text/fixtures.js';
import { encoded, withFolder } from './fixtures.js';
import { assertIdentical, assertSecondReaderAgrees, isExternal } from './lossless.js';

const test = suite('bytes to bytes');
const { goldens } = readGoldenTree(GOLDEN_ROOT, [...registry.keys()]);

test('every model of a golden file comes out byte for byte, by way of its text and for a second reader too', () => {
  for (const { name, input } of goldens) {
    const bytes = encoded(goldenModel(input));
    roundTripBytes(bytes);
    assertSecondReaderAgrees(openModelBytes(bytes, '/nowhere'), bytes, name);
  }
  assert.ok(goldens.length > 150, `${goldens.length} golden files`);
});

test('an exported model comes out byte for byte, inside one file and with external data in their old places', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'external.onnx');
    await saveModel(openModel(TALES12), path, { external: true });
    for (const file of [TALES12, path, writeSmallDecoder(folder)]) {
      const [model, bytes] = [openModel(file), readFileSync(file)];
      assert.is(isExternal(model), file !== TALES12);
      assert.equal(verifyModel(model), []);
      assertIdentical(model, bytes, file);
      roundTrip(model);
      assertSecondReaderAgrees(model, bytes, file);
    }
  }));

test.run();
