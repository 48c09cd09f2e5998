/** How commands print. */
import { jsonOf } from '../../api/basics/small-file.js';
import { visibleData } from '../../ir/index.js';
import { printable } from '../text/table.js';

/** Prints results: on stdout, unlike notes, progress and errors. Only line breaks and our own colours do what they say. */
export function say(text: string): void {
  process.stdout.write(`${printable(text)}\n`);
}

/** Prints a result drawn by `render`, which sees no name as anything but text on one line, or as JSON. */
export function show<T>(result: T, render: (result: T) => string, isJson = false): void {
  say(isJson ? jsonOf(result, 2) : render(visibleData(result)));
}
