/** A page as a whole: one file, without script, that loads nothing. */
import { Absent, html, type Markup, section } from './markup.js';
import { STYLE } from './style.js';

/** Nothing may be loaded and no script may run, even if a text should get past the escaping. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'";

/** A part of a page under a heading of its own. */
export interface PagePart {
  readonly id: string;
  readonly title: string;
  /** `Absent` where there is nothing to show: the part is then only named at the end of the page. */
  readonly content: Markup;
}

/** The text of a page. A part that has nothing to show makes no section: the end of the page says why it is not there. */
export function documentOf(title: string, header: Markup, parts: readonly PagePart[]): string {
  const absent = parts.filter(({ content }) => content instanceof Absent);
  const { text } = html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="${POLICY}"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>${title}</title>
<style>${STYLE}</style>
</head>
<body>
<header>${header}</header>
<main>
${parts.filter((part) => !absent.includes(part)).map((part) => section(part.id, part.title, part.content))}
${absent.length > 0 && section('absent', 'What is not on this page', html`<dl class="plain">${absent.map((part) => html`<dt>${part.title}</dt><dd>${part.content}</dd>`)}</dl>`)}
</main>
</body>
</html>
`;
  return text;
}
