/** Models that are timed in turns, each in a process of its own. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { runtimeErrors } from '../session/errors.js';
import { placeOf } from '../session/session.js';
import type { TurnRequest, TurnTimes, WorkerAnswer, WorkerStart } from './bench-worker.js';
import { ask } from './child.js';

const WORKER = fileURLToPath(new URL('./bench-worker.js', import.meta.url));

/** One process a model. Call `end`. */
export class Workers {
  readonly #children: ChildProcess[] = [];
  readonly #places: string[] = [];
  /** Milliseconds that each model took to load. */
  readonly loadMs: number[] = [];

  private constructor() {}

  /** Starts them one after another. @throws Diagnostic OF_RUNTIME with the reason of the first that fails. */
  static async start(starts: readonly WorkerStart[]): Promise<Workers> {
    const workers = new Workers();
    try {
      for (const start of starts) {
        workers.#children.push(fork(WORKER, ['onnx-fuse-bench-worker'], { serialization: 'advanced' }));
        workers.#places.push(placeOf(start.location));
        const answer = await workers.#ask(workers.#children.length - 1, start);
        workers.loadMs.push('loadMs' in answer ? answer.loadMs : Number.NaN);
      }
      return workers;
    } catch (error) {
      workers.end();
      throw error;
    }
  }

  /** Lets one model have a turn. @throws Diagnostic OF_RUNTIME. */
  async turn(index: number, request: TurnRequest): Promise<TurnTimes> {
    const answer = await this.#ask(index, request);
    if ('times' in answer) return answer.times;
    throw runtimeErrors.runtimeFailed(this.#places[index] ?? '', 'its process gave no times');
  }

  end(): void {
    for (const child of this.#children) child.kill();
  }

  async #ask(index: number, request: object): Promise<WorkerAnswer> {
    const place = this.#places[index] ?? '';
    const answer = await ask<WorkerAnswer>(this.#children[index] as ChildProcess, request).catch((error: Error) => {
      throw runtimeErrors.runtimeFailed(place, error.message);
    });
    if ('failure' in answer) throw runtimeErrors.runtimeFailed(place, answer.failure.message);
    return answer;
  }
}

/** Whose turn it is in a round: the first one first in even rounds, last in odd ones. */
export function turnsOf(round: number, models: number): number[] {
  const order = Array.from({ length: models }, (_, index) => index);
  return round % 2 === 1 ? order.reverse() : order;
}
