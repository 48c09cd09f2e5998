/**
 * Temporary folders beside a target, and how what is complete in one takes the target's place: all of it or none, also
 * when the process dies at any moment, and when several runs have one target.
 *
 *     .out.onnx.onnx-fuse-<pid>-<random>   a run's own; what is in it has its final names
 *     .out.onnx.onnx-fuse-commit           one of them, complete, and on its way into place
 *
 * Taking the second name is taking the turn: there is one, so runs do not mix. A run that dies within its turn has left
 * everything that the output needs; the next one for the same target finishes it, and removes what other dead runs left.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errors, reasonOf } from '../diagnostic.js';

/** How long to wait for another run that puts its files in place: a few renames. */
const PATIENCE_MS = 60_000;
const POLL_MS = 10;
/** Names the process whose turn it is; holds the list of what goes into place. */
const OWNER = '.onnx-fuse-owner-';
const OLD = '.old';

const prefixOf = (outPath: string): string => `.${basename(outPath)}.onnx-fuse-`;
const turnOf = (outPath: string): string => join(resolve(dirname(outPath)), `${prefixOf(outPath)}commit`);

/** Temporary folders of this process. */
const temporaries = new Set<string>();

/**
 * A path beside `outPath` for a new temporary folder. Before that, the folders of runs that ended midway are dealt with: a
 * complete output that was being moved into place is moved there, and anything else is removed. Throws OF_WRITE.
 */
export function temporaryFor(outPath: string): string {
  try {
    finishInterrupted(outPath);
    removeAbandoned(outPath);
  } catch (error) {
    throw errors.writeFailed(outPath, reasonOf(error));
  }
  const path = ownName(outPath);
  temporaries.add(path);
  return path;
}

function ownName(outPath: string): string {
  const folder = resolve(dirname(outPath));
  return join(folder, `${prefixOf(outPath)}${process.pid}-${randomBytes(6).toString('hex')}`);
}

/** Removes a temporary folder and what is in it. */
export async function removeTemporary(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true });
  temporaries.delete(path);
}

/** Removes every temporary folder of this process, which is about to end. Returns how many there were. */
export function removeTemporaries(): number {
  const paths = [...temporaries];
  // Writes that are still on their way may put a file into a folder that is being removed.
  for (const path of paths) rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
  temporaries.clear();
  return paths.length;
}

/**
 * Moves `names` from `temporary` to where `outPath` is. The last one is what makes the output visible: before it is there,
 * nothing of an old output is, so that no old header is seen beside new data. Afterwards `temporary` is gone. On failure
 * everything is as it was before. Throws OF_WRITE.
 */
export async function commitFiles(temporary: string, outPath: string, names: readonly string[]): Promise<void> {
  const folder = resolve(dirname(outPath));
  const turn = turnOf(outPath);
  try {
    writeDurably(join(temporary, `${OWNER}${process.pid}`), JSON.stringify(names));
    await takeTurn(temporary, outPath);
    // Without a pause from here on: no signal handler of this process comes in between.
    try {
      moveAll(turn, folder, names);
    } finally {
      renameSync(turn, temporary);
    }
    await syncFolder(folder);
  } catch (error) {
    throw errors.writeFailed(outPath, reasonOf(error));
  } finally {
    // What could not be taken back is not thrown away.
    const isLost = entriesOf(temporary).some((entry) => names.includes(entry));
    const isOld = entriesOf(temporary).some((entry) => entry.endsWith(OLD));
    if (!(isLost && isOld)) await removeTemporary(temporary);
  }
}

function writeDurably(path: string, text: string): void {
  const file = openSync(path, 'w');
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

async function takeTurn(temporary: string, outPath: string): Promise<void> {
  for (const began = Date.now(); ; ) {
    try {
      renameSync(temporary, turnOf(outPath));
      return;
    } catch (error) {
      if (!isTaken(error)) throw error;
    }
    if (finishInterrupted(outPath)) continue;
    if (Date.now() - began > PATIENCE_MS) {
      throw new Error(`another run has been putting its files in place for a minute (${turnOf(outPath)})`);
    }
    await sleep(POLL_MS);
  }
}

/** What renaming a folder to an existing one that is not empty says, on various systems. */
function isTaken(error: unknown): boolean {
  const { code = '' } = error as NodeJS.ErrnoException;
  return ['ENOTEMPTY', 'EEXIST'].includes(code) || (process.platform === 'win32' && ['EPERM', 'EACCES'].includes(code));
}

/** Finishes what a dead run was putting in place. False when there is none, or its run still lives. */
function finishInterrupted(outPath: string): boolean {
  const turn = turnOf(outPath);
  const file = entriesOf(turn).find((entry) => entry.startsWith(OWNER));
  if (file === undefined || isAlive(Number(file.slice(OWNER.length)))) return false;
  const mine = join(turn, `${OWNER}${process.pid}`);
  try {
    // Of several that find it, the one that can do this has the turn.
    renameSync(join(turn, file), mine);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  moveAll(turn, dirname(turn), JSON.parse(readFileSync(mine, 'utf8')) as string[]);
  const rest = ownName(outPath);
  renameSync(turn, rest);
  rmSync(rest, { recursive: true, force: true });
  return true;
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** What is there: nothing, a file (or anything like one), or a folder. */
function kindOf(path: string): 'file' | 'folder' | null {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found ? (found.isDirectory() ? 'folder' : 'file') : null;
}

/**
 * The old output goes aside, the last name first; then everything goes into place, the last name last. Done once more it
 * goes on where it was interrupted. Takes back what it did when something fails.
 */
function moveAll(turn: string, folder: string, names: readonly string[]): void {
  const last = names.at(-1) ?? '';
  const isMoved = kindOf(join(turn, last)) === null;
  if (isMoved) return;
  const undo: (() => void)[] = [];
  const move = (from: string, to: string): void => {
    renameSync(from, to);
    undo.push(() => renameSync(to, from));
  };
  const setAside = (name: string): void => {
    const target = join(folder, name);
    const found = kindOf(target);
    if (found === null) return;
    if (found !== kindOf(join(turn, name))) throw new Error(`'${target}' is a ${found}`);
    move(target, join(turn, `${name}${OLD}`));
  };
  try {
    // A single file replaces another in one step.
    if (names.length > 1 || kindOf(join(turn, last)) === 'folder') setAside(last);
    for (const name of names) {
      if (kindOf(join(turn, name)) === null) continue;
      if (name !== last) setAside(name);
      move(join(turn, name), join(folder, name));
    }
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

/** Makes the renames durable; not every system can. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, 'r');
    await handle.sync().finally(() => handle.close());
  } catch {
    return;
  }
}

/** Removes what runs that no longer live left behind for the same target. */
function removeAbandoned(outPath: string): void {
  const folder = resolve(dirname(outPath));
  const prefix = prefixOf(outPath);
  for (const entry of readdirSync(folder)) {
    if (!entry.startsWith(prefix)) continue;
    const pid = /^(\d+)-[0-9a-f]{12}$/.exec(entry.slice(prefix.length))?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) rmSync(join(folder, entry), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
