/** The picture of layers as they are: what each consists of, and the bytes of its weights. */
import { counted } from '../../ir/visible.js';
import { sizeText } from '../basics/byte-size.js';
import { html, type Markup, type MarkupPart, picture } from '../page/markup.js';
import { greatest } from '../page/numbers.js';
import { heightOf, rowLabels, rowsOf } from '../page/rows.js';
import type { Inspection, LayerInspection } from './inspect.js';
import type { WeightShares } from './weights.js';

const WIDTH = 340;
/** Where what mixes tokens begins, where the FFN does, and where the bars of bytes do. */
const [MIXER, FFN, BYTES] = [30, 72, 190];
const [MIXER_WIDTH, FFN_WIDTH, BYTES_WIDTH] = [38, 90, 140];
/** Of a map in the place of a branch. */
const MAP = 14;
const COLORS = { attention: 'attention', ffn: 'ffn', linear: 'mapped', other: 'other' } as const;

/** A row for each layer: its blocks, and the bytes of their weights. */
export function layerPicture(layers: Inspection['layers'], runs: Inspection['runs'], weights: WeightShares): Markup {
  const rows = rowsOf(layers.map(({ index }) => index));
  const { rowHeight, top, bottom } = rows;
  const gap = rowHeight > 10 ? 3 : rowHeight > 8 ? 2 : 1;
  const block = (kind: string, x: number, row: number, width: number, height = rowHeight - gap): Markup =>
    html`<rect class="${kind}" x="${x}" y="${top + row * rowHeight + gap / 2}" width="${width}" height="${height}"/>`;
  const members = runs.map((run) => {
    const numbers = run.layers.map((label) => Number.parseInt(label, 10));
    return layers.flatMap(({ index }, row) => (numbers.includes(index) ? [row] : []));
  });
  const isFused = new Set(members.flat());
  const joinsNext = new Set(members.flatMap((run) => run.slice(0, -1).filter((row) => run.includes(row + 1))));
  const widest = greatest(layers.map(({ ffn }) => ffn.width ?? 0)) || 1;
  const widthOf = ({ ffn }: LayerInspection): number => Math.max(3, (FFN_WIDTH * (ffn.width ?? widest)) / widest);

  const blocks = layers.map((layer, row): MarkupPart => {
    const { attention, ffn, linears, others } = layer;
    const has = (mixesTokens: boolean): boolean => others.some((each) => each.mixesTokens === mixesTokens);
    const isMapped = (isMixer: boolean): boolean => linears.some(({ slot }) => (slot === 'attention') === isMixer);
    const mixer = attention.present
      ? block('attention', MIXER, row, MIXER_WIDTH)
      : has(true)
        ? block('other', MIXER, row, MIXER_WIDTH)
        : isMapped(true) && block('mapped', MIXER, row, MAP);
    if (ffn.present && isFused.has(row)) {
      return [mixer, block('fused', FFN, row, widthOf(layer), rowHeight - (joinsNext.has(row) ? 0 : gap))];
    }
    const second = ffn.present
      ? block(has(false) && ffn.width === null ? 'other' : 'ffn', FFN, row, widthOf(layer))
      : isMapped(false) && block('mapped', FFN, row, MAP);
    return [mixer, second];
  });
  const labels = members.flatMap((run) => {
    if (run.length < 2) return [];
    const middle = top + (((run[0] ?? 0) + (run.at(-1) ?? 0) + 1) / 2) * rowHeight + 4;
    const narrowest = Math.min(...run.map((row) => widthOf(layers[row] as LayerInspection)));
    return html`<text class="middle on-fused" x="${FFN + narrowest / 2}" y="${middle}">${`${run.length} in one`}</text>`;
  });

  const parts = layers.map(({ index }) => {
    const own = weights.branches.filter(({ layer }) => layer === index);
    return [...own.filter(({ part }) => part === 'attention'), ...own.filter(({ part }) => part !== 'attention')];
  });
  const sums = parts.map((branches) => branches.reduce((sum, { weightBytes }) => sum + weightBytes, 0));
  const most = greatest(sums) || 1;
  const bars = parts.map((branches, row): MarkupPart => {
    let x = BYTES;
    return branches.map(({ role, weightBytes }) => {
      const width = (BYTES_WIDTH * weightBytes) / most;
      x += width;
      return block(COLORS[role], x - width, row, width);
    });
  });
  const description =
    `${counted(layers.length, 'layer')}: ${layers.filter(({ attention }) => attention.present).length} with attention, ` +
    `${layers.filter(({ ffn }) => ffn.present).length} with an FFN; at most ${sizeText(most)} of weights in a layer. The figures are in the tables.`;
  const axis = html`<text x="${MIXER}" y="${bottom + 14}">attention</text><text class="middle" x="${FFN + FFN_WIDTH / 2}" y="${bottom + 14}">FFN</text><text x="${BYTES}" y="${bottom + 14}">0</text><text class="end" x="${BYTES + BYTES_WIDTH}" y="${bottom + 14}">${sizeText(most)}</text><path class="axis" d="M${BYTES} ${top}V${bottom}"/>`;
  const content = html`<text x="${MIXER}" y="12" class="strong">blocks</text><text x="${BYTES}" y="12" class="strong">bytes of weights</text>${rowLabels(rows, MIXER - 6)}${blocks}${labels}${bars}${axis}`;
  const size = { width: WIDTH, height: heightOf(rows), isFixed: true };
  return html`<figure>${picture('layer-picture', 'Layers and their weights', description, size, content)}
<figcaption>The width of an FFN is its intermediate size.</figcaption></figure>`;
}
