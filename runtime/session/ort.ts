/** The one place that loads onnxruntime-node: lazily, because it is an optional peer dependency. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { reasonOf } from '../../ir/diagnostic.js';
import { runtimeErrors } from './errors.js';

/** What we use of onnxruntime's tensor. Spelled out here so that our types do not need the optional package. */
export interface NativeTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: ArrayBufferView | string[];
  /** 'cpu', or 'gpu-buffer' for what was left on a GPU: reading its data throws. */
  readonly location?: string;
  dispose(): void;
}

/** An input or output as onnxruntime describes it. */
export interface NativeInfo {
  readonly name: string;
  readonly isTensor: boolean;
  readonly type?: string;
  readonly shape?: readonly (number | string)[];
}

/** What we use of a session of onnxruntime. */
export interface NativeSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly NativeInfo[];
  readonly outputMetadata: readonly NativeInfo[];
  run(
    feeds: Record<string, NativeTensor>,
    fetches: readonly string[],
    options: Record<string, unknown>,
  ): Promise<Record<string, NativeTensor>>;
  release(): Promise<void>;
  endProfiling(): void;
}

interface NativeModule {
  readonly InferenceSession: {
    create(model: string | Uint8Array, options: Record<string, unknown>): Promise<NativeSession>;
  };
  readonly Tensor: new (type: string, data: ArrayBufferView, dims: readonly number[]) => NativeTensor;
  readonly env: { logLevel?: string; readonly versions: { readonly node?: string; readonly common: string } };
}

/** Where a model runs. */
export type Provider = 'cpu' | 'cuda' | 'webgpu';

/** onnxruntime, loaded. */
export interface Runtime {
  /** Version of onnxruntime-node, for example `1.30.0`. */
  readonly version: string;
  /** @internal */ readonly native: NativeModule;
  /** Where onnxruntime's own library lies, and those of its providers; null when the package is laid out in an unknown way. */
  readonly libraryFolder: string | null;
}

const PACKAGE = 'onnxruntime-node';
let loading: Promise<Runtime> | null = null;

/**
 * Loads onnxruntime-node once per process.
 * @throws Diagnostic OF_NO_RUNTIME when it is not installed or does not start here.
 */
export function loadRuntime(): Promise<Runtime> {
  loading ??= load().catch((error: unknown) => {
    loading = null;
    throw runtimeErrors.noRuntime(whyNot(error));
  });
  return loading;
}

/** True when `loadRuntime` would succeed. */
export async function isRuntimeAvailable(): Promise<boolean> {
  return loadRuntime().then(
    () => true,
    () => false,
  );
}

async function load(): Promise<Runtime> {
  const imported = (await import('onnxruntime-node')) as unknown as NativeModule & { default?: NativeModule };
  const native = imported.InferenceSession ? imported : (imported.default as NativeModule);
  // Read once, when the first session is made. Everything worth saying arrives as an exception too.
  native.env.logLevel ??= 'fatal';
  if (native.env.logLevel === 'warning') native.env.logLevel = 'fatal';
  return {
    version: native.env.versions.node ?? native.env.versions.common,
    native,
    libraryFolder: findLibraries(),
  };
}

/** The package as it is installed; null when it is not, or is laid out in an unknown way. */
function installed(): { folder: string; version?: string; binary?: { napi_versions?: number[] } } | null {
  try {
    // The package does not export its package.json, so its folder is found from its main file, <folder>/dist/index.js.
    const folder = dirname(dirname(createRequire(import.meta.url).resolve(PACKAGE)));
    return { ...(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as object), folder };
  } catch {
    return null;
  }
}

/** Version of the onnxruntime-node that is installed, which is not loaded for it; null when there is none. */
export function installedRuntime(): string | null {
  return installed()?.version ?? null;
}

function findLibraries(): string | null {
  const found = installed();
  if (!found) return null;
  const folders = (found.binary?.napi_versions ?? [6]).map((version) =>
    join(found.folder, 'bin', `napi-v${version}`, process.platform, process.arch),
  );
  return folders.find(existsSync) ?? null;
}

function whyNot(error: unknown): string {
  const code = (error as { code?: string } | null)?.code;
  if (code === 'ERR_MODULE_NOT_FOUND' && reasonOf(error).includes(PACKAGE)) return 'it is not installed';
  return reasonOf(error);
}
