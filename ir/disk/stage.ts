/** Staging: the files of an output are written beside their target and renamed into place when everything is right. */
import { type Stats, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import { commitFiles, removeTemporary, temporaryFor } from './commit.js';
import type { FileLayout, LaidOutFile } from './layout.js';
import type { FileSource } from './source.js';
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

/** Throws OF_OUTPUT_IS_INPUT when a file about to be written is one of `inputs`, through whatever links. */
export function checkOutputs(layout: FileLayout, outPath: string, inputs: readonly FileSource[]): void {
  for (const { name } of [...layout.data, layout.header]) {
    const target = join(dirname(outPath), name);
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
  try {
    await mkdir(temporary);
    const pool = new BandPool();
    const write = async (file: LaidOutFile): Promise<StagedFile> => {
      const path = join(temporary, file.name);
      return { path, ...(await writeFile(path, file, pool, options.onBytes, options.hash)) };
    };
    const files: StagedFile[] = [];
    for (const file of layout.data) files.push(await write(file));
    const header = await write(layout.header);
    files.push(header);
    const names = files.map((file) => basename(file.path));
    return { header, files, commit: () => commitFiles(temporary, outPath, names), discard: remove };
  } catch (error) {
    await remove().catch(() => {});
    throw error instanceof Diagnostic ? error : errors.writeFailed(outPath, reasonOf(error));
  }
}
