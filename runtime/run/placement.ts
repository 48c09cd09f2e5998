/** Where the nodes of a model really ran: onnxruntime gives to the CPU, without a word, what a provider has no kernel for. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Model } from '../../ir/core.js';
import { errors, reasonOf } from '../../ir/diagnostic.js';
import { runtimeErrors } from '../session/errors.js';
import { weightBytes } from '../session/memory.js';
import { type ModelLocation, openSession, type Provider, placeOf, type SessionOptions } from '../session/session.js';
import { readSignature } from '../signature/signature.js';
import { hasCache, runSteps, stepTokens } from './steps.js';

/** Op type -> nodes. */
export type NodeCounts = Readonly<Record<string, number>>;

/** Nodes by where they ran, each counted once, however often it ran. */
export interface Placement {
  readonly provider: Provider;
  /** On the provider that was asked for. */
  readonly onProvider: number;
  /** On the CPU: the model's own computation, which should not be there. */
  readonly computedOnCpu: NodeCounts;
  /** On the CPU: arithmetic on shapes, positions and masks, which onnxruntime keeps there on purpose, and copies. */
  readonly smallOnCpu: NodeCounts;
}

/** What onnxruntime calls a provider in its profile. */
const NAMES: Record<Provider, string> = {
  cpu: 'CPUExecutionProvider',
  cuda: 'CUDAExecutionProvider',
  webgpu: 'WebGpuExecutionProvider',
};

/** Products of matrices, and what combines whole hidden states. Weights of constant nodes are not counted by the profile. */
const COMPUTES =
  /MatMul|Gemm|^Conv|Attention|Embedding|^MoE$|^QMoE$|Normaliz|LayerNorm|^GatherBlockQuantized$|^Einsum$|^Softmax$/i;

/** A node that reads more constants than this carries weights, whatever it is called; less are shapes, axes and scales. */
const WEIGHT_BYTES = 64 * 1024;

interface NodeEvent {
  readonly op: string;
  readonly node: string;
  readonly provider: string;
  readonly parameterBytes: number;
}

/**
 * Reads a profile of onnxruntime (the trace-event JSON it writes).
 * @throws Diagnostic OF_RUNTIME when it is no profile, or has no node that ran.
 */
export function readPlacement(profile: string, provider: Provider, place: string): Placement {
  const nodes = new Map<string, NodeEvent>();
  for (const event of eventsOf(profile, place)) nodes.set(`${event.node} ${event.op}`, event);
  if (nodes.size === 0) throw runtimeErrors.runtimeFailed(place, 'its profile names no node that ran');
  const computed = new Map<string, number>();
  const small = new Map<string, number>();
  let onProvider = 0;
  for (const { op, provider: where, parameterBytes } of nodes.values()) {
    if (where === NAMES[provider]) {
      onProvider++;
      continue;
    }
    const counts = COMPUTES.test(op) || parameterBytes > WEIGHT_BYTES ? computed : small;
    counts.set(op, (counts.get(op) ?? 0) + 1);
  }
  return { provider, onProvider, computedOnCpu: Object.fromEntries(computed), smallOnCpu: Object.fromEntries(small) };
}

function eventsOf(profile: string, place: string): NodeEvent[] {
  let events: unknown;
  try {
    events = JSON.parse(profile);
  } catch (error) {
    throw runtimeErrors.runtimeFailed(place, `its profile cannot be read: ${reasonOf(error)}`);
  }
  if (!Array.isArray(events)) throw runtimeErrors.runtimeFailed(place, 'its profile is no list of events');
  return events.flatMap((event: { cat?: unknown; name?: unknown; args?: Record<string, unknown> } | null) => {
    const args = event?.args;
    if (event?.cat !== 'Node' || typeof args?.['provider'] !== 'string' || typeof args['op_name'] !== 'string')
      return [];
    const node = String(args['node_index'] ?? event.name);
    return [
      { op: args['op_name'], node, provider: args['provider'], parameterBytes: Number(args['parameter_size'] ?? 0) },
    ];
  });
}

/**
 * Opens the model as it is going to be used, with a profile, runs a few tokens and a decode step, and says where the
 * nodes ran.
 * @throws Diagnostic OF_NO_PROVIDER, OF_RUNTIME, OF_CANNOT_FEED, OF_WRITE.
 */
export async function measurePlacement(
  location: ModelLocation,
  model: Model,
  options: SessionOptions,
): Promise<Placement> {
  const place = placeOf(location);
  const signature = readSignature(model);
  const tokenIds = stepTokens(signature, 1, 4, 1);
  const folder = makeFolder();
  try {
    const session = await openSession(location, {
      ...options,
      weightBytes: weightBytes(model),
      profilePrefix: join(folder, 'profile'),
    });
    try {
      await runSteps(session, signature, { tokenIds }).catch((error: unknown) => {
        const again = hasCache(signature) && runtimeErrors.runtimeFailed.is(error);
        if (again) return runSteps(session, signature, { tokenIds, stepwise: true });
        throw error;
      });
    } finally {
      await session.release();
    }
    const file = readdirSync(folder)[0];
    if (file === undefined) throw runtimeErrors.runtimeFailed(place, 'it wrote no profile');
    return readPlacement(readFileSync(join(folder, file), 'utf8'), options.provider ?? 'cpu', place);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function makeFolder(): string {
  const path = join(tmpdir(), 'onnx-fuse-profile-');
  try {
    return mkdtempSync(path);
  } catch (error) {
    throw errors.writeFailed(path, reasonOf(error));
  }
}

/** Refuses a fallback. @throws Diagnostic OF_PROVIDER_FALLBACK when the CPU did the model's work, or the provider did nothing at all. */
export function checkPlacement(placement: Placement, place: string): void {
  const { provider, onProvider, computedOnCpu, smallOnCpu } = placement;
  if (provider === 'cpu') return;
  if (Object.keys(computedOnCpu).length > 0)
    throw runtimeErrors.providerFallback(provider, place, countsText(computedOnCpu));
  if (onProvider === 0) throw runtimeErrors.providerFallback(provider, place, `all of it (${countsText(smallOnCpu)})`);
}

/** `MatMul 28, Add 3`: the most frequent first. */
export function countsText(counts: NodeCounts): string {
  return Object.entries(counts)
    .sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))
    .map(([op, count]) => `${op} ${count}`)
    .join(', ');
}
