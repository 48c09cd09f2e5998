/** Every row of the cases' INDEX.md has a test in this folder: what runs them all must not miss one. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { suite } from '../../helpers/suite.js';
import { caseFile } from './cases.js';

const test = suite('cases: rows');

/** The first cells of all rows. */
function rowNames(): string[] {
  return readFileSync(caseFile('INDEX.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| case |'))
    .map((line) => (line.split(' | ')[0] as string).slice(2));
}

/** What a row's tests are called after: its files, `(any ...)`, or, where it tells a story, its first two words. */
function keysOf(name: string): string[] {
  if (name.startsWith('(')) return [name];
  let plain = name.replaceAll('`', '');
  for (let before = ''; before !== plain; ) [before, plain] = [plain, plain.replace(/\s*\([^()]*\)/g, '')];
  const files = (plain.split(/[;:]/)[0] as string).split(/, | \+ /).map((each) => each.trim().replace(/\/\*$/, ''));
  return files[0]?.includes(' ') ? [files[0].split(' ').slice(0, 2).join(' ')] : files;
}

test('no row is without a test', () => {
  const folder = fileURLToPath(new URL('.', import.meta.url));
  const tests = readdirSync(folder).filter((file) => file.endsWith('.test.js') && file !== 'rows.test.js');
  const text = tests.map((file) => readFileSync(join(folder, file), 'utf8')).join('\n');
  // A title, or a file in a table: a string that begins with the key, with its folder or without.
  const isNamed = (key: string): boolean => {
    const [, at = '', rest = ''] = /^([\w-]+\/)?(.*)$/.exec(key) ?? [];
    const pattern = (part: string) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace('\\.\\.\\.', '[\\w-]+');
    return new RegExp(`['"\`](?:${pattern(at)})?${pattern(rest)}`).test(text);
  };
  const names = rowNames();
  assert.ok(names.length >= 40, `${names.length} rows`);
  assert.equal(
    names.flatMap(keysOf).filter((key) => !isNamed(key)),
    [],
  );
});

test.run();
