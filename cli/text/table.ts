/** Tables and colours, and what may go to a terminal at all. */
import Table from 'cli-table3';
import pico from 'picocolors';
import { visibleLines } from '../../ir/visible.js';

/**
 * Whether text is coloured: for a person at a terminal, unless NO_COLOR says not to, and wherever FORCE_COLOR says so. picocolors by itself
 * would also colour what CI pipes into a file.
 */
export function wantsColors(env: Readonly<Record<string, string | undefined>>, isTerminal: boolean): boolean {
  const { NO_COLOR: no, FORCE_COLOR: force, TERM: term } = env;
  if (no) return false;
  if (force) return force !== '0' && force !== 'false';
  return isTerminal && term !== 'dumb';
}

export const colors = pico.createColors(wantsColors(process.env, process.stdout.isTTY === true));

/** The codes of our own colours. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const COLOR = /(\u001b\[(?:1|22|31|32|39)m)/;

/** A text as it may go to a terminal: of everything that moves the cursor or hides, only our own colours are left. */
export function printable(text: string): string {
  if (!colors.isColorSupported) return visibleLines(text);
  return text
    .split(COLOR)
    .map((part, i) => (i % 2 === 1 ? part : visibleLines(part)))
    .join('');
}

const PLAIN = {
  chars: {
    top: '',
    'top-mid': '',
    'top-left': '',
    'top-right': '',
    bottom: '',
    'bottom-mid': '',
    'bottom-left': '',
    'bottom-right': '',
    left: '',
    'left-mid': '',
    mid: '',
    'mid-mid': '',
    right: '',
    'right-mid': '',
    middle: '  ',
  },
  style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
};

/**
 * A table without rules, its heading in bold on a terminal. With `most` it takes no more columns: what is widest in it is wrapped where it
 * has spaces.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[], most?: number): string {
  const made = new Table({
    ...PLAIN,
    ...(most === undefined ? {} : fitting([head, ...rows], most)),
    head: head.map((cell) => colors.bold(cell)),
  });
  made.push(...rows.map((row) => [...row]));
  return made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** No column becomes narrower by wrapping. */
const NARROWEST = 12;

/** What makes a table take no more than `most` columns; nothing where it does not anyway. */
function fitting(rows: readonly (readonly string[])[], most: number): Table.TableConstructorOptions {
  const count = Math.max(...rows.map((row) => row.length));
  const columns = Array.from({ length: count }, (_, i) => rows.map((row) => row[i] ?? ''));
  const colWidths = columns.map((cells) => Math.max(...cells.map((cell) => cell.length)));
  const room = most - PLAIN.chars.middle.length * (count - 1);
  let surplus = colWidths.reduce((sum, width) => sum + width, 0) - room;
  if (surplus <= 0) return {};
  const words = columns.map((cells) =>
    Math.max(
      ...cells
        .join(' ')
        .split(' ')
        .map((word) => word.length),
    ),
  );
  // What has spaces gives way first. A name without them is parted, rather than cut off.
  for (const least of [words.map((width) => Math.max(width, NARROWEST)), words.map(() => NARROWEST)]) {
    for (; surplus > 0; surplus--) {
      const spare = colWidths.map((width, i) => (width > (least[i] as number) ? width : 0));
      const widest = spare.indexOf(Math.max(...spare));
      if (spare[widest] === 0) break;
      (colWidths[widest] as number)--;
    }
  }
  const wrapOnWordBoundary = words.every((width, i) => width <= (colWidths[i] as number));
  return { colWidths, wordWrap: true, wrapOnWordBoundary };
}
