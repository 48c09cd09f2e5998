/** What the files of the commands share. */
import type yargs from 'yargs';
import { jsonOf } from '../../api/basics/small-file.js';
import { visibleData } from '../../ir/index.js';
import { printable } from '../text/render.js';

/** The parser that commands add themselves to. */
export type Cli = ReturnType<typeof yargs>;

/** Runs a command's work and keeps its exit code; none means 0. */
export type Runner = (work: () => Promise<number | undefined>) => Promise<void>;

/** Prints results: on stdout, unlike notes, progress and errors. Only line breaks and our own colours do what they say. */
export function say(text: string): void {
  process.stdout.write(`${printable(text)}\n`);
}

/** Prints a result drawn by `render`, which sees no name as anything but text on one line, or as JSON. */
export function show<T>(result: T, render: (result: T) => string, isJson = false): void {
  say(isJson ? jsonOf(result, 2) : render(visibleData(result)));
}

/** Options of every command that knows passes. They come before a config file is read, so they are no keys of one. */
export const PLUGIN_OPTIONS = {
  config: {
    type: 'string',
    describe: 'Read flags from this file (.json, .mjs); no file is read unless it is named here',
  },
  plugin: { type: 'string', array: true, describe: 'Load passes for --pipeline from this module; may be repeated' },
} as const;
