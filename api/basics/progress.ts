/** What is said while work is going on: on stderr, never mixed with results. */
import { Presets, SingleBar } from 'cli-progress';
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
/** Without a terminal, a line now and then. */
const LINE_MS = 10_000;

/** Talks on stderr: a bar with rate and remaining time on a terminal, else a line every ten seconds. */
export function stderrTalk(): Talk {
  const isTerminal = process.stderr.isTTY === true;
  let bar: SingleBar | null = null;
  let began = 0;
  let said = 0;
  let current = '';
  const stop = (): void => {
    bar?.stop();
    bar = null;
    current = '';
  };
  return {
    note(text) {
      stop();
      process.stderr.write(`${visible(text)}\n`);
    },
    progress(phase, done, total, unit, detail) {
      const now = Date.now();
      if (phase !== current) {
        stop();
        current = phase;
        began = now;
        said = now;
      }
      const seconds = (now - began) / 1000;
      const gib = (bytes: number): string => (bytes / GIB).toFixed(2);
      const amount =
        unit === 'bytes'
          ? `${gib(done)} of ${gib(total)} GiB, ${gib(seconds > 0 ? done / seconds : 0)} GiB/s`
          : (detail ?? `${done} of ${total}`);
      if (!isTerminal) {
        if (now - said < LINE_MS) return;
        said = now;
        const left = done > 0 ? Math.round((seconds * (total - done)) / done) : 0;
        process.stderr.write(`${phase}: ${((100 * done) / total).toFixed(0)} %, ${amount}, ${left} s left\n`);
        return;
      }
      if (!bar && now - began > SHORTEST_MS) {
        const format = `${phase} {bar} {percentage} % | {amount} | {eta_formatted} left`;
        bar = new SingleBar({ format, stream: process.stderr, clearOnComplete: true }, Presets.shades_classic);
        bar.start(total, done, { amount });
      }
      bar?.update(done, { amount });
    },
    done: stop,
  };
}
