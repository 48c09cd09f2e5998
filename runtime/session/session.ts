/** Sessions of onnxruntime: opened quietly, released surely, failing with one line. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { Diagnostic, errors, reasonOf } from '../../ir/diagnostic.js';
import type { DataType, Dim } from '../../ir/type.js';
import { runtimeErrors } from './errors.js';
import { PREPACK_LIMIT } from './memory.js';
import {
  loadRuntime,
  type NativeInfo,
  type NativeSession,
  type NativeTensor,
  type Provider,
  type Runtime,
} from './ort.js';
import { absentLibraries, whyNotStarted } from './provider-libraries.js';
import { allocate, dataTypeOfNative, type HostTensor, nativeType, normalised, type TensorMap } from './tensor.js';

/** A model to run: a file, or bytes whose external data lies in `folder`. */
export type ModelLocation = string | { readonly bytes: Uint8Array; readonly folder: string };

/** What the model is called in messages. */
export function placeOf(model: ModelLocation): string {
  return typeof model === 'string' ? model : 'the model in memory';
}

/** How much onnxruntime rewrites a graph before it runs. */
export type OptimizationLevel = 'disabled' | 'basic' | 'extended' | 'all';

export type { Provider } from './ort.js';

/** How a model is opened. */
export interface SessionOptions {
  /** Where models run; `cpu` by default. */
  readonly provider?: Provider | undefined;
  /** Index of the GPU; 0 by default. */
  readonly deviceId?: number | undefined;
  /** How much onnxruntime may rewrite the graph at load; 'all' by default. */
  readonly optimization?: OptimizationLevel;
  /** Fail instead of running on the CPU what the provider has no kernel for. */
  readonly noFallback?: boolean | undefined;
  /** Bytes of weights; decides about prepacking. By default the size of the model file or bytes. */
  readonly weightBytes?: number;
  /** Intra-op threads; onnxruntime's choice by default. */
  readonly threads?: number | undefined;
  /** Keep freed memory for the next run; true by default. Where many sessions are open together, their arenas add up. */
  readonly arena?: boolean;
  /** Outputs to leave on the GPU, to be fed to the next run from there: of webgpu only, the others copy every output. */
  readonly onGpu?: readonly string[];
  /** Write a per-kernel profile to `<prefix>_<time>.json` until `release`. */
  readonly profilePrefix?: string;
}

/** Name, element type and shape of an input or output as onnxruntime sees it. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DataType;
  readonly shape: readonly Dim[];
}

/** An open session. Its memory is native: call `release`. */
export class Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  #native: NativeSession | null;
  readonly #runtime: Runtime;
  readonly #profiling: boolean;

  constructor(
    runtime: Runtime,
    native: NativeSession,
    /** What the model is called in messages. */
    readonly place: string,
    /** The level the model loaded at, which is higher than asked for when onnxruntime refused that one. */
    readonly optimizationLevel: OptimizationLevel,
    readonly provider: Provider,
    profiling: boolean,
  ) {
    this.#runtime = runtime;
    this.#native = native;
    this.#profiling = profiling;
    this.inputs = native.inputMetadata.map(infoOf);
    this.outputs = native.outputMetadata.map(infoOf);
  }

  /**
   * Runs the model once. Blocks the event loop while it computes.
   * @throws Diagnostic OF_RUNTIME with onnxruntime's reason.
   */
  async run(
    feeds: TensorMap,
    fetch: readonly string[] = this.outputs.map((output) => output.name),
  ): Promise<Map<string, HostTensor>> {
    if (!this.#native) throw runtimeErrors.runtimeFailed(this.place, 'the session was released');
    // Names are the model's: one may be '__proto__'.
    const natives: Record<string, NativeTensor> = Object.create(null);
    for (const [name, tensor] of feeds) natives[name] = toNative(this.#runtime, tensor);
    let results: Record<string, NativeTensor>;
    try {
      results = await this.#native.run(natives, fetch, QUIET);
    } catch (error) {
      throw runtimeErrors.runtimeFailed(this.place, explain(error));
    }
    const outputs = new Map<string, HostTensor>();
    for (const name of fetch) {
      const tensor = results[name];
      if (tensor) outputs.set(name, fromNative(tensor, `${this.place}, output '${name}'`));
    }
    return outputs;
  }

  /** Frees the native session. Harmless when repeated. */
  async release(): Promise<void> {
    const native = this.#native;
    this.#native = null;
    if (this.#profiling) native?.endProfiling();
    await native?.release();
  }
}

/** Fatal only: failures arrive as exceptions, warnings about graph details are noise on the user's terminal. */
const QUIET = { logSeverityLevel: 4 };

/**
 * Opens a model. When it does not load at 'disabled' it is opened at 'basic' (some fp16 graphs get casts inserted that
 * type-check only after basic optimisation): see `optimizationLevel` of the session.
 * @throws Diagnostic OF_NO_RUNTIME, OF_NO_PROVIDER, OF_NO_SUCH_FILE or OF_RUNTIME.
 */
export async function openSession(model: ModelLocation, options: SessionOptions = {}): Promise<Session> {
  const runtime = await loadRuntime();
  const provider = options.provider ?? 'cpu';
  const absent = absentLibraries(provider, runtime.libraryFolder);
  if (absent) throw runtimeErrors.noProvider(provider, absent.why, absent.remedy);
  const place = placeOf(model);
  const bytes = options.weightBytes ?? sizeOf(model);
  const wanted = options.optimization ?? 'all';
  const open = async (level: OptimizationLevel): Promise<Session> => {
    const native = await create(runtime, model, nativeOptions(model, options, level, bytes));
    return new Session(runtime, native, place, level, provider, options.profilePrefix !== undefined);
  };
  try {
    return await open(wanted);
  } catch (error) {
    const retry = wanted === 'disabled' && /Type Error/.test(reasonOf(error));
    const session = retry ? await open('basic').catch(() => null) : null;
    if (session) return session;
    throw failure(error, place, provider, runtime);
  }
}

/** Opens a model, passes the session to `body` and releases it whatever happens. */
export async function withSession<T>(
  model: ModelLocation,
  options: SessionOptions,
  body: (session: Session) => Promise<T>,
): Promise<T> {
  const session = await openSession(model, options);
  try {
    return await body(session);
  } finally {
    await session.release();
  }
}

function create(runtime: Runtime, model: ModelLocation, options: Record<string, unknown>): Promise<NativeSession> {
  return runtime.native.InferenceSession.create(typeof model === 'string' ? model : model.bytes, options);
}

function sizeOf(model: ModelLocation): number {
  if (typeof model !== 'string') return model.bytes.byteLength;
  try {
    return statSync(model).size;
  } catch {
    throw errors.noSuchFile(model);
  }
}

function nativeOptions(
  model: ModelLocation,
  options: SessionOptions,
  level: OptimizationLevel,
  bytes: number,
): Record<string, unknown> {
  const session: Record<string, string> = {
    // Idle pools that spin would slow down the other sessions of this process.
    'intra_op.allow_spinning': '0',
    'inter_op.allow_spinning': '0',
  };
  if (bytes > PREPACK_LIMIT) session['disable_prepacking'] = '1';
  if (options.noFallback) session['disable_cpu_ep_fallback'] = '1';
  if (typeof model !== 'string') session['model_external_initializers_file_folder_path'] = resolve(model.folder);
  return {
    ...QUIET,
    executionProviders: [
      options.provider === 'cuda'
        ? { name: 'cuda', deviceId: options.deviceId ?? 0 }
        : { name: options.provider ?? 'cpu' },
    ],
    graphOptimizationLevel: level,
    ...(options.arena === false ? { enableCpuMemArena: false, enableMemPattern: false } : {}),
    ...(options.onGpu === undefined
      ? {}
      : { preferredOutputLocation: Object.fromEntries(options.onGpu.map((name) => [name, 'gpu-buffer'])) }),
    ...(options.threads === undefined ? {} : { intraOpNumThreads: options.threads }),
    ...(options.profilePrefix === undefined ? {} : { enableProfiling: true, profileFilePrefix: options.profilePrefix }),
    extra: { session },
  };
}

function infoOf(info: NativeInfo): TensorInfo {
  return {
    name: info.name,
    dtype: info.isTensor ? dataTypeOfNative(info.type ?? 'undefined') : 'undefined',
    shape: (info.shape ?? []).map((dim) => (dim === '' || dim === -1 ? null : dim)),
  };
}

function toNative(runtime: Runtime, tensor: HostTensor): NativeTensor {
  if (tensor.onGpu) return tensor.onGpu as NativeTensor;
  const native = new runtime.native.Tensor(nativeType(tensor.dtype), tensor.data, tensor.dims);
  // Where Node has a Float16Array (23 and later) the constructor turns the bits into one, which the native side of 1.30
  // takes for an empty tensor. It does understand the Uint16Array.
  if (native.data !== tensor.data) (native as unknown as { cpuData: unknown }).cpuData = tensor.data;
  return native;
}

function fromNative(tensor: NativeTensor, place: string): HostTensor {
  const dtype = dataTypeOfNative(tensor.type);
  if (tensor.location === 'gpu-buffer') {
    return { dtype, dims: tensor.dims.map(Number), data: allocate(dtype, 0), onGpu: tensor };
  }
  if (Array.isArray(tensor.data)) throw runtimeErrors.runtimeFailed(place, 'is a tensor of strings');
  return { dtype, dims: tensor.dims.map(Number), data: normalised(dtype, tensor.data as ArrayBufferView) };
}

function failure(error: unknown, place: string, provider: Provider, runtime: Runtime): Diagnostic {
  if (error instanceof Diagnostic) return error;
  const start =
    /AppendExecutionProvider|execution provider|backend not found|shared library|(CUDA|cuDNN|cuBLAS) (failure|error)|WebGPU (adapter|device)/i;
  if (provider !== 'cpu' && start.test(reasonOf(error))) {
    const known = whyNotStarted(provider, runtime.libraryFolder, reasonOf(error));
    return runtimeErrors.noProvider(provider, known?.why ?? explain(error), known?.remedy);
  }
  return runtimeErrors.runtimeFailed(place, explain(error));
}

/** onnxruntime's reason in one line, in words a user can act on where the cause is a known one. */
function explain(error: unknown): string {
  const reason = reasonOf(error)
    .replace(/\/onnxruntime_src\/\S+(\s+\S+\([^)]*\))?\s*/g, '')
    .trim();
  const rotary = /(\S+) node\. Name:'([^']*)'.*head_size shall be a multiple of 16/.exec(reason);
  if (rotary) {
    return `${rotary[1]} '${rotary[2]}' applies rotary embeddings itself, which it does only for head sizes that are a multiple of 16`;
  }
  const refused = /(\S+) node\. Name:'([^']*)'.* was false\.\s*(.*)$/.exec(reason);
  if (refused?.[3]) return `${refused[1]} '${refused[2]}': ${refused[3]}`;
  const kernel = /Could not find an implementation for (\S+) node with name '([^']*)'/.exec(reason);
  if (kernel)
    return `this provider has no kernel for ${kernel[1]} at '${kernel[2]}' (often its element type, such as bfloat16)`;
  return reason;
}
