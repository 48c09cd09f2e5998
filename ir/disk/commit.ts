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
import { closeSync, fsyncSync, lstatSync, openSync, readdirSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import { moveFile, removeAll } from './move.js';
import { isOutputName } from './output-names.js';
import { removeTemporary, temporaries } from './temporaries.js';

/** How long to wait for another run that puts its files in place: a few renames. */
const PATIENCE_MS = 8_000;
const POLL_MS = 10;
/** Names the process whose turn it is; holds the list of what goes into place. */
const OWNER = '.onnx-fuse-owner-';
const OLD = '.old';
/** Bytes of a list: an output has a file or two for every 2 GB, and names have 255 bytes. */
const LONGEST_LIST = 2 ** 20;

const prefixOf = (outPath: string): string => `.${basename(outPath)}.onnx-fuse-`;
const turnOf = (outPath: string): string => join(resolve(dirname(outPath)), `${prefixOf(outPath)}commit`);

/**
 * A path beside `outPath` for a new temporary folder. Before that, the folders of runs that ended midway are dealt with: a
 * complete output that was being moved into place is moved there, and anything else is removed. Throws OF_WRITE.
 */
export function temporaryFor(outPath: string): string {
  try {
    finishInterrupted(outPath);
    removeAbandoned(outPath);
  } catch (error) {
    throw error instanceof Diagnostic ? error : errors.writeFailed(outPath, reasonOf(error));
  }
  const path = ownName(outPath);
  temporaries.add(path);
  return path;
}

function ownName(outPath: string): string {
  const folder = resolve(dirname(outPath));
  return join(folder, `${prefixOf(outPath)}${process.pid}-${randomBytes(6).toString('hex')}`);
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
      moveFile(turn, temporary);
    }
    await syncFolder(folder);
  } catch (error) {
    throw error instanceof Diagnostic ? error : errors.writeFailed(outPath, reasonOf(error));
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
      if (!isOccupied(error)) throw error;
    }
    if (finishInterrupted(outPath)) continue;
    if (Date.now() - began > PATIENCE_MS) {
      const seconds = PATIENCE_MS / 1000;
      throw new Error(`another run has been putting its files in place for ${seconds} s (${turnOf(outPath)})`);
    }
    await sleep(POLL_MS);
  }
}

/** What renaming a folder to an existing one that is not empty says, on various systems. */
function isOccupied(error: unknown): boolean {
  const { code = '' } = error as NodeJS.ErrnoException;
  return ['ENOTEMPTY', 'EEXIST'].includes(code) || (process.platform === 'win32' && ['EPERM', 'EACCES'].includes(code));
}

/**
 * Finishes what a dead run was putting in place. False when there is none, or its run still lives. The folder lies where
 * others may have written, so it is believed nothing: only the output's own names are moved, and only out of a real folder.
 * Throws OF_LEFTOVER.
 */
function finishInterrupted(outPath: string): boolean {
  const turn = turnOf(outPath);
  const kind = kindOf(turn);
  if (kind === null) return false;
  if (kind !== 'folder') throw errors.leftover(turn, 'it is no folder');
  const file = entriesOf(turn).find((entry) => entry.startsWith(OWNER));
  if (file === undefined) return false;
  const pid = /^\d{1,10}$/.exec(file.slice(OWNER.length))?.[0];
  if (pid === undefined) throw errors.leftover(turn, `'${file}' names no process`);
  if (isAlive(Number(pid))) return false;
  const names = namesIn(join(turn, file), outPath);
  if (names === null) return false;
  const mine = join(turn, `${OWNER}${process.pid}`);
  try {
    // Of several that find it, the one that can do this has the turn.
    renameSync(join(turn, file), mine);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  moveAll(turn, dirname(turn), names);
  const rest = ownName(outPath);
  moveFile(turn, rest);
  removeAll(rest);
  return true;
}

/** The list of what goes into place; null when another run has just taken it. Throws OF_LEFTOVER. */
function namesIn(list: string, outPath: string): string[] | null {
  const refuse = (why: string): never => {
    throw errors.leftover(turnOf(outPath), `its list ${why}`);
  };
  const found = lstatSync(list, { throwIfNoEntry: false });
  if (!found) return null;
  // Reading anything else may wait for ever.
  if (!found.isFile() || found.size > LONGEST_LIST) refuse('is none that a run writes');
  let names: unknown;
  try {
    names = JSON.parse(readFileSync(list, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    refuse('is no JSON');
  }
  if (!Array.isArray(names) || names.at(-1) !== basename(outPath)) return refuse('does not end with the output');
  const foreign = names.find((name) => typeof name !== 'string' || !isOutputName(basename(outPath), name));
  return foreign === undefined ? (names as string[]) : refuse(`names '${foreign}', which is no file of the output`);
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** What is there: nothing, a file, a folder, a link, or something else (a device, a pipe). */
function kindOf(path: string): 'file' | 'folder' | 'link' | 'device' | null {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return null;
  if (found.isDirectory()) return 'folder';
  if (found.isSymbolicLink()) return 'link';
  return found.isFile() ? 'file' : 'device';
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
    moveFile(from, to);
    undo.push(() => moveFile(to, from));
  };
  /** Whether something of the same kind is where `name` goes. */
  const isTaken = (name: string): boolean => {
    const target = join(folder, name);
    const found = kindOf(target);
    if (found === null) return false;
    // A link is the user's way to name the output: it is what is replaced, never what it leads to.
    if ((found === 'link' ? 'file' : found) === kindOf(join(turn, name))) return true;
    throw new Error(`'${target}' is a ${found}`);
  };
  const setAside = (name: string): void => move(join(folder, name), join(turn, `${name}${OLD}`));
  const left = names.filter((name) => kindOf(join(turn, name)) !== null);
  for (const name of left) {
    const kind = kindOf(join(turn, name));
    if (kind === 'link' || kind === 'device') throw errors.leftover(turn, `'${name}' in it is a ${kind}`);
  }
  try {
    // A single file replaces another in one step.
    const isOneStep = names.length === 1 && kindOf(join(turn, last)) === 'file';
    if (isTaken(last) && !isOneStep) setAside(last);
    for (const name of left) {
      if (name !== last && isTaken(name)) setAside(name);
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
    if (pid !== undefined && !isAlive(Number(pid))) removeAll(join(folder, entry));
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
