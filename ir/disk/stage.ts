/** Staging: the files of an output are written beside their target and renamed into place when everything is right. */
import { type Stats, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Diagnostic, errors, reasonOf } from '../diagnostic.js';
import { place, removeTemporary, temporaryFor } from './place.js';
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

/** Writes a plan into a new folder beside `outPath`. On failure nothing is left of it. Throws OF_WRITE, OF_READ... */
export async function stagePlan(plan: Plan, outPath: string, onBytes: (count: number) => void): Promise<Staging> {
  const temporary = temporaryFor(outPath);
  const remove = () => removeTemporary(temporary);
  try {
    await mkdir(temporary);
    const files: StagedFile[] = [];
    if (plan.data) {
      const path = join(temporary, dataNameOf(outPath));
      files.push({ path, ...(await writePieces(path, plan.data.pieces, onBytes)) });
    }
    const path = join(temporary, basename(outPath));
    const header = { path, ...(await writePieces(path, plan.header.pieces, onBytes)) };
    files.push(header);
    const names = files.map((file) => basename(file.path));
    return { header, files, commit: () => place(temporary, outPath, names), discard: remove };
  } catch (error) {
    await remove().catch(() => {});
    throw error instanceof Diagnostic ? error : errors.writeFailed(outPath, reasonOf(error));
  }
}
