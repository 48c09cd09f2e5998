/** SECURITY.md: every threat has a defence and a test, and both are there. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { ROOT } from './helpers/paths.js';
import { suite } from './helpers/suite.js';

const test = suite('security');

const PAGE = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8');

/** The rows of its tables: threat, defence, test. */
const ROWS = PAGE.split('\n')
  .filter((line) => line.startsWith('| ') && !/^\| threat \|/.test(line))
  .map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );

/** Every test file by the name of its suite. */
const SUITES = new Map<string, string>();
for (const file of readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })) {
  if (!file.endsWith('.test.ts')) continue;
  const text = readFileSync(join(ROOT, 'test', file), 'utf8');
  const name = /\bsuite(?:<[^>]*>)?\('([^']+)'/.exec(text)?.[1];
  if (name !== undefined) SUITES.set(name, (SUITES.get(name) ?? '') + text);
}

/** The suite and the title in `suite: title`, where both have colons in them. */
function testNamed(text: string): boolean {
  return [...SUITES].some(
    ([name, code]) => text.startsWith(`${name}: `) && code.includes(`('${text.slice(name.length + 2)}',`),
  );
}

test('every row has a threat, a defence and a test', () => {
  assert.ok(ROWS.length > 20);
  for (const row of ROWS) assert.ok(row.length === 3 && row.every((cell) => cell !== ''), row.join(' | '));
});

test('every test that it names exists', () => {
  assert.not(testNamed('security: a test that nobody wrote'));
  assert.equal(
    ROWS.map(([, , name]) => name as string).filter((name) => !testNamed(name)),
    [],
  );
});

test('every file that it names exists', () => {
  const files = [...PAGE.matchAll(/`([a-z-]+(?:\/[a-z-]+)+\.ts)`/g)].map(([, file]) => file as string);
  assert.ok(files.length > 8);
  assert.equal(
    files.filter((file) => !existsSync(join(ROOT, file))),
    [],
  );
});

test.run();
