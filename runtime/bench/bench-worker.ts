/**
 * A model in a process of its own, measured on request: sessions that live side by side distort each other's times, because the
 * threads of one spin while the other runs.
 */
import { makeFeeds } from '../run/feeds.js';
import { randomTokens } from '../run/random.js';
import { checkClaim } from '../run/room.js';
import { hasCache } from '../run/steps.js';
import { openSession, type Session, type SessionOptions } from '../session/session.js';
import type { TensorMap } from '../session/tensor.js';
import type { Signature } from '../signature/signature.js';

/** What a worker is started with. */
export interface WorkerStart {
  readonly path: string;
  readonly signature: Signature;
  readonly options: SessionOptions;
}

/** One turn: a prompt, then tokens one by one. */
export interface TurnRequest {
  readonly batch: number;
  readonly prompt: number;
  readonly decode: number;
}

/** What one turn took. */
export interface TurnTimes {
  readonly prefillMs: number;
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
  const { batch, prompt, decode } = request;
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
  const [prefillMs, first] = await run(0, prompt, undefined);
  const decodeMs: number[] = [];
  let past = first;
  for (let i = 0; cached && i < decode; i++) {
    const [ms, outputs] = await run(prompt + i, prompt + i + 1, past);
    decodeMs.push(ms);
    freeGpu(past);
    past = outputs;
  }
  freeGpu(past);
  return { prefillMs, decodeMs, peakRssBytes: process.resourceUsage().maxRSS * 1024 };
}

/** Caches of a step that is over. */
function freeGpu(tensors: TensorMap): void {
  for (const { onGpu } of tensors.values()) onGpu?.dispose();
}

async function serve({ path, signature, options }: WorkerStart): Promise<void> {
  checkClaim(signature, path);
  const began = performance.now();
  const session = await openSession(path, options);
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

// Started by bench.ts, and only so: imported elsewhere this file does nothing.
if (process.send && process.argv[2] === 'onnx-fuse-bench-worker') {
  process.once('message', (start: WorkerStart) => {
    serve(start).catch(fail);
  });
}
