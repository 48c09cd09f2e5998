/** What is said while work is going on, where there is no terminal: in logs. */
import * as assert from 'uvu/assert';
import { stderrTalk } from '../../../api/basics/progress.js';
import { suite } from '../../helpers/suite.js';

const test = suite('progress');

/** What a log holds after work in so many steps, each of which takes so long. */
function logOf(steps: number, msPerStep: number, unit?: 'bytes'): string[] {
  const lines: string[] = [];
  let time = 1e6;
  const stream = { write: (text: string) => lines.push(text) };
  const talk = stderrTalk({ stream, now: () => time });
  for (let done = 0; done <= steps; done++) {
    talk.progress('working', done, steps, unit);
    time += msPerStep;
  }
  talk.done();
  return lines;
}

test('long work gets a line for each ten per cent, however many steps it has', () => {
  const lines = logOf(1000, 100);
  assert.is(lines.length, 10);
  assert.is(lines[0], 'working: 10 %, 100 of 1000, 90 s left\n');
  assert.is(lines[9], 'working: 100 %, 1000 of 1000, 0 s left\n');
  const few = logOf(3, 60_000).map((line) => /working: (\d+) %/.exec(line)?.[1]);
  assert.equal(few, ['30', '60', '100']);
});

test('short work says nothing, and what becomes long begins where it is', () => {
  assert.equal(logOf(1000, 1), []);
  const percents = logOf(1000, 5).map((line) => /working: (\d+) %/.exec(line)?.[1]);
  assert.equal(percents, ['40', '50', '60', '70', '80', '90', '100']);
});

test('no line holds NaN or Infinity, also where there is nothing to do', () => {
  for (const unit of [undefined, 'bytes'] as const) {
    for (const line of [...logOf(0, 5000, unit), ...logOf(1, 5000, unit)]) assert.not.match(line, /NaN|Infinity/);
  }
});

test.run();
