/** How weights come to a folder that onnxruntime-genai loads, on file systems and for users that may not make links. */
import { copyFileSync, linkSync, lstatSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { bring } from '../../../runtime/bench/genai-times.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('runtime: folders for onnxruntime-genai');

const refused = (): never => {
  throw Object.assign(new Error('EPERM: operation not permitted'), { code: 'EPERM' });
};

test('weights are linked, else linked by name, else copied', () =>
  inWorkspace((folder) => {
    const real = join(folder, 'weights.data');
    writeFileSync(real, 'weights');
    const kinds = [
      [linkSync, symlinkSync, copyFileSync],
      [refused, symlinkSync, copyFileSync],
      [refused, refused, copyFileSync],
    ].map((ways, index) => {
      const target = join(folder, `${index}.data`);
      bring(real, target, ways);
      assert.is(readFileSync(target, 'utf8'), 'weights');
      const found = lstatSync(target);
      return found.isSymbolicLink() ? 'link' : found.ino === lstatSync(real).ino ? 'same file' : 'copy';
    });
    assert.equal(kinds, ['same file', 'link', 'copy']);
    assert.throws(() => bring(real, join(folder, 'none'), [refused, refused, refused]), /EPERM/);
  }));

test.run();
