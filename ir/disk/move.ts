/**
 * Renaming and removing as Windows needs it: a virus scanner or an indexer holds a new file for a moment, and whoever moves it
 * then is told that this is not permitted. Elsewhere the same codes mean what they say, and nothing is tried again.
 */
import { renameSync, rmSync } from 'node:fs';

/** What Windows says of a file that somebody else has open. */
const HELD = new Set(['EPERM', 'EACCES', 'EBUSY']);
/** How long to wait before each further attempt, in ms: two seconds in all, as installers do. */
const WAITS = [10, 20, 50, 100, 200, 400, 500, 700] as const;

/** The system that files are moved on; tests give one of their own. */
export interface MovingSystem {
  readonly platform: string;
  rename(from: string, to: string): void;
  /** Waits in place: no signal handler of this process may come in between two moves. */
  wait(ms: number): void;
}

const SYSTEM: MovingSystem = {
  platform: process.platform,
  rename: renameSync,
  wait: (ms) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
};

/** Renames, again where somebody may hold the file for a moment. Throws what the last attempt did. */
export function moveFile(from: string, to: string, system: MovingSystem = SYSTEM): void {
  const waits = system.platform === 'win32' ? WAITS : [];
  for (let attempt = 0; ; attempt++) {
    try {
      system.rename(from, to);
      return;
    } catch (error) {
      const ms = waits[attempt];
      if (ms === undefined || !HELD.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
      system.wait(ms);
    }
  }
}

/** Removes a folder, or whatever is there, with all that is in it. Node itself tries again where somebody holds a file. */
export function removeAll(path: string): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
}
