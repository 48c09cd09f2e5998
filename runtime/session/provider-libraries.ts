/** Why a provider does not start here: which file or library is missing. onnxruntime says only that it failed to load one. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import { readSharedLibrary } from './elf.js';
import type { Provider } from './ort.js';

/** What a provider lacks, and what to do. */
export interface Lack {
  readonly why: string;
  readonly remedy: string;
}

/** Machine on which libraries are looked for; a parameter for tests. */
export interface Machine {
  readonly platform: string;
  readonly arch: string;
  /** LD_LIBRARY_PATH. */
  readonly libraryPath: string;
  /** Names of the libraries the loader knows or has loaded; null when that cannot be told. */
  known(): ReadonlySet<string> | null;
}

const here: Machine = {
  platform: process.platform,
  arch: process.arch,
  libraryPath: process.env['LD_LIBRARY_PATH'] ?? '',
  known: knownLibraries,
};

/** The driver's own library: it comes with no toolkit. */
const DRIVER = 'libcuda.so.1';
/** Opened by the CUDA provider when it starts, so that it is not among the libraries it names. */
const CUDNN = 'libcudnn.so.9';

/**
 * What must lie beside onnxruntime's own library and does not; null when nothing is known to be missing, or the folder is
 * not known (then onnxruntime itself has to say no).
 */
export function absentLibraries(provider: Provider, folder: string | null, machine: Machine = here): Lack | null {
  if (provider !== 'cuda' || folder === null) return null;
  const absent = namesOf(machine).filter((name) => !existsSync(join(folder, name)));
  if (absent.length === 0) return null;
  const why = `${absent.join(' and ')} ${absent.length > 1 ? 'are' : 'is'} not in ${folder}`;
  if (machine.platform === 'linux' && machine.arch === 'x64') {
    return { why, remedy: 'ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node fetches them; or use cpu' };
  }
  return {
    why: `${why}; onnxruntime-node has it for linux/x64 only, this is ${machine.platform}/${machine.arch}`,
    remedy: 'use webgpu or cpu',
  };
}

function namesOf({ platform }: Machine): string[] {
  const names = ['onnxruntime_providers_cuda', 'onnxruntime_providers_shared'];
  return names.map((name) => (platform === 'win32' ? `${name}.dll` : `lib${name}.so`));
}

/** The cause behind `reason`, with which onnxruntime refused; null when it is not found, and the reason itself must do. */
export function whyNotStarted(
  provider: Provider,
  folder: string | null,
  reason: string,
  machine: Machine = here,
): Lack | null {
  if (provider === 'webgpu') {
    if (!/adapter/i.test(reason)) return null;
    const wanted = machine.platform === 'linux' ? "install a GPU's Vulkan driver and libvulkan.so.1" : 'add a GPU';
    return { why: 'WebGPU finds no GPU here', remedy: `${wanted}, or use cpu` };
  }
  if (provider !== 'cuda' || folder === null || machine.platform !== 'linux') return null;
  try {
    return missingCuda(folder, machine);
  } catch {
    // A diagnosis that fails must not hide what onnxruntime said.
    return null;
  }
}

function missingCuda(folder: string, machine: Machine): Lack | null {
  const known = machine.known();
  const library = readSharedLibrary(join(folder, 'libonnxruntime_providers_cuda.so'));
  if (!known || !library) return null;
  const folders = [...machine.libraryPath.split(delimiter), ...library.searched, folder]
    .filter((path) => path !== '')
    .map((path) => path.replace(/\$ORIGIN|\$\{ORIGIN\}/g, folder));
  const missing = [...library.needed, CUDNN].filter(
    (name) => !known.has(name) && !folders.some((path) => existsSync(join(path, name))),
  );
  if (missing.length === 0) return null;
  const rest = [...new Set(missing)].filter((name) => name !== DRIVER);
  const parts = [
    ...(missing.includes(DRIVER) ? [`no NVIDIA driver (${DRIVER})`] : []),
    ...(rest.length > 0 ? [`the loader finds no ${rest.join(', ')}`] : []),
  ];
  const version = /libcudart\.so\.(\d+)/.exec(library.needed.join(' '))?.[1];
  const toolkit = `CUDA${version ? ` ${version}` : ''} and cuDNN 9`;
  const wanted = [
    ...(missing.includes(DRIVER) ? ['the NVIDIA driver'] : []),
    ...(rest.length > 0 ? [`${toolkit}, with their folders in LD_LIBRARY_PATH`] : []),
  ];
  return { why: parts.join('; '), remedy: `install ${wanted.join(' and ')}; or use cpu` };
}

/** What the loader's cache lists and this process has loaded; null without a cache (musl, for one, has none). */
function knownLibraries(): ReadonlySet<string> | null {
  for (const program of ['ldconfig', '/sbin/ldconfig']) {
    const { status, stdout } = spawnSync(program, ['-p'], { encoding: 'utf8', maxBuffer: 2 ** 26 });
    if (status !== 0) continue;
    const cached = [...stdout.matchAll(/^\s+(\S+) \(/gm)].map((match) => match[1] as string);
    return new Set([...cached, ...loadedLibraries()]);
  }
  return null;
}

function loadedLibraries(): string[] {
  const maps = readFileSync('/proc/self/maps', 'utf8');
  return [...maps.matchAll(/\S+\.so\S*$/gm)].map((match) => basename(match[0]));
}
