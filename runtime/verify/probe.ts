/**
 * A first run of a model in a process of its own. onnxruntime works inside our process without ever pausing, so a model
 * that loops for ever, fills memory or brings onnxruntime down would do so to us. Another process can be ended.
 */
import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Model } from '../../ir/core.js';
import { runtimeErrors } from '../session/errors.js';
import { weightBytes } from '../session/memory.js';
import type { VerifyOptions } from './verify.js';

/** What the process is started with. */
export interface ProbeRequest {
  readonly path: string;
  readonly options: ProbeOptions;
}

export type ProbeOptions = Pick<VerifyOptions, 'provider' | 'allowFallback'>;

/** Why the model does not run, null when it does; or the fault of ours that was met. */
export type ProbeAnswer = { readonly reason: string | null } | { readonly fault: string };

export interface Probed {
  /** Why the model does not run here; null when it does. */
  readonly reason: string | null;
  /** Whether it had to be ended: running it in this process would be worse. */
  readonly stopped: boolean;
}

const WORKER = fileURLToPath(new URL('./probe-worker.js', import.meta.url));
const POLL_MS = 20;
/** Seconds of computing that any model gets, and bytes of weights that are worth one more. */
const ALWAYS_SECONDS = 6;
const BYTES_PER_SECOND = 40e6;
/**
 * Of the clock it may take so many times as long, on a machine that does other things, too: a busy one has been seen to take a
 * hundred seconds for one second of computing. Where the system tells what was computed, the clock only ends what waits for ever.
 */
const PATIENCE = { told: 200, untold: 15 };
/** Bytes of memory that any model gets: Node and onnxruntime alone take a third; and how often its weights may be there. */
const ALWAYS_BYTES = 350 * 2 ** 20;
const TIMES_WEIGHTS = 6;

/** Runs the model in a file once, within limits that its weights explain. */
export function probe(path: string, model: Model, options: ProbeOptions = {}): Promise<Probed> {
  const weights = weightBytes(model);
  const seconds = ALWAYS_SECONDS + weights / BYTES_PER_SECOND;
  // A GPU's libraries take memory of their own.
  const isOnCpu = (options.provider ?? 'cpu') === 'cpu';
  const bytes = isOnCpu ? ALWAYS_BYTES + TIMES_WEIGHTS * weights : Number.POSITIVE_INFINITY;
  const child = fork(WORKER, ['onnx-fuse-probe-worker'], {
    execArgv: [],
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  const began = performance.now();
  const end = (): void => {
    child.kill('SIGKILL');
  };
  process.once('exit', end);
  return new Promise<Probed>((resolve, reject) => {
    const finish = (): void => {
      clearInterval(timer);
      process.off('exit', end);
      end();
    };
    const settle = (found: Probed): void => {
      finish();
      resolve(found);
    };
    const stop = (limit: string): void =>
      settle({ reason: `it was stopped at ${limit}, far more than its weights explain`, stopped: true });
    const timer = setInterval(() => {
      const used = usageOf(child.pid);
      const wall = (performance.now() - began) / 1000;
      const patience = seconds * (used ? PATIENCE.told : PATIENCE.untold);
      if ((used?.seconds ?? 0) > seconds) stop(`${seconds.toFixed(0)} s of computing`);
      else if (wall > patience) stop(`${patience.toFixed(0)} s`);
      else if ((used?.bytes ?? 0) > bytes) stop(`${(bytes / 2 ** 20).toFixed(0)} MiB of memory`);
    }, POLL_MS);
    child.once('message', (answer: ProbeAnswer) => {
      if ('reason' in answer) settle({ reason: answer.reason, stopped: false });
      else {
        finish();
        reject(new Error(answer.fault));
      }
    });
    child.once('error', (error) => settle({ reason: `it could not be started: ${error.message}`, stopped: false }));
    child.once('exit', (code, signal) =>
      settle({ reason: `onnxruntime brought its process down (${signal ?? `exit code ${code}`})`, stopped: true }),
    );
    const request: ProbeRequest = { path, options };
    child.send(request);
  });
}

/** @throws Diagnostic OF_RUNTIME for a model that had to be ended. One that only does not run is left to say so itself. */
export async function checkEnds(path: string, model: Model, options: ProbeOptions = {}): Promise<void> {
  const { reason, stopped } = await probe(path, model, options);
  if (stopped) throw runtimeErrors.runtimeFailed(path, reason ?? '');
}

/** Ticks of the processor's clock in a second, on every Linux that Node runs on. */
const TICKS = 100;
const PAGE = 4096;

/** What a process has used so far; null where the system does not tell. */
function usageOf(pid: number | undefined): { readonly seconds: number; readonly bytes: number } | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name of the program, in parentheses, may hold anything.
    const fields = text
      .slice(text.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    const [user = 0, system = 0, pages = 0] = [fields[11], fields[12], fields[21]];
    return { seconds: (user + system) / TICKS, bytes: pages * PAGE };
  } catch {
    return null;
  }
}
