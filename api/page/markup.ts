/** HTML and SVG as template literals: what is put in is text and is escaped, unless it is markup already. */
import { visibleLines } from '../../ir/index.js';

/** Markup that is safe to put in. Made by the functions of this file and the style sheet only. */
export class Markup {
  constructor(readonly text: string) {}
}

/** What can be put into markup. */
export type MarkupPart = Markup | string | number | null | false | readonly MarkupPart[];

/** Characters no HTML or XML file may hold, and halves of surrogate pairs. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff]|\p{Surrogate}/gu;
const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Escapes text from outside, so that it is shown as text, in content and in quoted attributes. */
export function escaped(text: string): string {
  return visibleLines(text.replace(FORBIDDEN, '\ufffd')).replace(/[&<>"']/g, (found) => ENTITIES[found] as string);
}

function printed(part: MarkupPart): string {
  if (part === null || part === false) return '';
  if (part instanceof Markup) return part.text;
  // Coordinates. Figures for people are texts already; see numbers.ts.
  if (typeof part === 'number') return String(Math.round(part * 100) / 100);
  return typeof part === 'string' ? escaped(part) : part.map(printed).join('');
}

/** Markup with parts put in. Every element is closed and every attribute quoted, so that it is well-formed XML too. */
export function html(strings: TemplateStringsArray, ...parts: readonly MarkupPart[]): Markup {
  return new Markup(
    strings.map((text, i) => text + (i < parts.length ? printed(parts[i] as MarkupPart) : '')).join(''),
  );
}

/** The size of a picture, in pixels. */
export interface PictureSize {
  readonly width: number;
  readonly height: number;
  /** Its width where there is room, if it is drawn larger than `width`; it shrinks with the screen. */
  readonly largest?: number;
  /** Never drawn smaller than it is: it scrolls in its box instead. */
  readonly isFixed?: boolean;
}

/** A picture with its alternative text. `id` is unique in the page. */
export function picture(
  id: string,
  title: string,
  description: string,
  size: PictureSize,
  content: MarkupPart,
): Markup {
  const { width, height, largest = width, isFixed = false } = size;
  const style = isFixed ? `width:${width}px;max-width:none` : `width:${largest}px;max-width:100%`;
  return html`<div class="picture"><svg role="img" aria-labelledby="${id}-title ${id}-text" viewBox="0 0 ${width} ${height}" style="${style}"><title id="${id}-title">${title}</title><desc id="${id}-text">${description}</desc>${content}</svg></div>`;
}

/** A table in a box of its own; the columns in `words` are texts, the others figures. */
export function dataTable(
  head: readonly string[],
  rows: readonly (readonly MarkupPart[])[],
  words: readonly number[] = [0],
): Markup {
  const kind = (column: number): string => (words.includes(column) ? 'word' : 'figure');
  return html`<div class="table"><table><thead><tr>${head.map((each, i) => html`<th scope="col" class="${kind(i)}">${each}</th>`)}</tr></thead><tbody>
${rows.map((row) => html`<tr>${row.map((cell, i) => html`<td class="${kind(i)}">${cell}</td>`)}</tr>\n`)}</tbody></table></div>`;
}

/** The figures behind a picture, for those who want them. */
export function details(summary: string, content: MarkupPart): Markup {
  return html`<details><summary>${summary}</summary>${content}</details>`;
}

/** A section of the page, with its heading. */
export function section(id: string, title: string, content: MarkupPart): Markup {
  return html`<section id="${id}"><h2>${title}</h2>
${content}
</section>\n`;
}

/** Why there is nothing to show. */
export class Absent extends Markup {}

/** Says why there is nothing to show, in a sentence. */
export function absent(why: string): Absent {
  return new Absent(html`<p class="absent">${why}</p>`.text);
}

/** Says why something is not shown: what is not in the plan is never drawn as if it were. */
export function notMeasured(why: string): Absent {
  return absent(`Not measured: ${why}.`);
}

/** A figure of the head of a page: its name, its value, and what more there is to say. */
export function fact(name: string, value: string, ...more: readonly string[]): Markup {
  return html`<div><dt>${name}</dt><dd class="value">${value}</dd>${more.map((each) => html`<dd class="more">${each}</dd>`)}</div>`;
}

/** A bar in a cell of a table, as long as this share of the cell, in the colour of its kind. */
export function cellBar(kind: string, share: number): Markup {
  return html`<svg width="120" height="12" viewBox="0 0 120 12" preserveAspectRatio="none" aria-hidden="true"><rect class="${kind}" x="0" y="3" width="${120 * share}" height="7"/></svg>`;
}

/** A command line that a click selects as a whole, so that it can be copied: a button would need a script, and pages have none. */
export function commandLine(about: string, line: string): Markup {
  // Narrow screens break it between words, and not behind dashes.
  const words = line.split(' ').map((word, i) => html`${i > 0 && ' '}<span>${word}</span>`);
  return html`<div class="command"><p class="note">${about} A click selects the line, to be copied:</p><code>${words}</code></div>`;
}
