/** What this machine and this installation are, for reports of bugs. */
import { mkdtempSync, rmSync } from 'node:fs';
import { arch, cpus, release, tmpdir, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { Diagnostic, openModel, parseModel, saveModel } from '../../ir/index.js';
import { availableMemory, findGenai, loadRuntime, type Provider, probe } from '../../runtime/index.js';
import { packageVersion } from '../basics/package-version.js';
import { defaultPython } from '../plan/measured-speed.js';

/** Something that may be there, or the reason why it is not. */
export interface Presence {
  readonly name: string;
  readonly available: boolean;
  /** Its version, where it has one. */
  readonly version: string | null;
  /** Null where it is there. */
  readonly reason: string | null;
}

/** Versions, hardware, and where models can be run. */
export interface Environment {
  readonly versions: { readonly 'onnx-fuse': string; readonly node: string };
  readonly system: { readonly type: string; readonly release: string; readonly arch: string };
  readonly cpu: { readonly model: string; readonly count: number };
  /** Bytes. `available` is what a process of ours may still take. */
  readonly memory: { readonly total: number; readonly available: number };
  /** onnxruntime-node, and onnxruntime-genai of the Python that speed is measured with. */
  readonly runtimes: readonly Presence[];
  /** Where onnxruntime-node runs models: each was tried. */
  readonly providers: readonly Presence[];
}

const PROVIDERS = ['cpu', 'cuda', 'webgpu'] as const satisfies readonly Provider[];

/** Nothing that a provider could lack a kernel for. */
const SMALLEST = '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Add(x, x) }';

/** Looks at this machine. A provider is tried with a model of one node. */
export async function environment(): Promise<Environment> {
  const all = cpus();
  const genai = await findGenai(defaultPython());
  const runtimes = [
    await runtimeHere(),
    typeof genai === 'string'
      ? { name: 'onnxruntime-genai', available: false, version: null, reason: `it cannot be loaded: ${genai}` }
      : { name: 'onnxruntime-genai', available: true, version: genai.version, reason: null },
  ];
  return {
    versions: { 'onnx-fuse': await packageVersion(), node: process.versions.node },
    system: { type: type(), release: release(), arch: arch() },
    cpu: { model: all[0]?.model.trim() || 'unknown', count: all.length },
    memory: { total: totalmem(), available: availableMemory() },
    runtimes,
    providers: await providersHere(),
  };
}

async function runtimeHere(): Promise<Presence> {
  const name = 'onnxruntime-node';
  try {
    return { name, available: true, version: (await loadRuntime()).version, reason: null };
  } catch (error) {
    if (!(error instanceof Diagnostic)) throw error;
    return { name, available: false, version: null, reason: error.text };
  }
}

/** Each is tried in a process of its own: a driver may end the one that it is loaded in. */
async function providersHere(): Promise<Presence[]> {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-env-'));
  try {
    const path = join(folder, 'smallest.onnx');
    await saveModel(parseModel(SMALLEST), path);
    const model = openModel(path);
    const found: Presence[] = [];
    for (const provider of PROVIDERS) {
      const { reason } = await probe(path, model, { provider, allowFallback: true });
      found.push({ name: provider, available: reason === null, version: null, reason });
    }
    return found;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
