/** When what fusing saved in some turns counts. */
import * as assert from 'uvu/assert';
import { clearGain } from '../../../runtime/bench/fusion-times.js';
import { suite } from '../../helpers/suite.js';

const test = suite('runtime: what fusing gains');

test('a gain counts where nearly every turn has one, a loss where three of four have', () => {
  assert.is(clearGain([3, 1, 2, 4, 2]), 2);
  assert.is(clearGain([3, -1, 2, 4, 2]), 0, 'one of five is not nearly every turn');
  assert.is(clearGain([3, -1, 2, 4, 2, 2, 2, 2]), 2, 'one of eight is noise');
  assert.is(clearGain([3, -1, 2, 4, -2, 2, 2, 2]), 0);
  assert.is(clearGain([-3, -1, -2, -4, 2, -2, -2, -2]), -2);
  assert.is(clearGain([-3, -1, 2, 4, -2]), 0);
  assert.is(clearGain([0, 0, 0]), 0);
  assert.is(clearGain([]), 0);
});

test.run();
