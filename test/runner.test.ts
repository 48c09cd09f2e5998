import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { suite } from './helpers/suite.js';

const test = suite('test runner');

const HEADER = `import { skip, suite } from '${new URL('./helpers/suite.js', import.meta.url).href}';\nconst test = suite('inner');\n`;
const PASSING = `${HEADER}test('fine', () => {});\ntest.run();\n`;

/** Runs the runner on fixture files (name -> text, after the common header) in a folder of their own. */
function runner(files: Record<string, string>, args: string[] = [], env: NodeJS.ProcessEnv = {}) {
  const root = mkdtempSync(join(tmpdir(), 'onnx-fuse-runner-'));
  try {
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text);
    }
    const run = fileURLToPath(new URL('./run.js', import.meta.url));
    const { status, stdout } = spawnSync(process.execPath, [run, '--root', root, '--minimum', '0', ...args], {
      encoding: 'utf8',
      env: { ...process.env, CI: '', ...env },
    });
    return { status, stdout, last: stdout.trimEnd().split('\n').at(-1) };
  } finally {
    rmSync(root, { recursive: true });
  }
}

function fails(body: string, message: RegExp, last: string, args: string[] = [], env: NodeJS.ProcessEnv = {}): void {
  const result = runner({ 'a.test.mjs': HEADER + body }, args, env);
  assert.match(result.stdout, message);
  assert.is(result.last, last);
  assert.is(result.status, 1);
}

test('passes, with one line per file and the counts last', () => {
  const { status, stdout } = runner({ 'a.test.mjs': PASSING, 'b.test.mjs': PASSING, 'helper.mjs': 'throw 1' });
  assert.match(stdout, /^pass {2}a\.test\.mjs {2}1 tests {2}[\d.]+ s$/m);
  assert.match(stdout, /\n2 passed, 0 failed, 0 skipped\n$/);
  assert.is(stdout.split('\n').length, 4);
  assert.is(status, 0);
});

test('a note of a file that passes is shown, and nothing else that it prints', () => {
  const { stdout } = runner({
    'a.test.mjs': `${HEADER}test('fine', () => { console.log('\\nnote: 3 files\\nchatter'); }); test.run();`,
  });
  assert.match(stdout, /^pass .*\nnote: 3 files\n1 passed/m);
  assert.not.match(stdout, /chatter/);
});

test('a skipped test is named with its reason, and counts neither as passed nor as failed', () => {
  const { status, stdout } = runner({
    'a.test.mjs': `${HEADER}test('fine', () => {}); test('no', async () => { await null; skip('no moon'); }); test.run();`,
    'b.test.mjs': PASSING,
  });
  assert.match(stdout, /^pass {2}a\.test\.mjs {2}1 tests, 1 skipped {2}[\d.]+ s$/m);
  assert.match(stdout, /\nskipped: inner: no: no moon\n2 passed, 0 failed, 1 skipped\n$/);
  assert.is(status, 0);
});

test('a file whose tests are all skipped is no failure', () => {
  const { status, last } = runner({ 'a.test.mjs': `${HEADER}test('a', () => skip('no moon')); test.run();` });
  assert.is(last, '0 passed, 0 failed, 1 skipped');
  assert.is(status, 0);
});

test('skipped tests are no tests that ran', () => {
  const body = `test('a', () => {}); test('b', () => skip('no moon')); test.run();`;
  fails(body, /only 1 tests ran, expected at least 2/, '1 passed, 1 failed, 1 skipped', ['--minimum', '2']);
});

test('what was skipped is said beside a failure, too', () => {
  const body = `test('a', () => skip('no moon')); test('b', () => { throw new Error('boom'); }); test.run();`;
  fails(body, /boom[\s\S]*FAIL[\s\S]*skipped: inner: a: no moon/, '0 passed, 1 failed, 1 skipped');
});

test('runs only the files that a filter names', () => {
  const { status, last } = runner({ 'a.test.mjs': PASSING, 'b.test.mjs': 'throw 1' }, ['a.test']);
  assert.is(last, '1 passed, 0 failed, 0 skipped');
  assert.is(status, 0);
});

test('fails if a filter matches no file', () => {
  const { status, stdout, last } = runner({ 'a.test.mjs': PASSING }, ['a.test', 'nowhere']);
  assert.match(stdout, /no test file matches "nowhere"/);
  assert.is(last, '0 passed, 1 failed, 0 skipped');
  assert.is(status, 1);
});

test('fails below the minimum number of tests', () => {
  const { status, stdout } = runner({ 'a.test.mjs': PASSING }, ['--minimum', '2']);
  assert.match(stdout, /only 1 tests ran, expected at least 2/);
  assert.is(status, 1);
});

test('shows the output of a failing test', () => {
  const body = `test('a', () => {}); test('b', () => { console.log('noise'); throw new Error('boom'); }); test.run();`;
  fails(body, /noise[\s\S]*boom[\s\S]*FAIL {2}a\.test\.mjs {2}1 failed/, '1 passed, 1 failed, 0 skipped');
});

test('fails a suite that never runs, next to one that does', () => {
  const body = `test('a', () => {}); const other = suite('other'); other('b', () => {}); other.run();`;
  fails(body, /suite "inner" never ran/, '1 passed, 1 failed, 0 skipped');
});

test('fails tests added after run()', () => {
  fails(
    `test('a', () => {}); test.run(); test('b', () => {});`,
    /tests after run\(\)/,
    '1 passed, 1 failed, 0 skipped',
  );
});

test('fails a file without tests', () => {
  fails('test.run();', /FAIL {2}a\.test\.mjs {2}ran no tests/, '0 passed, 1 failed, 0 skipped');
});

test('fails an empty suite next to a full one', () => {
  const body = `test.run(); const other = suite('other'); other('b', () => {}); other.run();`;
  fails(body, /suite "inner" has no tests/, '1 passed, 1 failed, 0 skipped');
});

test('fails a file that throws while it loads', () => {
  fails(`throw new Error('early');`, /early[\s\S]*before its tests were done/, '0 passed, 1 failed, 0 skipped');
});

test('fails a file that exits with code 0 before it is done', () => {
  fails(`test('a', () => process.exit(0)); test.run();`, /before its tests were done/, '0 passed, 1 failed, 0 skipped');
});

test('fails a file that dies of a signal', () => {
  fails(`process.kill(process.pid, 'SIGSEGV');`, /killed by SIGSEGV/, '0 passed, 1 failed, 0 skipped');
});

test('stops a file that takes too long', () => {
  const body = `test('a', () => { for (;;); }); test.run();`;
  fails(body, /stopped after 1 s/, '0 passed, 1 failed, 0 skipped', ['--timeout', '1']);
});

test('fails test.only in CI', () => {
  const body = `test('a', () => {}); test.only('b', () => {}); test.run();`;
  fails(body, /test\.only\("b"\)/, '0 passed, 1 failed, 0 skipped', [], { CI: 'true' });
  const { status, last } = runner({ 'a.test.mjs': HEADER + body });
  assert.is(last, '1 passed, 0 failed, 1 skipped');
  assert.is(status, 0);
});

test('tests on the corpus are left alone, and asked for without it they fail in one line', () => {
  const files = { 'a.test.mjs': PASSING, 'corpus/b.test.mjs': 'throw 1' };
  assert.is(runner(files).last, '1 passed, 0 failed, 0 skipped');
  const { status, stdout } = runner(files, ['--corpus', 'nowhere']);
  assert.match(
    stdout,
    /^FAIL {2}there is no corpus in .*nowhere \(no INDEX\.md\); .*\n0 passed, 1 failed, 0 skipped\n$/,
  );
  assert.is(status, 1);
});

test.run();
