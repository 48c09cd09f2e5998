/** Staging: the files of an output are written beside their target and renamed into place when everything is right. */
import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync, type Stats, statSync } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import type { Plan } from './plan.js';
import type { FileSource } from './source.js';
import { type WrittenFile, writePieces } from './write.js';

/** A file of the output, under the path it has until it is committed. */
export interface StagedFile extends WrittenFile {
  readonly path: string;
}

/** Files written under their final names in a folder beside the target. */
export interface Staging {
  readonly header: StagedFile;
  readonly files: readonly StagedFile[];
  commit(): Promise<void>;
  discard(): Promise<void>;
}

/** The name of the data file beside `outPath`. */
export function dataNameOf(outPath: string): string {
  return `${basename(outPath)}.data`;
}

function statOrNull(path: string): Stats | null {
  try {
    return statSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return null;
    throw errors.readFailed(path, reasonOf(error));
  }
}

/** Throws OF_OUTPUT_IS_INPUT when a file about to be written is one of `inputs`, through whatever links. */
export function checkOutputs(outPath: string, hasData: boolean, inputs: readonly FileSource[]): void {
  const folder = dirname(outPath);
  const targets = hasData ? [outPath, join(folder, dataNameOf(outPath))] : [outPath];
  for (const target of targets) {
    const found = statOrNull(target);
    for (const input of inputs) {
      const isSameFile = found && found.ino === input.ino && found.dev === input.dev;
      if (isSameFile || resolve(target) === resolve(input.path)) {
        throw errors.outputIsInput(target, `the input ${input.path}`);
      }
    }
  }
}

/** Throws OF_USAGE unless `outPath` can be a file in an existing folder. */
export function checkFolder(outPath: string): void {
  const folder = dirname(outPath);
  const found = statOrNull(folder);
  if (!found?.isDirectory()) throw errors.usage(folder, 'the output folder does not exist', 'create it first');
  if (statOrNull(outPath)?.isDirectory()) {
    throw errors.usage(outPath, 'the output is a folder', 'give the path of a file');
  }
}

/**
 * A path beside `outPath` that nothing has, for what is to be renamed to it. What runs that no longer live left there for
 * the same target is removed.
 */
export function temporaryFor(outPath: string): string {
  const [folder, name] = [resolve(dirname(outPath)), basename(outPath)];
  try {
    removeLeftovers(folder, name);
  } catch (error) {
    throw errors.writeFailed(outPath, reasonOf(error));
  }
  return join(folder, `${prefixOf(name)}${process.pid}-${randomBytes(6).toString('hex')}`);
}

/** Writes a plan into a new folder beside `outPath`. On failure nothing is left of it. Throws OF_WRITE, OF_READ... */
export async function stagePlan(plan: Plan, outPath: string, onBytes: (count: number) => void): Promise<Staging> {
  const name = basename(outPath);
  const folder = resolve(dirname(outPath));
  const temporary = temporaryFor(outPath);
  const remove = () => rm(temporary, { recursive: true, force: true });
  try {
    await mkdir(temporary);
    const files: StagedFile[] = [];
    if (plan.data) {
      const path = join(temporary, dataNameOf(outPath));
      files.push({ path, ...(await writePieces(path, plan.data.pieces, onBytes)) });
    }
    const path = join(temporary, name);
    const header = { path, ...(await writePieces(path, plan.header.pieces, onBytes)) };
    files.push(header);
    return { header, files, commit: () => commit(files, folder, temporary), discard: remove };
  } catch (error) {
    await remove().catch(() => {});
    throw error instanceof Diagnostic ? error : errors.writeFailed(outPath, reasonOf(error));
  }
}

const prefixOf = (name: string): string => `.${name}.onnx-fuse-`;

/** Data first, header last. What stood there before comes back when a rename fails. */
async function commit(files: readonly StagedFile[], folder: string, temporary: string): Promise<void> {
  const undo: (() => Promise<void>)[] = [];
  try {
    for (const file of files) {
      const target = join(folder, basename(file.path));
      const backup = `${file.path}.old`;
      if (file !== files.at(-1) && statOrNull(target)) {
        await rename(target, backup);
        undo.push(() => rename(backup, target));
      }
      await rename(file.path, target);
    }
    await syncFolder(folder);
  } catch (error) {
    for (const step of undo.reverse()) await step().catch(() => {});
    throw errors.writeFailed(join(folder, basename(files.at(-1)?.path ?? '')), reasonOf(error));
  } finally {
    await rm(temporary, { recursive: true, force: true });
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
function removeLeftovers(folder: string, name: string): void {
  const prefix = prefixOf(name);
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
