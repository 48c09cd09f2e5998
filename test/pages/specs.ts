/** What every command takes, as the command line says it. */
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { CommandSpec } from '../../cli/options/spec.js';
import { BIN } from '../helpers/paths.js';

const FOLDER = join(dirname(BIN), 'options');

/** The specifications of all commands, in the order of their names; the main one has none. */
export const SPECS: readonly CommandSpec[] = (
  await Promise.all(
    readdirSync(FOLDER)
      .filter((file) => file.endsWith('.js'))
      .map(specsIn),
  )
)
  .flat()
  .sort((a, b) => (a.name < b.name ? -1 : 1));

async function specsIn(file: string): Promise<CommandSpec[]> {
  const module = (await import(pathToFileURL(join(FOLDER, file)).href)) as Record<string, unknown>;
  return Object.entries(module).flatMap(([name, value]) =>
    /Spec$/.test(name) && typeof value === 'object' ? [value as CommandSpec] : [],
  );
}
