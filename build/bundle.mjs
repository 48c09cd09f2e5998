/**
 * Makes what is published and what `dist/cli/bin.js` runs: some files in dist/bundle instead of hundreds, of which a command
 * loads those that it uses. tsc has checked the same sources and written their types beside; tests import what tsc wrote.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { build } from 'esbuild';

/** Packages that most commands need: read from files of their own, yargs or protobufjs alone takes longer to load than Node itself. */
const BUNDLED = ['yargs', 'protobufjs', 'picocolors', '@petamoriken/float16', 'fastest-levenshtein', 'cli-table3'];
const { dependencies, peerDependencies } = JSON.parse(readFileSync('package.json', 'utf8'));
const { metafile } = await build({
  entryPoints: [
    { in: 'cli/bin.ts', out: 'cli/bin' },
    { in: 'api/index.ts', out: 'bundle/api' },
    { in: 'ir/index.ts', out: 'bundle/ir' },
    { in: 'passes/index.ts', out: 'bundle/passes' },
    { in: 'runtime/index.ts', out: 'bundle/runtime' },
    // Processes and threads of their own: the code that starts one looks for it beside itself.
    { in: 'runtime/verify/probe-worker.ts', out: 'bundle/probe-worker' },
    { in: 'runtime/bench/bench-worker.ts', out: 'bundle/bench-worker' },
    { in: 'api/tokens/tokenizer-worker.ts', out: 'bundle/tokenizer-worker' },
  ],
  outdir: 'dist',
  chunkNames: 'bundle/[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  external: [
    ...[...Object.keys(dependencies), ...Object.keys(peerDependencies)].filter((name) => !BUNDLED.includes(name)),
    // cli-table3 asks for it when a table has colours of its own; ours have none.
    '@colors/colors',
  ],
  plugins: [
    { name: 'columns', setup: withColumns },
    { name: 'codecs', setup: withCodecsOnly },
  ],
  minifyWhitespace: true,
  minifySyntax: true,
  sourcemap: 'linked',
  sourcesContent: false,
  metafile: true,
});
for (const path of Object.keys(metafile.outputs)) if (path.endsWith('.js')) withoutBareImports(path);
writeFileSync('dist/bundle/licenses.txt', licensesOf(Object.keys(metafile.inputs)));

pruneTypes(['api', 'ir', 'passes', 'runtime'].map((layer) => resolve('dist', layer, 'index.d.ts')));

/** yargs measures every word of a help several times, segmented by Unicode, which takes longer than all else; ours is ASCII. */
function withColumns(bundler) {
  bundler.onResolve({ filter: /^string-width$/ }, ({ importer }) =>
    /[\\/](yargs|cliui|wrap-ansi)[\\/]/.test(importer) ? { path: 'columns', namespace: 'columns' } : null,
  );
  bundler.onLoad({ filter: /.*/, namespace: 'columns' }, () => ({ contents: 'export default (text) => text.length;' }));
}

/**
 * Blanks what a chunk imports without using anything of it. esbuild writes such imports to keep the order of side effects, of which our
 * modules have none, and each would load a file. Blanks, so that source maps stay true.
 */
function withoutBareImports(path) {
  const code = readFileSync(path, 'utf8');
  writeFileSync(
    path,
    code.replaceAll(/import"\.{1,2}\/(bundle\/)?[A-Z0-9]+\.js";/g, (text) => ' '.repeat(text.length)),
  );
}

/** The licences of the packages of which the bundle holds code, as they ask for. */
function licensesOf(inputs) {
  const folders = inputs.map((path) => /^.*node_modules\/(@[^/]+\/)?[^/]+/.exec(path)?.[0]).filter(Boolean);
  return [...new Set(folders)]
    .sort()
    .map((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
      const text = file ? readFileSync(join(folder, file), 'utf8').trim() : `Licence: ${license}`;
      return `${name} ${version}\n\n${text}\n`;
    })
    .join(`\n${'-'.repeat(80)}\n\n`);
}

/** protobufjs makes five functions for each message when it sees the first; we read and write messages, and convert and verify none. */
function withCodecsOnly(bundler) {
  bundler.onResolve({ filter: /^\.\/(converter|verifier)$/ }, ({ importer }) =>
    /[\\/]protobufjs[\\/]/.test(importer) ? { path: 'unused', namespace: 'unused' } : null,
  );
  const none = 'const none = () => () => () => { throw new Error("left out of the bundle"); };';
  const contents = `${none} module.exports = Object.assign(none, { fromObject: none, toObject: none });`;
  bundler.onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents }));
}

/** Removes declarations that nobody who imports the package can come to. */
function pruneTypes(doors) {
  const reached = new Set();
  for (const pending = [...doors]; pending.length > 0; ) {
    const path = pending.pop();
    if (reached.has(path)) continue;
    reached.add(path);
    const specifiers = readFileSync(path, 'utf8').matchAll(/(?:from|import)\s*\(?['"](\.[^'"]*)\.js['"]/g);
    for (const [, specifier] of specifiers) pending.push(resolve(dirname(path), `${specifier}.d.ts`));
  }
  for (const file of readdirSync('dist', { recursive: true, encoding: 'utf8' })) {
    const path = resolve('dist', file);
    if (path.endsWith('.d.ts') && !reached.has(path)) rmSync(path);
  }
}
