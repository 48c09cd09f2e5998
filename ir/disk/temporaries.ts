/** The temporary folders of this process. Whoever ends it loads this and no more. */
import { rm } from 'node:fs/promises';
import { removeAll } from './move.js';

/** Folders that must be gone when this process ends. */
export const temporaries = new Set<string>();
/** Files that stay on purpose when this process is ended: the same command goes on from them. */
export const resumable = new Set<string>();

/** Removes a temporary folder and what is in it. */
export async function removeTemporary(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
  temporaries.delete(path);
}

/** Removes every temporary folder of this process, which is about to end. Returns how many there were. */
export function removeTemporaries(): number {
  const paths = [...temporaries];
  // Writes that are still on their way may put a file into a folder that is being removed.
  for (const path of paths) removeAll(path);
  temporaries.clear();
  return paths.length;
}
