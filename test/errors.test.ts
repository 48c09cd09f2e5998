/** The catalogues of errors: all errors come from them, their page is true, and only the command line speaks of flags. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { EXIT_CODES, renderDiagnostic } from '../cli/text/diagnostic.js';
import { FLAGS, MENTION, withFlags } from '../cli/text/flags.js';
import { Diagnostic, errors } from '../ir/index.js';
import { runtimeErrors } from '../runtime/session/errors.js';
import { GOLDEN_ROOT, ROOT } from './helpers/paths.js';
import { suite } from './helpers/suite.js';
import { CATALOGUES, ENTRIES, ERROR_PAGE, errorPage } from './pages/error-page.js';

const test = suite('errors');

/** Layers that know no command line. */
const LOWER = ['ir', 'passes', 'runtime', 'api'];

const sources = [...LOWER, 'cli'].flatMap((layer) =>
  readdirSync(join(ROOT, layer), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `${layer}/${file.replaceAll('\\', '/')}`)
    .map((file) => ({ file, layer, code: codeIn(readFileSync(join(ROOT, file), 'utf8')) })),
);

/** A source without its comments. */
function codeIn(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');
}

/** Errors that are made beside the catalogues. */
function strayErrors(file: string, code: string): string[] {
  const found = [...code.matchAll(/['"`]OF_\w*/g)].map(([match]) => `${file}: ${match}`);
  if (Object.hasOwn(CATALOGUES, file)) found.length = 0;
  else if (/\bcatalogue\(/.test(code)) found.push(`${file}: a catalogue that no page knows`);
  if (file !== 'ir/diagnostic.ts' && /\bnew Diagnostic\b/.test(code)) found.push(`${file}: new Diagnostic`);
  return found;
}

/** Flags in a layer that knows none. Styles have variables that look like them. */
function flagsIn(file: string, code: string): string[] {
  if (file === 'api/page/style.ts') return [];
  return [...code.matchAll(/(?<![\w-])--(?:[a-z][\w-]*|\$\{)/g)].map(([match]) => `${file}: ${match}`);
}

test('docs/errors.md is what the catalogues say', () => {
  const found = existsSync(ERROR_PAGE) ? readFileSync(ERROR_PAGE, 'utf8') : '';
  assert.is(found, errorPage(), 'if the catalogues are right: npm run docs');
});

test('an entry has a code, a sentence of what it means, and a remedy', () => {
  for (const { code, about, remedy } of ENTRIES) {
    assert.match(code, /^OF_[A-Z]+(_[A-Z]+)*$/);
    assert.match(about, /^\p{L}.*[^.]\.$/u, code);
    assert.is.not(remedy, '', code);
    assert.not.match(`${about} ${remedy}`, /--/, code);
  }
});

test('a code is one error, or one for each who has to act', () => {
  const keys = ENTRIES.map(({ code, kind }) => `${code} ${kind}`);
  assert.equal(
    keys.filter((key, i) => keys.indexOf(key) !== i),
    [],
  );
});

test('every error comes from a catalogue, and is recognised without its code', () => {
  assert.is(sources.flatMap(({ file, code }) => strayErrors(file, code)).join('\n'), '');
});

test('no layer below the command line names a flag', () => {
  const lower = sources.filter(({ layer }) => LOWER.includes(layer));
  assert.is(lower.flatMap(({ file, code }) => flagsIn(file, code)).join('\n'), '');
});

test('every option that a layer below mentions has its flag, and every flag is there', () => {
  const texts = sources.filter(({ layer }) => LOWER.includes(layer)).map(({ code }) => code);
  const mentioned = new Set(texts.flatMap((code) => [...code.matchAll(MENTION)].map(([, option]) => option as string)));
  assert.equal([...mentioned].sort(), [...FLAGS.keys()].sort());
  const help = readFileSync(join(GOLDEN_ROOT, 'cli', 'help.txt'), 'utf8');
  for (const flag of FLAGS.values()) {
    const [word = ''] = flag.replace('--no-', '--').split(' ');
    assert.match(help, new RegExp(`^ .*${word}\\s`, 'm'), flag);
  }
});

test('the command line adds the flags', () => {
  assert.is(
    withFlags('fuse without the check (option verify), or option keep-last'), //
    'fuse without the check (--no-verify), or --keep-last',
  );
  assert.is(
    withFlags("it has no option 'verify', and no option of another name"), //
    "it has no option 'verify', and no option of another name",
  );
  const error = runtimeErrors.cannotFeed('mask', 'it is of strings');
  assert.match(error.message, /\(option verify\)$/);
  assert.match(renderDiagnostic(error), /^onnx-fuse: OF_CANNOT_FEED graph input 'mask': .*\(--no-verify\)\n$/);
});

test('an error knows its entry, and the kind decides the exit code', () => {
  const error = errors.noSuchFile('a.onnx');
  assert.ok(error instanceof Diagnostic);
  assert.is(error.message, 'OF_NO_SUCH_FILE a.onnx: there is no such file; check the path');
  assert.ok(errors.noSuchFile.is(error));
  assert.not.ok(errors.readFailed.is(error));
  assert.not.ok(errors.noSuchFile.is(new Error(error.message)));
  assert.equal(EXIT_CODES, { model: 1, usage: 2, system: 1 });
});

test('a breach is noticed', () => {
  assert.is(strayErrors('api/x.ts', "throw new Diagnostic('OF_X', 'usage', '', '', '')").length, 2);
  assert.is(strayErrors('cli/x.ts', "if (error.code === 'OF_X') return").length, 1);
  assert.is(strayErrors('runtime/x.ts', 'export const more = catalogue({})').length, 1);
  assert.is(flagsIn('runtime/x.ts', "'use --force'").length, 1);
  assert.is(flagsIn('runtime/x.ts', ['`--', '{name}`'].join('$')).length, 1);
  assert.is(flagsIn('runtime/x.ts', 'for (; i > 0; i--) x--y').length, 0);
});

test.run();
