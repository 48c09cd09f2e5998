/**
 * A model in a process of its own, measured on request: sessions that live side by side distort each other's times, because the
 * threads of one spin while the other runs.
 */
import { elementCount } from '../../ir/type.js';
import { makeFeeds } from '../run/feeds.js';
import { randomTokens } from '../run/random.js';
import { checkClaim } from '../run/room.js';
import { hasCache } from '../run/steps.js';
import { type ModelLocation, openSession, placeOf, type Session, type SessionOptions } from '../session/session.js';
import { allocate, type HostTensor, type TensorMap } from '../session/tensor.js';
import type { Signature } from '../signature/signature.js';

/** What a worker is started with. */
export interface WorkerStart {
  readonly location: ModelLocation;
  readonly signature: Signature;
  readonly options: SessionOptions;
}

/** One turn: a prompt, then tokens one by one. */
export interface TurnRequest {
  readonly batch: number;
  readonly prompt: number;
  readonly decode: number;
  /** The prompt is not run: caches of as many positions are made up, whose values matter to no time. False by default. */
  readonly made?: boolean;
  /** Fewer tokens are decoded where they take longer than this, two at least. */
  readonly mostMs?: number;
}

/** What one turn took. */
export interface TurnTimes {
  /** null where the caches were made up. */
  readonly prefillMs: number | null;
  /** Of every decoded token; empty where the model cannot decode. */
  readonly decodeMs: readonly number[];
  readonly peakRssBytes: number;
}

/** One of the answers of a worker. */
export type WorkerAnswer =
  | { readonly ready: true; readonly loadMs: number }
  | { readonly times: TurnTimes }
  | { readonly failure: { readonly name: string; readonly message: string } };

const reply = (answer: WorkerAnswer): void => {
  process.send?.(answer);
};

async function turn(session: Session, signature: Signature, request: TurnRequest): Promise<TurnTimes> {
  const { batch, prompt, decode, mostMs = Number.POSITIVE_INFINITY } = request;
  const vocabulary = signature.vocabulary ?? 32;
  const ids = randomTokens(1, batch, prompt + decode, vocabulary);
  const names = [
    ...(signature.logits ? [signature.logits] : []),
    ...signature.caches.flatMap(({ output }) => output ?? []),
  ];
  const cached = hasCache(signature);
  const run = async (from: number, to: number, past: TensorMap | undefined): Promise<[number, TensorMap]> => {
    const { tensors } = makeFeeds(signature, {
      tokenIds: ids.map((row) => row.slice(from, to)),
      pastLength: past ? from : 0,
      ...(past ? { past } : {}),
    });
    const began = performance.now();
    const outputs = await session.run(tensors, names);
    return [performance.now() - began, outputs];
  };
  const [prefillMs, first] = request.made
    ? [null, madeUp(signature, (await run(0, 1, undefined))[1], prompt)]
    : await run(0, prompt, undefined);
  const decodeMs: number[] = [];
  let past = first;
  let spent = 0;
  for (let i = 0; cached && i < decode && (i < 2 || spent < mostMs); i++) {
    const [ms, outputs] = await run(prompt + i, prompt + i + 1, past);
    decodeMs.push(ms);
    spent += ms;
    freeGpu(past);
    past = outputs;
  }
  freeGpu(past);
  return { prefillMs, decodeMs, peakRssBytes: process.resourceUsage().maxRSS * 1024 };
}

/** The outputs of a run of one token with caches of `length` positions in the place of one. */
function madeUp(signature: Signature, outputs: TensorMap, length: number): TensorMap {
  const made = new Map<string, HostTensor>(outputs);
  for (const { output, sequenceAxis, capacity } of signature.caches) {
    const tensor = output === null ? undefined : outputs.get(output);
    if (!tensor || output === null || sequenceAxis === null || capacity !== null) continue;
    const dims = tensor.dims.map((dim, axis) => (axis === sequenceAxis ? length : dim));
    made.set(output, { dtype: tensor.dtype, dims, data: allocate(tensor.dtype, elementCount(dims)) });
    tensor.onGpu?.dispose();
  }
  return made;
}

/** Caches of a step that is over. */
function freeGpu(tensors: TensorMap): void {
  for (const { onGpu } of tensors.values()) onGpu?.dispose();
}

async function serve({ location, signature, options }: WorkerStart): Promise<void> {
  checkClaim(signature, placeOf(location));
  const began = performance.now();
  const session = await openSession(location, options);
  reply({ ready: true, loadMs: performance.now() - began });
  process.on('message', (request: TurnRequest | 'end') => {
    if (request === 'end') {
      void session.release().then(() => process.exit(0));
      return;
    }
    turn(session, signature, request).then((times) => reply({ times }), fail);
  });
}

function fail(error: unknown): void {
  const { name, message } = error as Error;
  reply({ failure: { name, message } });
}

// Started by workers.ts, and only so: imported elsewhere this file does nothing.
if (process.send && process.argv[2] === 'onnx-fuse-bench-worker') {
  process.once('message', (start: WorkerStart) => {
    serve(start).catch(fail);
  });
}
