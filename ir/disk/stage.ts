/** Staging: the files of an output are written beside their target and renamed into place when everything is right. */
import { readlinkSync, realpathSync, type Stats, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import { commitFiles, temporaryFor } from './commit.js';
import type { FileLayout, LaidOutFile } from './layout.js';
import type { FileSource } from './source.js';
import { removeTemporary } from './temporaries.js';
import { BandPool, type WrittenFile, writeFile } from './write.js';

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

function statOrNull(path: string): Stats | null {
  try {
    return statSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return null;
    throw errors.readFailed(path, reasonOf(error));
  }
}

/** What stands at a path where a file would go and is none. */
export interface Special {
  /** For people: `a pipe`, `a device`... */
  readonly kind: string;
  /** Number of the open file that the path is another name of (/dev/stdout and the like); null for any other. */
  readonly descriptor: number | null;
}

/** Steps of a chain of links; systems stop there too. */
const MOST_LINKS = 40;

/** A pipe, a device, a socket or an open file at `path`, through links; null when a file may be made or replaced there. */
export function specialAt(path: string): Special | null {
  const descriptor = descriptorAt(path);
  if (descriptor !== null) return { kind: 'an open file of a process', descriptor };
  const found = statOrNull(path);
  if (!found || found.isFile() || found.isDirectory()) return null;
  const kind = found.isFIFO() ? 'a pipe' : found.isSocket() ? 'a socket' : 'a device';
  return { kind, descriptor };
}

/** The number N when `path` is, or links to, /dev/fd/N or /proc/self/fd/N. */
function descriptorAt(path: string): number | null {
  let at = resolve(path);
  for (let step = 0; step < MOST_LINKS; step++) {
    let real: string;
    try {
      real = join(realpathSync(dirname(at)), basename(at));
    } catch {
      return null;
    }
    const number = /^\/(?:dev|proc\/(?:self|\d+)(?:\/task\/\d+)?)\/fd\/(\d{1,9})$/.exec(real)?.[1];
    if (number !== undefined) return Number(number);
    try {
      at = resolve(dirname(at), readlinkSync(at));
    } catch {
      return null;
    }
  }
  return null;
}

/**
 * Throws OF_OUTPUT_IS_INPUT when a file about to be written is one of `inputs`, through whatever links, and OF_NOT_A_FILE
 * when there is a device or a pipe in its place.
 */
export function checkOutputs(layout: FileLayout, outPath: string, inputs: readonly FileSource[]): void {
  for (const { name } of [...layout.data, layout.header]) {
    const target = join(dirname(outPath), name);
    refuseSpecial(target);
    const found = statOrNull(target);
    for (const input of inputs) {
      const isSameFile = found && found.ino === input.ino && found.dev === input.dev;
      if (isSameFile || resolve(target) === resolve(input.path)) {
        throw errors.outputIsInput(target, `the input ${input.path}`);
      }
    }
  }
}

/** Throws OF_NOT_A_FILE: renaming a file over a device or a pipe would destroy it, and nobody can map what went through one. */
function refuseSpecial(target: string): void {
  const special = specialAt(target);
  if (special) throw errors.notAFile(target, special.kind);
}

/** Throws OF_USAGE or OF_NOT_A_FILE unless `outPath` can be a file in an existing folder. */
export function checkFolder(outPath: string): void {
  refuseSpecial(outPath);
  const folder = dirname(outPath);
  const found = statOrNull(folder);
  if (!found?.isDirectory()) throw errors.usage(folder, 'the output folder does not exist', 'create it first');
  if (statOrNull(outPath)?.isDirectory()) {
    throw errors.usage(outPath, 'the output is a folder', 'give the path of a file');
  }
}

/** What else staging does. */
export interface StageOptions {
  /** Called as bytes reach the disk. */
  readonly onBytes: (count: number) => void;
  /** Hash what was written. */
  readonly hash: boolean;
}

/** Writes the files of a layout into a new folder beside `outPath`, and removes it on failure. Throws OF_WRITE, OF_READ... */
export async function stageLayout(layout: FileLayout, outPath: string, options: StageOptions): Promise<Staging> {
  const temporary = temporaryFor(outPath);
  const remove = () => removeTemporary(temporary);
  const syncs: Promise<void>[] = [];
  try {
    await mkdir(temporary);
    const pool = new BandPool();
    const write = async (file: LaidOutFile): Promise<StagedFile> => {
      const path = join(temporary, file.name);
      const { bytes, sha256, synced } = await writeFile(path, file, pool, options.onBytes, options.hash);
      syncs.push(synced);
      return { path, bytes, sha256 };
    };
    const files: StagedFile[] = [];
    for (const file of layout.data) files.push(await write(file));
    const header = await write(layout.header);
    files.push(header);
    await Promise.all(syncs);
    const names = files.map((file) => basename(file.path));
    return { header, files, commit: () => commitFiles(temporary, outPath, names), discard: remove };
  } catch (error) {
    await Promise.allSettled(syncs);
    await remove().catch(() => {});
    throw error instanceof Diagnostic ? error : errors.writeFailed(outPath, reasonOf(error));
  }
}
