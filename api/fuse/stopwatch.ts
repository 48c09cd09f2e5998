/** How long the phases of a run take. */
import type { Talk } from '../basics/progress.js';

export class Stopwatch {
  /** Seconds by phase. */
  readonly seconds: Record<string, number> = {};

  constructor(readonly talk: Talk) {}

  /** Runs `work` as a phase; its progress ends with it. */
  async time<T>(phase: string, work: () => T | Promise<T>): Promise<T> {
    const began = performance.now();
    try {
      return await work();
    } finally {
      this.seconds[phase] = (performance.now() - began) / 1000;
      this.talk.done();
    }
  }
}
