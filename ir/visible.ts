/**
 * What a person reads. Names in a model are any text: escape sequences that rewrite a terminal, line breaks that make up
 * lines of ours, marks that turn the direction of writing. Everything that is printed goes through here, and shows such
 * characters as \u001b instead of doing what they say. JSON means the same by that.
 */

/**
 * Control characters, line and paragraph separators, marks without width or of direction, the surrogates that stand alone,
 * and the tags that are never seen.
 */
const UNSEEN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]|\p{Surrogate}/gu;

/** The text on one line, with an escape for every character that is not seen. */
export function visible(text: string): string {
  return text.replace(UNSEEN, escaped);
}

/** The same for a text of several lines, which stay, as do its tabs. */
export function visibleLines(text: string): string {
  return text.replace(UNSEEN, (found) => (found === '\n' || found === '\t' ? found : escaped(found)));
}

/** `1 layer`, `2 layers`; `text` is how the number is written, and `many` what more than one are called. */
export function counted(count: number, one: string, { text = String(count), many = `${one}s` } = {}): string {
  return `${text} ${count === 1 ? one : many}`;
}

/** Plain data with every text in it made `visible`, keys too: what is drawn from it cannot be more than it says. */
export function visibleData<T>(value: T): T {
  return visibleValue(value) as T;
}

function visibleValue(value: unknown): unknown {
  if (typeof value === 'string') return visible(value);
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map(visibleValue);
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [visibleValue(key), visibleValue(item)]));
  const entries = Object.entries(value).map(([key, item]) => [visible(key), visibleValue(item)]);
  return Object.fromEntries(entries);
}

function escaped(character: string): string {
  return [...Array(character.length).keys()]
    .map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`)
    .join('');
}
