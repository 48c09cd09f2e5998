/** What the pages say about this repository: every file, folder and link that they name exists. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { ROOT } from './helpers/paths.js';
import { suite } from './helpers/suite.js';
import { SPECS } from './pages/specs.js';
import { commandsOf } from './published/commands.js';
import { deadLinks, linksOf } from './published/links.js';

const test = suite('pages');

/** Files and folders of the repository by path; folders end in a slash. What is built or installed is left out. */
const PATHS = new Set<string>();
(function list(folder: string): void {
  for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
    if (folder === '' && /^(?:\..*|node_modules|dist|demo|shared)$/.test(entry.name)) continue;
    const path = folder + entry.name + (entry.isDirectory() ? '/' : '');
    PATHS.add(path);
    if (entry.isDirectory()) list(path);
  }
})('');

const PAGES = [...PATHS].filter((path) => path.endsWith('.md'));

function textOf(page: string): string {
  return readFileSync(join(ROOT, page), 'utf8');
}

/** Whether a page may call something so: by its path, or by the end of it. */
function isThere(name: string): boolean {
  return PATHS.has(name) || [...PATHS].some((path) => path.endsWith(`/${name}`));
}

/** What pages tell of and the repository does not hold, with the reason. */
const ELSEWHERE = new Set([
  'pattern.ts', // planned, and not built
  'my-pass.ts', // what a reader will write
  'passes/transforms/my-pass.ts',
  'golden/my-pass/',
]);
/** Where packages lie once they are installed. */
const INSTALLED = /^node_modules\//;

test('every source file and room that a page names exists', () => {
  const gone: string[] = [];
  let named = 0;
  for (const page of PAGES) {
    for (const [, name] of textOf(page).matchAll(/`([a-z][\w./-]*(?:\.(?:ts|mjs|wat|md)|\/))`/g)) {
      if (name === undefined || ELSEWHERE.has(name) || INSTALLED.test(name)) continue;
      named++;
      if (!isThere(name)) gone.push(`${page}: ${name}`);
    }
  }
  assert.ok(named > 80, `${named}`);
  assert.equal(gone, []);
});

test('every link of a page leads somewhere, to the heading if it names one', () => {
  const texts = new Map(PAGES.map((page) => [page, textOf(page)]));
  assert.ok([...texts.values()].flatMap(linksOf).length > 60);
  assert.equal(
    deadLinks(texts, (path) => existsSync(join(ROOT, path))),
    [],
  );
});

/** Why Windows could not have a file of that path; null when it could. */
function whyNotOnWindows(path: string): string | null {
  for (const name of path.split('/').filter(Boolean)) {
    if (/[<>:"|?*\\]/.test(name) || [...name].some((character) => character < ' ')) return 'a character';
    if (/[. ]$/.test(name)) return 'its end';
    if (/^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(name)) return 'a device';
  }
  return path.length > 150 ? 'its length' : null;
}

test('every file of the repository can lie on Windows, and has a name of its own there', () => {
  const paths = [...PATHS];
  assert.equal(
    paths.filter((path) => whyNotOnWindows(path) !== null),
    [],
  );
  const small = paths.map((path) => path.toLowerCase());
  assert.equal(
    paths.filter((_, index) => small.indexOf(small[index] as string) !== index),
    [],
  );
  assert.equal(['a/b:c', 'a/aux.ts', 'a./b', 'what?', 'a/b', 'a/console.ts'].map(whyNotOnWindows), [
    'a character',
    'a device',
    'its end',
    'a character',
    null,
    null,
  ]);
});

test('text has the line ends that .gitattributes asks for', () => {
  assert.match(readFileSync(join(ROOT, '.gitattributes'), 'utf8'), /^\* text=auto eol=lf$/m);
  const texts = [...PATHS].filter((path) => /\.(ts|md|golden|txt|json|mjs|py|sh|svg|wat)$/.test(path));
  assert.ok(texts.length > 500, `${texts.length}`);
  assert.equal(
    texts.filter((path) => textOf(path).includes('\r')),
    [],
  );
});

test('the figures at the head of README are those of BENCHMARKS', () => {
  const head = textOf('README.md').split('<img')[0] as string;
  const rows = head.split('\n').filter((line) => line.startsWith('| **'));
  assert.is(rows.length, 3);
  const measured = /^## Recovery[\s\S]*?(?=^## )/m.exec(textOf('BENCHMARKS.md'))?.[0] ?? '';
  // 1.15 stands there as 1.148, as it was measured.
  const isThere = (figure: string): boolean =>
    [...measured.matchAll(/\d+(?:\.\d+)?/g)].some(([each]) => {
      const digits = figure.split('.')[1]?.length ?? 0;
      return each === figure || (digits > 0 && each.length > figure.length && Number(each).toFixed(digits) === figure);
    });
  const figures = rows.flatMap((row) => row.match(/\d+\.\d+|\d+(?= (?:%|instead|KiB|MB))/g) ?? []);
  assert.ok(figures.length >= 10, figures.join());
  assert.equal(
    figures.filter((figure) => !isThere(figure)),
    [],
  );
});

test('what a page tells its reader to type is found: blocks, transcripts, tables, workflows, programs', () => {
  const page = [
    'Type',
    '',
    '    npm ci && npm test',
    '    second',
    '```sh',
    '# a remark',
    'onnx-fuse a b   # and why',
    '```',
    '```',
    '$ onnx-fuse c --prompt "x # y"',
    'what it printed',
    '```',
    '| I want | `onnx-fuse d`, later `torchrun e`, not `f` |',
    '```yaml',
    '      - run: npx onnx-fuse g',
    '        with: { path: "x" }',
    '```',
    '```ts',
    'const a = 1;',
    'const b = 2;',
    '```',
    'a list',
    '    that goes on',
  ].join('\n');
  assert.equal(
    commandsOf(page).map(({ line, command, inTable, language }) => [line, command, inTable, language]),
    [
      [3, 'npm ci && npm test', false, 'sh'],
      [4, 'second', false, 'sh'],
      [7, 'onnx-fuse a b', false, 'sh'],
      [10, 'onnx-fuse c --prompt "x # y"', false, 'sh'],
      [13, 'onnx-fuse d', true, 'sh'],
      [13, 'torchrun e', true, 'sh'],
      [15, 'npx onnx-fuse g', false, 'sh'],
      [19, 'const a = 1;\nconst b = 2;', false, 'ts'],
    ],
  );
  assert.throws(() => commandsOf('```sh\nopen'), /not closed/);
  // None of them may be lost without a word.
  const counts = ['README.md', 'docs/quickstart.md', 'docs/ci.md'].map((each) => commandsOf(textOf(each)).length);
  counts.forEach((count, index) => {
    assert.ok(count >= ([28, 8, 9][index] as number), counts.join());
  });
});

test('every flag that a page gives to onnx-fuse is one of that command', () => {
  const flagsOf = new Map(SPECS.map((spec) => [spec.name, new Set(Object.keys(spec.flags))]));
  const unknown: string[] = [];
  let seen = 0;
  // CHANGELOG tells of what was, too.
  for (const page of PAGES.filter((each) => each !== 'CHANGELOG.md')) {
    const text = textOf(page);
    const inline = [...text.matchAll(/`(onnx-fuse [^`\n]+)`/g)].map(([, command]) => command as string);
    for (const command of [...inline, ...commandsOf(text).map((told) => told.command)]) {
      const words = /^(?:npx )?onnx-fuse (.+)$/.exec(command)?.[1]?.split(/ +/);
      if (words === undefined) continue;
      const known = flagsOf.get(words[0] as string) ?? flagsOf.get('');
      for (const word of words) {
        const flag = /^--(?:no-)?([a-z][\w-]*)/.exec(word)?.[1];
        if (flag === undefined) continue;
        seen++;
        if (!known?.has(flag) && !['help', 'version'].includes(flag)) unknown.push(`${page}: ${command}: ${word}`);
      }
    }
  }
  assert.ok(seen > 80, `${seen}`);
  assert.equal(unknown, []);
});

test('every script and every test that a page or the workflow tells to run is there, and the workflow runs what README says', () => {
  const { scripts, engines } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
    engines: { node: string };
  };
  const workflow = textOf('.github/workflows/ci.yml');
  const texts = [...PAGES.map(textOf), workflow];
  const named = texts.flatMap((text) =>
    [...text.matchAll(/\bnpm run ([a-z][\w:-]*)/g)].map(([, name]) => name as string),
  );
  assert.ok(named.length > 20, `${named.length}`);
  assert.equal(
    named.filter((name) => !(name in scripts)),
    [],
  );
  assert.match(workflow, /- run: npm ci && npm test\n/);
  assert.match(textOf('README.md'), /^ {4}npm ci && npm test$/m);
  assert.match(workflow, /system: \[ubuntu-latest, macos-latest, windows-latest\]\n\s+node: \[20, 22, 24\]/);
  assert.is(engines.node, '>=20');
});

test('the commands of the demonstration are those that the quickstart shows', () => {
  const demo = textOf('examples/demo.mjs');
  const shown = commandsOf(textOf('docs/quickstart.md')).filter(({ command }) => command.includes('demo/'));
  assert.is(shown.length, 5);
  for (const { command } of shown) {
    for (const word of command.split(' ').filter((each) => /^--|^demo\//.test(each)))
      assert.ok(demo.includes(word), word);
  }
});

/**
 * Names of the tree in ARCHITECTURE.md that are not there. A line is a folder and what is to say about it; its names are its
 * first column, what follows a last colon, and every word that ends in a slash.
 */
function missingInTree(tree: string): string[] {
  const missing: string[] = [];
  const folders: string[] = [];
  for (const line of tree.split('\n')) {
    const [, indent, rest] = /^ {4}( *)(\S.*)$/.exec(line) ?? [];
    if (indent === undefined || rest === undefined) continue;
    const depth = indent.length / 2;
    folders.length = depth;
    const [column = '', ...said] = rest.split(/ {2,}/);
    const own = /^\S+\/$/.test(column) ? column : '';
    const parent = folders.join('');
    folders.push(own);
    // The first words after a folder of its own may be its files: `cli/  bin main interrupt`.
    const ending = /: ([a-z -]+)$/.exec(rest)?.[1] ?? '';
    const files = own === '' ? column.split(/ -> |, | /) : [];
    const below = [...ending.split(' '), ...said.flatMap((part) => part.match(/\b[a-z/]+\/(?=[ ,]|$)/g) ?? [])];
    const isNamed = (folder: string, name: string): boolean =>
      [name, `${name}.ts`, `${name}/`].some((form) => PATHS.has(folder + form));
    for (const name of files) if (name !== '' && !isNamed(parent, name)) missing.push(parent + name);
    if (own !== '' && !PATHS.has(parent + own)) missing.push(parent + own);
    for (const name of below) {
      if (name !== '' && !isNamed(parent + own, name) && !PATHS.has(name)) missing.push(parent + own + name);
    }
  }
  return missing;
}

test('every name in the tree of ARCHITECTURE.md exists', () => {
  const tree = /(?:^ {4}.*\n)+/m.exec(textOf('ARCHITECTURE.md'))?.[0] as string;
  assert.ok(tree.split('\n').length > 15);
  assert.equal(missingInTree(tree), []);
  assert.equal(missingInTree('    ir/   what it is: bytes wait\n      core nodes   graphs\n      disks/   files\n'), [
    'ir/wait',
    'ir/nodes',
    'ir/disks/',
  ]);
});

test.run();
