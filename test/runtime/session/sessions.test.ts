/** Sessions that are opened when they are needed: which are kept, and which are released for want of memory. */
import * as assert from 'uvu/assert';
import { Diagnostic, openModel, referenceOf } from '../../../ir/index.js';
import { weightBytes } from '../../../runtime/session/memory.js';
import { Sessions } from '../../../runtime/session/sessions.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';

const test = suite('runtime: sessions');

test('those that were used longest ago are released where memory has no room for one more', async () => {
  const model = openModel(TALES12);
  const bytes = weightBytes(model);
  const location = { ...referenceOf(model), weightBytes: bytes };
  const made: string[] = [];
  /** What the next questions for free memory get; then there is plenty. */
  const answers: number[] = [];
  const sessions = new Sessions({}, () => answers.shift() ?? Number.POSITIVE_INFINITY);
  const use = (name: string, meanwhile = async () => {}): Promise<void> => {
    const make = (): typeof location => {
      made.push(name);
      return location;
    };
    return sessions.use(name, make, async (session) => {
      await meanwhile();
      assert.ok(session.inputs.length > 0);
    });
  };
  try {
    for (const name of ['a', 'b', 'a']) await use(name);
    assert.equal(made.splice(0), ['a', 'b'], 'both are kept');

    answers.push(bytes);
    for (const name of ['c', 'a', 'b']) await use(name);
    assert.equal(made.splice(0), ['c', 'b'], 'b was used before a, and it alone was released');

    await use('a', () => {
      answers.push(...Array(6).fill(bytes));
      return use('d');
    });
    answers.length = 0;
    for (const name of ['a', 'c']) await use(name);
    assert.equal(made.splice(0), ['d', 'c'], 'one in use is not released');

    answers.push(...Array(9).fill(bytes - 1));
    let found: unknown;
    await use('e').catch((error: unknown) => {
      found = error;
    });
    assert.is(found instanceof Diagnostic && found.code, 'OF_MEMORY');
  } finally {
    await sessions.release();
  }
});

test.run();
