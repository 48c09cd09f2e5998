/** What is published: packed, installed in an empty folder, run, imported and type-checked from there. */
import type { SpawnSyncReturns } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as assert from 'uvu/assert';
import { BIN, ROOT, TALES12 } from './helpers/paths.js';
import { suite } from './helpers/suite.js';
import { install, linkRuntime, MODULES, type Packed, pack, run } from './published/installed.js';
import { deadLinks, linksOf } from './published/links.js';
import { follow } from './published/reader.js';

interface Installed {
  /** Made for this run, and all that is removed afterwards. */
  temporary: string;
  /** An empty folder with the package installed, and nothing else. */
  folder: string;
  packed: Packed;
}

const context: Installed = { temporary: '', folder: '', packed: { tarball: '', bytes: 0, files: [] } };
const test = suite('package', context);

function onnxFuse(folder: string, ...argv: string[]): SpawnSyncReturns<string> {
  return run(process.execPath, [join(folder, 'node_modules', 'onnx-fuse', 'dist', 'cli', 'bin.js'), ...argv], folder);
}

test.before((installed) => {
  try {
    setUp(installed);
  } catch (error) {
    // uvu says only that everything failed.
    console.error(error);
    throw error;
  }
});

function setUp(installed: Installed): void {
  const temporary = mkdtempSync(join(tmpdir(), 'onnx-fuse-package-'));
  installed.temporary = temporary;
  installed.packed = pack(temporary);
  installed.folder = join(temporary, 'empty');
  mkdirSync(installed.folder);
  install(installed.packed.tarball, installed.folder);
}

test.after(({ temporary }) => {
  if (temporary !== '') rmSync(temporary, { recursive: true, force: true });
});

test('it holds the code, its types, docs and examples, and nothing of the tests', ({
  packed: { files: packed, bytes },
}) => {
  assert.ok(packed.includes('runtime/bench/genai_times.py'), 'what times models in onnxruntime-genai');
  assert.ok(packed.includes('api/shard/run_ranks.py'), 'what runs ranks');
  for (const path of ['docs/api.md', 'schemas/run.json', 'schemas/plan.json', 'schemas/output/fusion.json'])
    assert.ok(packed.includes(path), path);
  for (const path of ['ir', 'passes', 'runtime', 'api']) {
    assert.ok(packed.includes(`dist/bundle/${path}.js`) && packed.includes(`dist/${path}/index.d.ts`), path);
  }
  const stray = packed.filter(
    (path) =>
      !/^(dist\/(ir|passes|runtime|api)\/.*\.d\.ts|dist\/(bundle|cli)\/[\w-]+\.js(\.map)?|dist\/bundle\/licenses\.txt|runtime\/bench\/genai_times\.py|api\/shard\/run_ranks\.py|docs\/.*\.(md|svg)|schemas\/.*\.json|examples\/my-pass\.mjs|[A-Z]+\.md|LICENSE|package\.json)$/.test(
        path,
      ),
  );
  assert.equal(stray, []);
  const maps = packed.filter((path) => path.endsWith('.js.map'));
  assert.equal(
    packed.filter((path) => path.endsWith('.js') && !maps.includes(`${path}.map`)),
    [],
    'code without a source map',
  );
  console.log(`\nnote: the tarball has ${packed.length} files, ${Math.round(bytes / 1024)} KiB`);
  // Some 800 KiB today: a model or a benchmark that came along would be noticed.
  assert.ok(bytes < 2 ** 20, `${bytes} bytes`);
});

test('every link of a page that is published leads to a file and a heading that are published', ({
  packed,
  folder,
}) => {
  const pages = packed.files.filter((path) => path.endsWith('.md'));
  const textOf = (page: string): string => readFileSync(join(folder, 'node_modules', 'onnx-fuse', page), 'utf8');
  const texts = new Map(pages.map((page) => [page, textOf(page)]));
  assert.ok([...texts.values()].flatMap(linksOf).length > 60);
  const folders = packed.files.map((path) => path.slice(0, path.lastIndexOf('/')));
  assert.equal(
    deadLinks(texts, (path) => packed.files.includes(path) || folders.includes(path.replace(/\/$/, ''))),
    [],
  );
});

test('a dead link is noticed, of a file and of a heading', () => {
  const texts = new Map([
    [
      'README.md',
      '# One\n[a](docs/b.md#two-words) [b](docs/c.md) [c](#none) ![d](d.svg) `[e](e.md)`\n<img src="f.svg">',
    ],
    ['docs/b.md', '## Two words?\n[up](../README.md#one) [gone](../README.md#two) [web](https://example.org/x)'],
  ]);
  assert.equal(
    deadLinks(texts, (path) => path === 'd.svg'),
    ['README.md: docs/c.md', 'README.md: #none', 'README.md: f.svg', 'docs/b.md: ../README.md#two'],
  );
});

test('one version: of the package, of its lock, in CHANGELOG, and wherever a page names the tarball', ({ packed }) => {
  const of = (file: string): string => readFileSync(join(ROOT, file), 'utf8');
  const { version } = JSON.parse(of('package.json')) as { version: string };
  const { packages } = JSON.parse(of('package-lock.json')) as { packages: Record<string, { version: string }> };
  assert.is(packages['']?.version, version);
  assert.is(/^## (\S+)/m.exec(of('CHANGELOG.md'))?.[1], version);
  const named = packed.files
    .filter((path) => path.endsWith('.md'))
    .flatMap((page) => of(page).match(/onnx-fuse-\d[\w.-]*?\.tgz/g) ?? []);
  assert.ok(named.length >= 3);
  assert.equal([...new Set(named)], [`onnx-fuse-${version}.tgz`]);
});

test('a stack trace names the source', ({ folder }) => {
  const bundle = join(folder, 'node_modules', 'onnx-fuse', 'dist', 'bundle', 'ir.js');
  const text = `
    import { openModel } from ${JSON.stringify(pathToFileURL(bundle).href)};
    try { openModel('gone.onnx'); } catch (error) { console.log(error.stack); }`;
  writeFileSync(join(folder, 'trace.mjs'), text);
  const { stdout } = run(process.execPath, ['--enable-source-maps', join(folder, 'trace.mjs')], folder);
  assert.match(stdout, /ir[\\/]disk[\\/]source\.ts:\d+/);
});

test('what draws pages is loaded by commands that draw one, and by no other', () => {
  const folder = join(ROOT, 'dist', 'bundle');
  const texts = new Map(
    readdirSync(folder)
      .filter((file) => file.endsWith('.js'))
      .map((file) => [file, readFileSync(join(folder, file), 'utf8')]),
  );
  /** Whether a command begins with the code of pages: what `import()` brings is loaded later, or never. */
  const draws = (name: string): boolean => {
    const reached = new Set([...texts].filter(([, text]) => text.includes(`function ${name}(`)).map(([file]) => file));
    assert.is(reached.size, 1, name);
    for (const file of reached) {
      const imports = (texts.get(file) as string).matchAll(/\b(?:from|import) ?"\.\/([\w-]+\.js)"/g);
      for (const [, next] of imports) reached.add(next as string);
    }
    return [...reached].some((file) => (texts.get(file) as string).includes('Content-Security-Policy'));
  };
  const commands = ['fuseCommand', 'inspectCommand', 'planCommand', 'reportCommand', 'verifyCommand'];
  assert.equal(commands.filter(draws), ['reportCommand']);
});

test('a fusion that is not checked loads no onnxruntime, and names its version all the same', ({ temporary }) => {
  const refuse = 'process.dlopen=(_,path)=>{throw new Error(path)}';
  const [output, json] = [join(temporary, 'unchecked.onnx'), join(temporary, 'unchecked.json')];
  const fuse = [BIN, TALES12, output, '--remove-attention', '3-5', '--json', json];
  const hook = ['--import', `data:text/javascript,${refuse}`];
  assert.is(run(process.execPath, [...hook, ...fuse, '--no-verify'], temporary).status, 0);
  const { versions } = JSON.parse(readFileSync(json, 'utf8')) as { versions: Record<string, string> };
  assert.match(versions['onnxruntime-node'] ?? '', /^\d+\.\d+\.\d+/);
  // The hook sees it where it is loaded.
  assert.match(run(process.execPath, [...hook, ...fuse], temporary).stdout, /not checked: onnxruntime-node/);
});

test('prepack builds what is published', () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  assert.is(scripts['prepack'], 'npm run build');
});

test('it helps', ({ folder }) => {
  const bin = join(folder, 'node_modules', '.bin', 'onnx-fuse');
  const { status, stdout, stderr } = existsSync(bin) ? run(bin, ['--help'], folder) : onnxFuse(folder, '--help');
  assert.is(status, 0, stderr);
  assert.match(stdout, /onnx-fuse in\.onnx out\.onnx/);
  assert.match(onnxFuse(folder, '--version').stdout, /^\d+\.\d+\.\d+\n$/);
});

test('it fuses without onnxruntime, and says that nothing was checked', ({ folder }) => {
  assert.not(existsSync(join(folder, 'node_modules', 'onnxruntime-node')), 'the peer is optional');
  const { status, stdout, stderr } = onnxFuse(folder, TALES12, 'out.onnx', '--remove-attention', '3-6');
  assert.is(status, 0, stderr);
  assert.match(stdout, /3 x 352 -> 1056/);
  assert.match(stdout, /not checked: onnxruntime-node is not installed \(npm install onnxruntime-node\)/);
  assert.ok(existsSync(join(folder, 'out.onnx')));
  const quiet = onnxFuse(folder, TALES12, 'quiet.onnx', '--remove-attention', '3-6', '-q');
  assert.match(quiet.stderr, /^not checked: onnxruntime-node is not installed/);
  const verified = onnxFuse(folder, 'verify', TALES12, 'out.onnx');
  assert.is(verified.status, 1);
  assert.match(verified.stderr, /OF_NO_RUNTIME .*npm install onnxruntime-node/);
});

/** Runs a module from the folder, as a user's own program would. */
function program(folder: string, name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  const { status, stdout, stderr } = run(process.execPath, [join(folder, name)], folder);
  assert.is(status, 0, stderr);
  return stdout;
}

test('every entry can be imported by its name', ({ folder }) => {
  const text = `
    import { bench, Diagnostic, fuse, golden, inspect, open, plan, recover, report as draw, save, shard, verify } from 'onnx-fuse';
    import { errors, printModel, verifyModel } from 'onnx-fuse/ir';
    import schema from 'onnx-fuse/schemas/run.json' with { type: 'json' };
    import { concatFfn, definePass, factsOf, integerOption, parsePipeline, registry, runPipeline } from 'onnx-fuse/passes';
    import { isRuntimeAvailable } from 'onnx-fuse/runtime';
    const model = open(${JSON.stringify(TALES12)});
    const { layers } = inspect(model);
    const { changed } = runPipeline(model, parsePipeline('remove-attention{layers=3}', registry));
    const { files } = await save(model, 'saved.onnx');
    const report = await fuse({ input: 'saved.onnx', output: 'fused.onnx', removeAttention: [4, 5, 6] });
    const pass = definePass({ id: 'none', summary: 'nothing', effect: 'exact', options: { most: integerOption('', 1) }, statistics: {}, run() {} });
    console.log(JSON.stringify({
      layers: layers.length, changed, files: files.length, runs: factsOf(report, concatFfn).map((run) => run.layers.join()),
      skipped: report.checks.skipped, valid: verifyModel(open('fused.onnx')).length, runtime: await isRuntimeAvailable(),
      kinds: [...new Set([verify, bench, golden, plan, recover, draw, shard, printModel].map((each) => typeof each)), pass.id],
      same: errors.noSuchFile('x') instanceof Diagnostic, schema: typeof schema.properties.commands,
    }));`;
  assert.equal(JSON.parse(program(folder, 'program.mjs', text)), {
    layers: 12,
    changed: true,
    files: 1,
    runs: ['3,4,5'],
    skipped: 'onnxruntime-node is not installed (npm install onnxruntime-node)',
    valid: 0,
    runtime: false,
    kinds: ['function', 'none'],
    same: true,
    schema: 'object',
  });
});

test('the example of a plugin works from there', ({ folder }) => {
  copyFileSync(join(folder, 'node_modules', 'onnx-fuse', 'examples', 'my-pass.mjs'), join(folder, 'my-pass.mjs'));
  const pipeline = ['--plugin', './my-pass.mjs', '--pipeline', 'quick-gelu'];
  const { status, stderr } = onnxFuse(folder, TALES12, 'gelu.onnx', ...pipeline, '--quiet');
  assert.is(status, 0, stderr);
  assert.is(onnxFuse(folder, 'print', 'gelu.onnx').stdout.match(/com\.microsoft\.QuickGelu/g)?.length, 12);
});

const CONSUMER = `
import {
  type Benchmark, bench, checkPlan, checkVerification, type Config, Diagnostic, fuse, type Fusion, inspect, open, type PlanFile, plan,
  recover, type Report, report, save, shard, type Verification, verify,
} from 'onnx-fuse';
import { type Graph, inlineWeight, type Node, Tensor, type Value } from 'onnx-fuse/ir';
import { definePass, flagOption, integerOption, type Pass, type PassContext, type Rewriter } from 'onnx-fuse/passes';
import { type Comparison, verifyPair } from 'onnx-fuse/runtime';

export const pass = definePass({
  id: 'mine',
  summary: 'an example',
  effect: 'exact',
  options: { most: integerOption('at most', 3), all: flagOption('all') },
  statistics: { seen: 'nodes seen' },
  run({ graph, options, rewriter, count }) {
    const most: number = options.most;
    const all: boolean = options.all;
    // @ts-expect-error there is no such option
    options.other;
    for (const node of graph.nodes()) if (all || node.inputs.length > most) look(graph, node, rewriter);
    count('seen');
  },
});

function look(graph: Graph, node: Node, rewriter: Rewriter): Value | null {
  rewriter.eraseIfDead(node);
  graph.addInitializer('one', new Tensor('one', 'float', [], inlineWeight(new Uint8Array(4), 'float', [])));
  return node.output(0);
}

export const config: Config = {
  'remove-attention': [4, 5],
  'keep-last': 0,
  norm: 'last',
  pipeline: undefined as never,
  plugins: ['./mine.mjs'],
  presets: { quick: { verify: false } },
};
// @ts-expect-error keys are written like the flags
export const misspelt: Config = { keepLast: 0 };

export async function main(): Promise<Comparison> {
  const report: Report = await fuse({ input: 'a.onnx', output: 'b.onnx', pipeline: 'mine{most=2}', passes: [pass] });
  const model = open('a.onnx');
  const widths: (number | null)[] = inspect(model).layers.map((layer) => layer.ffn.width);
  const { files } = await save(model, 'c.onnx', { external: true });
  try {
    return await verify('a.onnx', files[0]?.path ?? model);
  } catch (error) {
    if (error instanceof Diagnostic) console.log(error.code, report.pipeline, widths, verifyPair);
    throw error;
  }
}
export async function pipeline(): Promise<Fusion> {
  const made: PlanFile = await plan({ model: 'a.onnx', data: ['calib.txt'], maxKl: 0.05, measure: true });
  checkPlan(made);
  const found: Verification = await verify('a.onnx', 'b.onnx', { data: 'heldout.txt', provider: 'cpu' });
  checkVerification(found, { maxKl: 0.05 });
  const times: Benchmark = await bench(['a.onnx', 'b.onnx'], { batch: [1, 8] });
  const page: string = await report({ plan: made, verify: found, bench: times });
  const ranks: number = (await shard({ input: 'a.onnx', output: page, ranks: 2 })).ranks;
  // @ts-expect-error there is no such option
  await plan({ model: 'a.onnx', maxLoss: ranks });
  return recover({ input: 'a.onnx', output: 'b.onnx', removeAttention: [4], data: ['calib.txt'], quantizeMaps: 8 });
}
export type Context = PassContext<Pass['options']>;
`;

test('programs that use it type-check against what is published', ({ folder }) => {
  writeFileSync(join(folder, 'consumer.ts'), CONSUMER);
  copyFileSync(join(ROOT, 'examples', 'my-pass.mjs'), join(folder, 'my-pass.mjs'));
  const compilerOptions = {
    target: 'es2022',
    lib: ['es2022', 'dom'],
    module: 'nodenext',
    types: [],
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    noEmit: true,
    allowJs: true,
    checkJs: true,
  };
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ type: 'module', private: true }));
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ compilerOptions, files: ['consumer.ts', 'my-pass.mjs'] }),
  );
  const { status, stdout } = run(process.execPath, [join(MODULES, 'typescript', 'bin', 'tsc'), '-p', folder], folder);
  assert.is(status, 0, stdout);
});

test('with onnxruntime beside it, it checks', ({ folder }) => {
  linkRuntime(folder);
  const { status, stdout, stderr } = onnxFuse(folder, TALES12, 'checked.onnx', '--remove-attention', '3-6');
  assert.is(status, 0, stderr);
  assert.match(stdout, /algebra +pass/);
  const text = `
    import { open, verify } from 'onnx-fuse';
    const { worst } = await verify(open(${JSON.stringify(TALES12)}), ${JSON.stringify(TALES12)});
    console.log(worst.relative);`;
  assert.is(program(folder, 'verify.mjs', text), '0\n');
});

const place = ({ packed: { tarball }, temporary }: Installed): { tarball: string; temporary: string } => ({
  tarball,
  temporary,
});
follow(test, 'README.md', place);
follow(test, 'docs/quickstart.md', place);
follow(test, 'docs/plugins.md', place);
follow(test, 'docs/tensor-parallel.md', place);
follow(test, 'docs/ci.md', place, [
  'onnx-fuse plan model/ -o plan.json --remove-attention 1 --data calib.txt --length 64 --no-recover --device h100x8',
]);

test.run();
