/** What this package calls itself. */
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The version in the package.json that belongs to this file. */
export async function packageVersion(): Promise<string> {
  // Compiled files lie one folder deeper than their sources.
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const text = await readFile(`${folder}/package.json`, 'utf8').catch(() => null);
    if (text !== null) return (JSON.parse(text) as { version: string }).version;
    if (dirname(folder) === folder) return 'unknown';
  }
}
