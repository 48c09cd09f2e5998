/** Rows of layers that pictures share, so that they line up. */
import { html, type Markup } from './markup.js';

/** A row for each layer. */
export interface LayerRows {
  readonly layers: readonly number[];
  readonly rowHeight: number;
  readonly top: number;
  readonly bottom: number;
}

/** More layers than any model has: nothing is drawn for them. */
export const MOST_LAYERS = 2048;

/** Space above the rows and below, for headings and axes. */
const [HEAD, FOOT] = [22, 36];

/** The rows for these layers. */
export function rowsOf(layers: readonly number[]): LayerRows {
  const rowHeight = layers.length <= 16 ? 20 : layers.length <= 40 ? 14 : layers.length <= 80 ? 9 : 7;
  return { layers, rowHeight, top: HEAD, bottom: HEAD + layers.length * rowHeight };
}

/** The height of a picture with these rows. */
export const heightOf = (rows: LayerRows): number => rows.bottom + FOOT;

/** Numbers of the layers: of each, or of every fifth where they would touch. */
export function rowLabels({ layers, rowHeight, top }: LayerRows, x: number, marked: readonly number[] = []): Markup[] {
  return layers.flatMap((layer, i) => {
    if (rowHeight < 14 && layer % 5 !== 0) return [];
    const kind = marked.includes(layer) ? 'end marked' : 'end';
    return html`<text class="${kind}" x="${x}" y="${top + (i + 0.5) * rowHeight + 4}">${String(layer)}</text>`;
  });
}
