/** The links of pages: whether the file is there, and in it the heading that is meant. */
import { posix } from 'node:path';

/** `page: link` for every link, to a file or to a heading, that leads nowhere. `exists` takes paths with slashes from the root. */
export function deadLinks(pages: ReadonlyMap<string, string>, exists: (path: string) => boolean): string[] {
  const dead: string[] = [];
  for (const [page, text] of pages) {
    for (const link of linksOf(text)) {
      const [file = '', anchor] = link.split('#');
      const target = file === '' ? page : posix.join(posix.dirname(page), file);
      const body = pages.get(target);
      const isThere = body === undefined ? exists(target) : anchor === undefined || anchorsOf(body).has(anchor);
      if (!isThere) dead.push(`${page}: ${link}`);
    }
  }
  return dead;
}

/** What a page links to within the project: of links, pictures and references. */
export function linksOf(text: string): string[] {
  const prose = text.replace(/^```[\s\S]*?^```$/gm, '').replace(/`[^`\n]*`/g, 'code');
  const links = prose.matchAll(/\]\(([^)\s]+)\)|\b(?:src|href|srcset)="([^"]+)"|^\[[^\]]+\]: (\S+)$/gm);
  return [...links]
    .map(([, inline, attribute, reference]) => (inline ?? attribute ?? reference) as string)
    .filter((link) => !/^[a-z]+:/.test(link));
}

/** The names of a page's headings, as GitHub makes them. */
export function anchorsOf(text: string): Set<string> {
  const found = new Set<string>();
  for (const [, heading = ''] of text.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/^#{1,6} (.+)$/gm)) {
    const words = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1');
    const name = words
      .trim()
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
      .replaceAll(' ', '-');
    let anchor = name;
    for (let again = 1; found.has(anchor); again++) anchor = `${name}-${again}`;
    found.add(anchor);
  }
  return found;
}
