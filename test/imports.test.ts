import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { suite } from './helpers/suite.js';

const test = suite('imports');

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** From the bottom to the top: a layer imports only itself and those before it. */
const LAYERS = ['ir', 'passes', 'runtime', 'cli'];
/** Import neither a Node built-in nor a package. */
const PURE = ['ir/core.ts', 'ir/type.ts', 'ir/weight.ts'];
/** Files directly in passes/ that are not passes. */
const NOT_PASSES =
  'pass plugin manager pipeline registry presets options rewriter remark index layers attention-fusion size-patch collectives'.split(
    ' ',
  );
const MAX_LINES = 400;

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
  const layer = LAYERS.indexOf(to.split('/')[0]!);
  if (layer < 0) return `outside of ${LAYERS.join(', ')}`;
  if (layer > LAYERS.indexOf(from.split('/')[0]!)) return `layers go ${[...LAYERS].reverse().join(' -> ')}`;
  if (isPass(from) && (isPass(to) || to === 'passes/index.ts')) return 'a pass never imports another pass';
  return undefined;
}

function packageProblem(from: string, specifier: string): string | undefined {
  const name = specifier.replace(/^node:/, '');
  if (PURE.includes(from)) return 'this file imports no Node built-in and no package';
  if (/^protobufjs(\/|$)/.test(name) && !from.startsWith('ir/proto/')) return 'only ir/proto uses it';
  if (/^onnxruntime-node(\/|$)/.test(name) && !from.startsWith('runtime/')) return 'only runtime uses it';
  if (isBuiltin(name) && /^fs(\/|$)/.test(name) && from.startsWith('ir/') && !from.startsWith('ir/disk/')) {
    return 'inside ir only ir/disk uses it';
  }
  return undefined;
}

function isPass(path: string): boolean {
  const name = /^passes\/([^/]+)\.ts$/.exec(path)?.[1];
  return name !== undefined && !NOT_PASSES.includes(name);
}

const sources = readdirSync(ROOT)
  .filter((folder) => LAYERS.includes(folder))
  .flatMap((folder) =>
    readdirSync(`${ROOT}/${folder}`, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => `${folder}/${file.replaceAll('\\', '/')}`),
  );

test('the files that the rules name exist', () => {
  for (const file of PURE) assert.ok(sources.includes(file), `${file} is missing`);
});

test('every source file keeps the rules', () => {
  const found = sources.flatMap((file) => breaches(file, readFileSync(`${ROOT}/${file}`, 'utf8')));
  assert.is(found.join('\n'), '');
});

test('a breach is noticed', () => {
  const bad: [path: string, text: string][] = [
    ['ir/walk.ts', `import { Pass } from '../passes/pass.js';`],
    ['ir/text/parse.ts', `import type { Pass } from '../../passes/pass.js';`],
    ['passes/fold.ts', `const x = await import('../runtime/index.js');`],
    ['runtime/index.ts', `export * from '../cli/main.js';`],
    ['cli/main.ts', `import { suite } from '../test/helpers/suite.js';`],
    ['ir/core.ts', `import { ok } from 'node:assert';`],
    ['ir/weight.ts', `import 'protobufjs';`],
    ['ir/type.ts', `import type { Long } from 'protobufjs';`],
    ['ir/disk/write.ts', `import {\n  Reader,\n  Writer,\n} from 'protobufjs/minimal.js';`],
    ['ir/proto/decode.ts', `import { open } from 'node:fs/promises';`],
    ['passes/manager.ts', `import * as ort from 'onnxruntime-node';`],
    ['passes/one.ts', `import { two } from './two.js';`],
    ['passes/one.ts', `import { two } from './index.js';`],
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
    ['runtime/session.ts', `const ort = await import('onnxruntime-node');`],
    ['passes/registry.ts', `import { one } from './one.js';`],
    ['passes/one.ts', `import { pass } from './pass.js';\nimport { blocks } from './analysis/blocks.js';`],
    ['cli/main.ts', '\n'.repeat(MAX_LINES - 1).concat('x')],
  ];
  for (const [path, text] of good) assert.equal(breaches(path, text), [], `${path}: ${text}`);
});

test.run();
