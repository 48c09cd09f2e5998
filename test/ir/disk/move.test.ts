/** Moving files on Windows, where somebody else may hold one for a moment. The system here is made up: nothing ran on Windows. */
import * as assert from 'uvu/assert';
import { type MovingSystem, moveFile } from '../../../ir/disk/move.js';
import { suite } from '../../helpers/suite.js';

const test = suite('ir/disk move');

/** A system on which renaming fails with these codes, one after another, and then works. */
function madeUp(platform: string, ...codes: string[]): MovingSystem & { renamed: string[]; waited: number[] } {
  const left = [...codes];
  const renamed: string[] = [];
  const waited: number[] = [];
  return {
    platform,
    renamed,
    waited,
    rename(from, to) {
      const code = left.shift();
      if (code !== undefined) throw Object.assign(new Error(`${code}: rename`), { code });
      renamed.push(`${from} -> ${to}`);
    },
    wait: (ms) => void waited.push(ms),
  };
}

test('on Windows a file that is held for a moment is moved when it is let go, whatever code says so', () => {
  for (const code of ['EPERM', 'EACCES', 'EBUSY']) {
    const system = madeUp('win32', code, code, code);
    moveFile('a', 'b', system);
    assert.equal(system.renamed, ['a -> b'], code);
    assert.is(system.waited.length, 3, code);
  }
});

test('it gives up after about two seconds, with what the system said', () => {
  const system = madeUp('win32', ...Array<string>(50).fill('EBUSY'));
  assert.throws(() => moveFile('a', 'b', system), /EBUSY/);
  const sum = system.waited.reduce((a, b) => a + b, 0);
  assert.ok(sum >= 1500 && sum <= 2500, `${sum} ms`);
});

test('what is wrong for good is said at once: another code, or another system', () => {
  for (const system of [madeUp('win32', 'ENOENT'), madeUp('linux', 'EPERM'), madeUp('darwin', 'EBUSY')]) {
    assert.throws(() => moveFile('a', 'b', system), /rename/);
    assert.equal([system.waited, system.renamed], [[], []]);
  }
});

test.run();
