/** Colours: for people at terminals, and for whoever says so. */
import { spawnSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { wantsColors } from '../../cli/text/table.js';
import { BIN, TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';

const test = suite('colors');

test('NO_COLOR wins, then FORCE_COLOR, then the terminal', () => {
  for (const [expected, isTerminal, env] of [
    [true, true, {}],
    [false, false, {}],
    [false, true, { NO_COLOR: '1' }],
    [true, true, { NO_COLOR: '' }],
    [true, false, { FORCE_COLOR: '1' }],
    [true, false, { FORCE_COLOR: '3', TERM: 'dumb' }],
    [false, true, { FORCE_COLOR: '0' }],
    [false, true, { FORCE_COLOR: 'false' }],
    [false, false, { FORCE_COLOR: '' }],
    [false, false, { FORCE_COLOR: '1', NO_COLOR: '1' }],
    [false, true, { TERM: 'dumb' }],
  ] as const) {
    assert.is(wantsColors(env, isTerminal), expected, JSON.stringify(env));
  }
});

test('in a pipe, text is plain unless FORCE_COLOR is set', () => {
  const { FORCE_COLOR: _, NO_COLOR: __, ...bare } = process.env;
  const inspect = (env: NodeJS.ProcessEnv): string =>
    spawnSync(process.execPath, [BIN, 'inspect', TALES12], { encoding: 'utf8', env: { ...bare, ...env } }).stdout;
  const plain = inspect({});
  assert.match(plain, /layer/);
  assert.not.ok(plain.includes('\u001b'));
  const colored = inspect({ FORCE_COLOR: '1' });
  assert.ok(colored.includes('\u001b[1m'));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  assert.is(colored.replace(/\u001b\[\d+m/g, ''), plain);
  assert.is(inspect({ FORCE_COLOR: '1', NO_COLOR: '1' }), plain);
});

test.run();
