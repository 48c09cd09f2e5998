/** The walls of the house: who may import whom. One line a room; ARCHITECTURE.md shows the same list. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, posix } from 'node:path';
import * as assert from 'uvu/assert';
import { ROOT } from './helpers/paths.js';
import { suite } from './helpers/suite.js';

const test = suite('imports');

/** Any Node built-in. */
const NODE = 'node:*';
/**
 * The rooms from the bottom to the top. A room imports itself and the rooms before it, and the packages and built-ins
 * named beside it. The order is what makes circles between folders impossible.
 */
const ROOMS: readonly (readonly [room: string, ...packages: string[]])[] = [
  ['ir', '@petamoriken/float16'],
  ['ir/proto', 'protobufjs'],
  ['ir/proto/residue'],
  ['ir/text'],
  ['ir/disk/kernels'],
  ['ir/disk', NODE],
  ['passes/analysis'],
  ['passes/analysis/values'],
  ['passes/analysis/matrices'],
  ['passes/analysis/layers'],
  ['passes/analysis/plans'],
  ['passes/analysis/heads'],
  ['passes/analysis/heads/merge'],
  ['passes/analysis/heads/cut'],
  ['passes/rewrite'],
  ['passes/framework', 'fastest-levenshtein'],
  ['passes/removal'],
  ['passes/transforms'],
  ['passes/transforms/concat-attention'],
  ['passes/transforms/shard-tensor-parallel'],
  ['passes'],
  ['runtime/session', NODE, 'onnxruntime-node'],
  ['runtime/signature'],
  ['runtime/run', NODE],
  ['runtime/ranks'],
  ['runtime/verify', NODE],
  ['runtime/quality'],
  ['runtime/stream', NODE],
  ['runtime/fit'],
  ['runtime/choose', NODE],
  ['runtime/bench', NODE],
  ['runtime'],
  ['api/basics', NODE, 'cli-progress'],
  ['api/page'],
  ['api/fuse', NODE],
  ['api/inspect', 'diff'],
  ['api/folder', NODE],
  ['api/settings', NODE],
  ['api/tokens', NODE, '@huggingface/tokenizers'],
  ['api/plan', NODE],
  ['api/plan/page'],
  ['api/shard', NODE],
  ['api/verify', NODE],
  ['api/commands', NODE],
  ['api', NODE],
  ['cli/text', 'node:path', 'cli-table3', 'picocolors'],
  ['cli/options', 'yargs'],
  ['cli/commands', NODE],
  ['cli', NODE],
];
/**
 * Doors: files that give what their whole layer offers. They may import every room of the layer, and only rooms of
 * other layers go through them, so they make no circle.
 */
const DOORS = ['ir/index.ts', 'passes/index.ts', 'runtime/index.ts', 'api/index.ts', 'ir/text/index.ts'];
const MAX_LINES = 400;
const MAX_FILES = 16;

const places = new Map(ROOMS.map(([room], index) => [room, index]));
const layerOf = (path: string): string => path.split('/')[0]!;

/** The breaches of the house rules in one file; `path` is relative to the root, with slashes. */
function breaches(path: string, text: string): string[] {
  const found: string[] = [];
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');
  const specifiers = code.matchAll(
    /(?:^|[;}\s])(?:import|export)\s+(?:[^'"`;()=]*?\sfrom\s*)?['"]([^'"]+)['"]|\b(?:import|require)\(\s*['"`]([^'"`]+)['"`]/g,
  );
  for (const match of specifiers) {
    const specifier = (match[1] ?? match[2])!;
    const problem = specifier.startsWith('.')
      ? localProblem(path, posix.join(posix.dirname(path), specifier).replace(/\.js$/, '.ts'))
      : packageProblem(path, specifier);
    if (problem !== undefined) found.push(`${path}: imports ${specifier}: ${problem}`);
  }
  if (/\bexport\s+default\b|\bas\s+default\b/.test(code)) found.push(`${path}: default export`);
  const lines = text.trimEnd().split('\n').length;
  if (lines > MAX_LINES) found.push(`${path}: ${lines} lines, more than ${MAX_LINES}`);
  return found;
}

function localProblem(from: string, to: string): string | undefined {
  const [own, other] = [places.get(posix.dirname(from)), places.get(posix.dirname(to))];
  if (own === undefined) return `${posix.dirname(from)} is no room of ROOMS`;
  if (other === undefined) return `${posix.dirname(to)} is no room of ROOMS`;
  if (DOORS.includes(from) && layerOf(from) === layerOf(to)) return undefined;
  if (DOORS.includes(to) && layerOf(from) === layerOf(to)) return 'a layer does not go through its own door';
  if (other > own) return `${posix.dirname(to)} comes after ${posix.dirname(from)}`;
  if (isPass(from) && isPass(to)) return 'a pass never imports another pass';
  return undefined;
}

function packageProblem(from: string, specifier: string): string | undefined {
  const allowed = ROOMS[places.get(posix.dirname(from)) ?? -1]?.slice(1) ?? [];
  const name = isBuiltin(specifier) ? `node:${specifier.replace(/^node:/, '')}` : specifier;
  const isAllowed = allowed.some(
    (each) => name === each || name.startsWith(`${each}/`) || (each === NODE && name.startsWith('node:')),
  );
  return isAllowed ? undefined : `${posix.dirname(from)} may use ${allowed.join(', ') || 'no package and no built-in'}`;
}

/** Passes are the files of passes/transforms, or the folders in it. */
function isPass(path: string): boolean {
  return dirname(path) === 'passes/transforms';
}

const sources = [...new Set(ROOMS.map(([room]) => layerOf(room)))].flatMap((layer) =>
  readdirSync(`${ROOT}/${layer}`, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `${layer}/${file.replaceAll('\\', '/')}`),
);

test('every room and every door is there, and no folder is without its line', () => {
  const folders = new Set(sources.map((file) => posix.dirname(file)));
  assert.equal([...folders].sort(), ROOMS.map(([room]) => room).sort());
  assert.equal(
    DOORS.filter((file) => !sources.includes(file)),
    [],
  );
});

test('every source file keeps the rules', () => {
  const found = sources.flatMap((file) => breaches(file, readFileSync(`${ROOT}/${file}`, 'utf8')));
  assert.is(found.join('\n'), '');
});

test(`no folder of sources or tests holds more than ${MAX_FILES} files`, () => {
  const tests = readdirSync(`${ROOT}/test`, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `test/${file.replaceAll('\\', '/')}`);
  const counts = new Map<string, number>();
  for (const file of [...sources, ...tests])
    counts.set(posix.dirname(file), (counts.get(posix.dirname(file)) ?? 0) + 1);
  assert.equal(
    [...counts].filter(([, count]) => count > MAX_FILES),
    [],
  );
});

test('only the tests on models of others look at them', () => {
  const others = readdirSync(`${ROOT}/test`, { recursive: true, encoding: 'utf8' })
    .map((file) => file.replaceAll('\\', '/'))
    .filter((file) => file.endsWith('.ts') && !/^(corpus|bench)\/|^run\.ts$/.test(file));
  assert.ok(others.length > 60, `${others.length} files`);
  assert.equal(
    others.filter((file) => /from '[^']*\/corpus\/|shared\/models/.test(readFileSync(`${ROOT}/test/${file}`, 'utf8'))),
    [],
  );
});

/** The names of exported types that stand in two files. */
function doubleNames(files: readonly (readonly [path: string, text: string])[]): string[] {
  const where = new Map<string, string[]>();
  for (const [path, text] of files) {
    for (const [, name] of text.matchAll(/^export (?:declare )?(?:abstract )?(?:interface|type|class|enum) (\w+)/gm)) {
      where.set(name as string, [...(where.get(name as string) ?? []), path]);
    }
  }
  return [...where].filter(([, paths]) => paths.length > 1).map(([name, paths]) => `${name}: ${paths.join(', ')}`);
}

test('an exported type has a name of its own', () => {
  assert.is(doubleNames(sources.map((file) => [file, readFileSync(`${ROOT}/${file}`, 'utf8')])).join('\n'), '');
  const files = [
    ['ir/a.ts', 'export interface Plan {}\nexport type Row = 1;\ninterface Inner {}'],
    ['api/b.ts', 'export type { Row } from "../ir/a.js";\nexport class Plan {}\ninterface Inner {}'],
  ] as const;
  assert.equal(doubleNames(files), ['Plan: ir/a.ts, api/b.ts']);
});

test('the table of changes in ARCHITECTURE.md leads to files that are there', () => {
  const text =
    readFileSync(`${ROOT}/ARCHITECTURE.md`, 'utf8').split('## Where to change what\n')[1]?.split('\n## ')[0] ?? '';
  const rows = text.split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| the change'));
  assert.is(rows.length, 14);
  for (const row of rows) {
    const [, , own = '', others = ''] = row.split('|');
    assert.is([...own.matchAll(/`[^`]+`/g)].length, 1, `${row}: one file`);
    for (const [, path = ''] of `${own} ${others}`.matchAll(/`((?:ir|passes|runtime|api|cli|golden)\/[^`]*)`/g)) {
      assert.ok(existsSync(`${ROOT}/${path}`), `there is no ${path}`);
    }
  }
});

test('a breach is noticed', () => {
  const bad: [path: string, text: string][] = [
    ['ir/walk.ts', `import { Pass } from '../passes/framework/pass.js';`],
    ['ir/text/parse.ts', `import type { Pass } from '../../passes/framework/pass.js';`],
    ['ir/proto/decode.ts', `import { FileSource } from '../disk/source.js';`],
    ['passes/transforms/fold.ts', `const x = await import('../../runtime/index.js');`],
    ['passes/analysis/values/types.ts', `import { findBlocks } from '../layers/blocks.js';`],
    ['runtime/index.ts', `export * from '../cli/main.js';`],
    ['runtime/run/feeds.ts', `import { loadRuntime } from '../index.js';`],
    ['api/plan/plan.ts', `import { table } from '../../cli/text/table.js';`],
    ['api/fuse/fuse.ts', `import Table from 'cli-table3';`],
    ['cli/main.ts', `import { suite } from '../test/helpers/suite.js';`],
    ['ir/core.ts', `import { ok } from 'node:assert';`],
    ['ir/weight.ts', `import 'protobufjs';`],
    ['ir/type.ts', `import type { Long } from 'protobufjs';`],
    ['ir/disk/write.ts', `import {\n  Reader,\n  Writer,\n} from 'protobufjs/minimal.js';`],
    ['ir/proto/decode.ts', `import { open } from 'node:fs/promises';`],
    ['passes/framework/manager.ts', `import * as ort from 'onnxruntime-node';`],
    ['passes/transforms/one.ts', `import { two } from './two.js';`],
    ['passes/transforms/one.ts', `import { two } from '../index.js';`],
    ['passes/attic/one.ts', `import { two } from '../index.js';`],
    ['cli/main.ts', 'export default 1;'],
    ['cli/main.ts', 'export { main as default };'],
    ['cli/main.ts', '\n'.repeat(MAX_LINES).concat('x')],
  ];
  for (const [path, text] of bad) assert.is(breaches(path, text).length, 1, `${path}: ${text}`);
});

test('what the rules allow is not reported', () => {
  const good: [path: string, text: string][] = [
    ['cli/main.ts', `import { a } from '../ir/index.js';\nimport { b } from '../runtime/index.js';`],
    ['ir/core.ts', `import type { Type } from './type.js';\n// import 'node:fs'\n/* import 'node:fs' */`],
    ['ir/disk/write.ts', `import { open } from 'node:fs/promises';`],
    ['ir/proto/decode.ts', `import protobuf from 'protobufjs';`],
    ['runtime/session/session.ts', `const ort = await import('onnxruntime-node');`],
    ['passes/registry.ts', `import { one } from './transforms/one.js';`],
    [
      'passes/transforms/one.ts',
      `import { pass } from '../framework/pass.js';\nimport { b } from '../analysis/layers/blocks.js';`,
    ],
    ['cli/main.ts', '\n'.repeat(MAX_LINES - 1).concat('x')],
  ];
  for (const [path, text] of good) assert.equal(breaches(path, text), [], `${path}: ${text}`);
});

test.run();
