/** Where reports and other small outputs may go. They take no place of what the same run reads or writes. */
import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { errors, isInside, reasonOf, specialAt } from '../../ir/index.js';

/** A name in a folder: links in the folder's path are followed, a link of that name is not, because it would be replaced. */
function entryOf(path: string): string {
  return join(realOf(dirname(path)), basename(resolve(path)));
}

/** Where links lead; the path itself where there is nothing. */
function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}

/**
 * Refuses a path for a report before any work is done. `reads`: files and folders that the run reads, every file of a
 * folder; `writes`: what it writes besides, where the report may lie in a folder.
 * @throws Diagnostic OF_OUTPUT_IS_INPUT, OF_USAGE where the folder of the path does not exist, OF_WRITE where nothing may be written there.
 */
export function checkTarget(
  path: string | undefined,
  reads: readonly (string | undefined)[],
  writes: readonly string[] = [],
): void {
  if (path === undefined || specialAt(path)) return;
  const target = entryOf(path);
  const isThere = statSync(target, { throwIfNoEntry: false }) !== undefined;
  for (const each of [...reads, ...writes]) {
    if (each === undefined) continue;
    const isSame = [entryOf(each), realOf(each)].includes(target);
    const isRead = isThere && reads.includes(each) && isInside(realOf(each), target);
    if (isSame || isRead) throw errors.outputIsInput(path, `'${each}', which this command uses`);
  }
  const folder = statSync(dirname(target), { throwIfNoEntry: false });
  if (!folder?.isDirectory() && !writes.some((each) => isInside(realOf(each), target)))
    throw errors.usage(dirname(path), 'the output folder does not exist', 'create it first');
  if (folder) checkWritable(path, dirname(target));
}

/** @throws Diagnostic OF_WRITE where no file can be made in the folder. */
function checkWritable(path: string, folder: string): void {
  try {
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw errors.writeFailed(path, reasonOf(error));
  }
}
