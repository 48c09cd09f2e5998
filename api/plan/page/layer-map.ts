/** The layers before and after: a row of blocks per layer. A fused FFN is one block as high as its members together. */
import { counted } from '../../../ir/visible.js';
import { html, type Markup, type MarkupPart, notMeasured, picture } from '../../page/markup.js';
import { greatest } from '../../page/numbers.js';
import { heightOf, type LayerRows, rowLabels } from '../../page/rows.js';
import type { DrawnLayer, DrawnPlan, PlanEvidence } from './evidence.js';

const WIDTH = 330;
const [BEFORE, AFTER] = [30, 196];
/** Widths: of an attention, which a plan file gives no size for, and of the widest FFN. */
const [ATTENTION, FFN] = [38, 90];
/** Of a map in the place of a branch. */
const MAP = 14;

/** How many sub-blocks there are before and after. */
export interface Counts {
  readonly before: number;
  readonly after: number;
}

/** Sub-blocks one after another on the residual stream: a fused run is one. */
export function subBlocks(layers: readonly DrawnLayer[], plan: DrawnPlan): Counts {
  const { removeAttention, removeFfn, runs } = plan;
  const before = layers.reduce((sum, { attention, ffn }) => sum + Number(attention) + Number(ffn), 0);
  const merged = runs.reduce((sum, run) => sum + new Set(run).size - 1, 0);
  return { before, after: before - new Set(removeAttention).size - new Set(removeFfn).size - merged };
}

/** The picture of what becomes of each layer. */
export function layerMap(evidence: PlanEvidence, rows: LayerRows): Markup {
  const { layers, chosen } = evidence;
  if (!layers) return notMeasured('the file does not say which layers the model has');
  const { rowHeight, top } = rows;
  const { before, after } = subBlocks(layers, chosen);
  const widest = greatest(layers.map(({ ffnWidth }) => ffnWidth ?? 0)) || 1;
  const gap = rowHeight > 10 ? 3 : 2;
  const widthOf = (layer: DrawnLayer): number => Math.max(3, (FFN * (layer.ffnWidth ?? widest)) / widest);
  const block = (kind: string, x: number, row: number, width: number, height = rowHeight - gap): Markup =>
    html`<rect class="${kind}" x="${x}" y="${top + row * rowHeight + gap / 2}" width="${width}" height="${height}"/>`;
  const hollow = (x: number, row: number, width: number): Markup =>
    html`<rect class="gone" x="${x + 0.5}" y="${top + row * rowHeight + gap / 2 + 0.5}" width="${width - 1}" height="${rowHeight - gap - 1}"/>`;
  const ffnAt = (x: number): number => x + ATTENTION + 4;

  const drawn: MarkupPart[] = [];
  for (const [row, layer] of layers.entries()) {
    const [isGone, isFfnGone] = [chosen.removeAttention.includes(layer.layer), chosen.removeFfn.includes(layer.layer)];
    const isMapped = chosen.linearizeAttention.includes(layer.layer);
    const isFfnMapped = chosen.linearizeFfn.includes(layer.layer);
    const run = chosen.runs.find((each) => each.includes(layer.layer));
    if (layer.attention) {
      drawn.push(block('attention', BEFORE, row, ATTENTION));
      if (isGone) drawn.push(hollow(AFTER, row, ATTENTION));
      else drawn.push(block(isMapped ? 'mapped' : 'attention', AFTER, row, isMapped ? MAP : ATTENTION));
    }
    if (!layer.ffn) continue;
    const width = widthOf(layer);
    drawn.push(block('ffn', ffnAt(BEFORE), row, width));
    if (isFfnGone) drawn.push(hollow(ffnAt(AFTER), row, width));
    else if (isFfnMapped) drawn.push(block('mapped', ffnAt(AFTER), row, MAP));
    else if (!run || run.length < 2) drawn.push(block('ffn', ffnAt(AFTER), row, width));
    // No gap to the next member: together they are one block.
    else
      drawn.push(
        block('fused', ffnAt(AFTER), row, width, rowHeight - (run.includes(layers[row + 1]?.layer ?? -1) ? 0 : gap)),
      );
  }
  const label = (run: readonly number[]): MarkupPart => {
    const members = layers.flatMap((each, row) => (run.includes(each.layer) ? [row] : []));
    const middle = top + (((members[0] ?? 0) + (members.at(-1) ?? 0) + 1) / 2) * rowHeight + 4;
    return html`<text class="middle on-fused" x="${ffnAt(AFTER) + FFN / 2}" y="${middle}">${`${members.length} in one`}</text>`;
  };
  const bracket = (window: readonly number[]): MarkupPart => {
    const members = layers.flatMap((each, row) => (window.includes(each.layer) ? [row] : []));
    const [from, to] = [top + (members[0] ?? 0) * rowHeight + 2, top + ((members.at(-1) ?? 0) + 1) * rowHeight - 2];
    return html`<path class="bracket" d="M${AFTER - 4} ${from}h-5V${to}h5"/>`;
  };
  const removed = [...chosen.removeAttention, ...chosen.removeFfn].length;
  const mapped = [...chosen.linearizeAttention, ...chosen.linearizeFfn].length;
  const description =
    `${counted(layers.length, 'layer')}, ${counted(before, 'sub-block')} before and ${after} after: ${removed} removed, ${mapped} replaced by maps, ` +
    `${chosen.runs.map((run) => `the FFNs of layers ${run.join(', ')} are one`).join('; ') || 'no FFNs fused'}.`;
  const content = html`<text x="${BEFORE}" y="12" class="strong">before: ${counted(before, 'sub-block')}</text><text x="${AFTER}" y="12" class="strong">after: ${String(after)}</text>${rowLabels(rows, BEFORE - 6)}${drawn}${chosen.runs.filter((run) => run.length > 1).map(label)}${chosen.windows.map(bracket)}<text x="${BEFORE}" y="${rows.bottom + 14}">attention</text><text class="middle" x="${ffnAt(BEFORE) + FFN / 2}" y="${rows.bottom + 14}">FFN</text><text x="${AFTER}" y="${rows.bottom + 14}">attention</text><text class="middle" x="${ffnAt(AFTER) + FFN / 2}" y="${rows.bottom + 14}">FFN</text>`;
  const size = { width: WIDTH, height: heightOf(rows), isFixed: true };
  return html`<figure>${picture('layer-map', 'Layer map, before and after', description, size, content)}</figure>`;
}

/** What the colours of the map mean. */
export function layerKeys({ layers, chosen }: PlanEvidence): Markup {
  const widths = (layers ?? []).flatMap(({ ffnWidth }) => ffnWidth ?? []);
  const scale =
    widths.length > 0
      ? `The width of an FFN is its intermediate size; the widest is ${greatest(widths)}. A fused FFN is as wide as its members together: its area is their sum.`
      : 'The file gives no sizes of FFNs.';
  return html`<p class="note keys"><span><i class="key attention"></i>attention</span> <span><i class="key ffn"></i>FFN</span> <span><i class="key fused"></i>FFNs fused into one</span> <span><i class="key mapped"></i>a linear map in the place of a branch</span> <span><i class="key gone"></i>removed</span>${chosen.windows.length > 0 && html` <span><b>[</b> blocks that read one input</span>`}</p>
<p class="note">${scale} Attentions are all drawn alike.</p>`;
}
