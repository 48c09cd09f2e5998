/** What the files of the commands share. */
import type yargs from 'yargs';

/** The parser that commands add themselves to. */
export type Cli = ReturnType<typeof yargs>;

/** Runs a command's work and keeps its exit code; none means 0. */
export type Runner = (work: () => Promise<number | undefined>) => Promise<void>;

/** Prints results: on stdout, unlike notes, progress and errors. */
export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Options of every command that knows passes. They come before a config file is read, so they are no keys of one. */
export const PLUGIN_OPTIONS = {
  config: {
    type: 'string',
    describe: 'Read flags from this file (.json, .mjs); no file is read unless it is named here',
  },
  plugin: { type: 'string', array: true, describe: 'Load passes for --pipeline from this module; may be repeated' },
} as const;
