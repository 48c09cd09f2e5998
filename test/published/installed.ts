/** The package as a stranger gets it: packed, and installed in an empty folder. */
import { execFileSync, type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import { ROOT } from '../helpers/paths.js';

export const MODULES = join(ROOT, 'node_modules');

export interface Packed {
  readonly tarball: string;
  readonly bytes: number;
  readonly files: readonly string[];
}

/** What `npm test` says about this repository must not reach the npm that works in another folder. */
function environment(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^npm_(config_local_prefix|package_|lifecycle_)/.test(name),
  );
  return { ...Object.fromEntries(own), NO_COLOR: '1', ...more };
}

export function run(command: string, argv: readonly string[], cwd: string): SpawnSyncReturns<string> {
  return spawnSync(command, argv, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env: environment(),
    shell: process.platform === 'win32' && command === 'npm',
  });
}

/** A line as it is typed into a shell that looks for programs in `places` first. */
export function type(line: string, cwd: string, places: readonly string[]): SpawnSyncReturns<string> {
  const path = [...places, process.env['PATH'] ?? ''].join(delimiter);
  const env = environment({ PATH: path, npm_config_offline: 'true' });
  return spawnSync(line, { cwd, encoding: 'utf8', maxBuffer: 2 ** 28, shell: true, env });
}

/** Packs what is built. */
export function pack(into: string): Packed {
  const { status, stdout, stderr } = run(
    'npm',
    ['pack', '--ignore-scripts', '--json', '--pack-destination', into],
    ROOT,
  );
  assert.is(status, 0, stderr);
  const [{ filename, size, files }] = JSON.parse(stdout) as [
    { filename: string; size: number; files: { path: string }[] },
  ];
  return { tarball: join(into, filename), bytes: size, files: files.map(({ path }) => path) };
}

/** The registry may be out of reach: then what `npm ci` installed is linked, and only ours is unpacked. */
export function install(tarball: string, folder: string): void {
  const flags = ['--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund', '--fetch-retries=0'];
  const { status, stderr } = run('npm', ['install', ...flags, '--prefix', folder, tarball], folder);
  if (status === 0) return;
  assert.match(stderr, /ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT|ENOTCACHED|network/, stderr);
  const target = join(folder, 'node_modules', 'onnx-fuse');
  rmSync(join(folder, 'node_modules'), { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  execFileSync('tar', ['-xzf', tarball, '-C', target, '--strip-components=1']);
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; peer?: boolean; optional?: boolean }>;
  };
  for (const [path, { dev, peer, optional }] of Object.entries(packages)) {
    // Nested ones come with the folder that holds them.
    if (dev || peer || optional || !/^node_modules\/(@[^/]+\/)?[^/]+$/.test(path)) continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    symlinkSync(join(ROOT, path), join(folder, path), 'junction');
  }
  putProgram(join(folder, 'node_modules', '.bin'), 'onnx-fuse', join(target, 'dist', 'cli', 'bin.js'));
}

/** onnxruntime-node comes from the network: the one of this repository stands for it. */
export function linkRuntime(folder: string): void {
  const target = join(folder, 'node_modules', 'onnxruntime-node');
  if (!existsSync(target)) symlinkSync(join(MODULES, 'onnxruntime-node'), target, 'junction');
}

/** A program of that name in `folder`, for the shells of every system: Node with `script`. */
export function putProgram(folder: string, name: string, script: string): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, name), `#!/bin/sh\nexec "${process.execPath}" "${script}" "$@"\n`, { mode: 0o755 });
  writeFileSync(join(folder, `${name}.cmd`), `@"${process.execPath}" "${script}" %*\r\n`);
}
