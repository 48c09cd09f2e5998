/** How a page looks in a browser, at the widths of a desk and of a phone, in both colour schemes. */
import * as assert from 'uvu/assert';
import { type Page, withPage } from './chromium.js';

/** In the page: how far it is too wide, whether it runs anything, and the least contrast of text on what is behind it. */
const LOOK = `(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = rgb(getComputedStyle(document.body).backgroundColor);
  const contrast = (el) => {
    const of = getComputedStyle(el);
    const [a, b] = [light(rgb(of.color)), light(behind)].sort((p, q) => q - p);
    return (a + 0.05) / (b + 0.05);
  };
  const texts = [...document.querySelectorAll('h1,h2,h3,p,dt,dd,td,th,summary,blockquote')];
  return {
    over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    scripts: document.scripts.length,
    background: light(behind),
    contrast: Math.min(...texts.map(contrast)),
    small: Math.min(...texts.map((el) => parseFloat(getComputedStyle(el).fontSize))),
    columns: new Set([...document.querySelectorAll('dl.facts > div')].map((el) => Math.round(el.getBoundingClientRect().left))).size,
    selects: [...document.querySelectorAll('.command code')].map((el) => getComputedStyle(el).userSelect),
    empty: [...document.querySelectorAll('main > section')].filter((el) => el.children.length < 2 || el.innerText.trim() === '').length,
  };
})()`;

interface Look {
  readonly over: number;
  readonly scripts: number;
  readonly background: number;
  readonly contrast: number;
  readonly small: number;
  /** Columns of the figures at the head. */
  readonly columns: number;
  /** What a click on each command line selects. */
  readonly selects: readonly string[];
  /** Sections with nothing but their heading. */
  readonly empty: number;
}

/** Holds a page to what all pages are held to; `also` looks further, at each width. */
export async function looksRight(
  chromium: string,
  file: string,
  what: string,
  also: (page: Page, width: number, where: string) => Promise<void> = async () => {},
): Promise<void> {
  await withPage(chromium, async (page) => {
    for (const width of [1280, 390]) {
      for (const scheme of ['light', 'dark'] as const) {
        await page.open(file, width, scheme);
        const look = (await page.evaluate(LOOK)) as Look;
        const where = `${what}, ${width} pixels, ${scheme}: ${JSON.stringify(look)}`;
        assert.is(look.over, 0, where);
        assert.is(look.scripts, 0, where);
        assert.is(look.background > 0.5, scheme === 'light', where);
        // WCAG 2.2, 1.4.3 (AA).
        assert.ok(look.contrast >= 4.5, where);
        assert.ok(look.small >= 11, where);
        assert.is(look.columns === 1, width < 600, where);
        assert.equal(look.selects, ['all'], where);
        assert.is(look.empty, 0, where);
        assert.equal(page.requests, [], where);
        await also(page, width, where);
      }
    }
  });
}
