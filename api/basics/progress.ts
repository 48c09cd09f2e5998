/** What is said while work is going on: on stderr, never mixed with results. */
import { createRequire } from 'node:module';
import type { SingleBar } from 'cli-progress';
import { visible } from '../../ir/index.js';

/** Where notes and progress go. A library caller may pass its own. */
export interface Talk {
  note(text: string): void;
  /** So much of a total is done, in bytes (shown with their rate) or in steps, or as `detail` says; called often. */
  progress(phase: string, done: number, total: number, unit?: 'bytes', detail?: string): void;
  /** The phase is over: progress lines end. */
  done(): void;
}

/** Says nothing. */
export const silent: Talk = { note: () => {}, progress: () => {}, done: () => {} };

const GIB = 2 ** 30;
/** Work that is over sooner needs no bar. */
const SHORTEST_MS = 500;
/** Nor lines, where there is no terminal; longer work gets one for each ten per cent. */
const SHORTEST_LOGGED_MS = 2000;
const LINES = 10;

/** What is written to: stderr, and a clock. */
interface Listener {
  readonly stream: { readonly isTTY?: boolean; write(text: string): unknown };
  now(): number;
}

/** Talks on stderr: a bar with rate and remaining time on a terminal, else a line for each ten per cent of what takes a while. */
export function stderrTalk({ stream, now }: Listener = { stream: process.stderr, now: Date.now }): Talk {
  let bar: SingleBar | null = null;
  let began = 0;
  /** Tenths of the work that were done when it was looked at last. */
  let tenths = 0;
  let current = '';
  const stop = (): void => {
    bar?.stop();
    bar = null;
    current = '';
  };
  return {
    note(text) {
      stop();
      stream.write(`${visible(text)}\n`);
    },
    progress(phase, done, total, unit, detail) {
      if (phase !== current) {
        stop();
        current = phase;
        began = now();
        tenths = 0;
      }
      const elapsed = now() - began;
      const seconds = elapsed / 1000;
      const gib = (bytes: number): string => (bytes / GIB).toFixed(2);
      const amount =
        unit === 'bytes'
          ? `${gib(done)} of ${gib(total)} GiB, ${gib(seconds > 0 ? done / seconds : 0)} GiB/s`
          : (detail ?? `${done} of ${total}`);
      if (!stream.isTTY) {
        const reached = total > 0 ? Math.floor((LINES * done) / total) : LINES;
        if (reached > tenths && elapsed >= SHORTEST_LOGGED_MS) {
          const left = done > 0 ? Math.round((seconds * (total - done)) / done) : 0;
          stream.write(`${phase}: ${(100 / LINES) * reached} %, ${amount}, ${left} s left\n`);
        }
        tenths = Math.max(tenths, reached);
        return;
      }
      if (!bar && elapsed > SHORTEST_MS) {
        const format = `${phase} {bar} {percentage} % | {amount} | {eta_formatted} left`;
        // Loaded only where there is something to draw: most work is over sooner. With require, because nobody waits here.
        const { Presets, SingleBar } = createRequire(import.meta.url)('cli-progress') as typeof import('cli-progress');
        bar = new SingleBar(
          { format, stream: stream as NodeJS.WriteStream, clearOnComplete: true },
          Presets.shades_classic,
        );
        bar.start(total, done, { amount });
      }
      bar?.update(done, { amount });
    },
    done: stop,
  };
}
