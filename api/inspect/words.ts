/** What text and page say of layers in the same words. */
import type { Inspection, LayerInspection } from './inspect.js';

/** What a layer without a name of its own is called. */
export const UNNAMED = 'layer N';

/** The name of a layer with N for its number; that of several that became one as it is. */
export function nameText({ name, index }: LayerInspection): string {
  return name.replace(new RegExp(`(?<![\\d-])${index}(?![\\d-])(?!.*(?<!\\d)${index}(?!\\d))`), 'N');
}

/** What mixes tokens in a layer, or the linear in its place. */
export function attentionText({ attention, linears, others }: LayerInspection): string {
  const own = attention.present ? [`${attention.kind}${attention.removable ? '' : ' (fixed)'}`] : [];
  const linear = linears.filter(({ slot }) => slot === 'attention').map(linearText);
  const mixers = others.filter(({ mixesTokens }) => mixesTokens).map(({ kind }) => kind);
  return [...own, ...linear, ...mixers].join(' + ') || '-';
}

/** The FFN of a layer, or the linear in its place. */
export function ffnText({ ffn, linears }: LayerInspection): string {
  const linear = linears.filter(({ slot }) => slot !== 'attention').map(linearText);
  return [...(ffn.kind === null ? [] : [ffn.kind]), ...linear].join(' + ') || '-';
}

function linearText({ rank }: LayerInspection['linears'][number]): string {
  return rank === null ? 'linear' : `linear of rank ${rank}`;
}

/** The norm in front of an FFN; the operators that it is made of are in the data. */
export function normName({ ffn }: LayerInspection): string {
  return ffn.norm?.replace(/ \(.*/, '') ?? '-';
}

/** Layers of which the same is to be said. */
export interface LayersAlike {
  readonly numbers: number[];
  readonly cells: readonly string[];
}

/** Layers that follow one another and are alike in these cells, together. */
export function rowsAlike(
  layers: Inspection['layers'],
  cellsOf: (layer: LayerInspection) => readonly string[],
): LayersAlike[] {
  const rows: LayersAlike[] = [];
  for (const layer of layers) {
    const cells = cellsOf(layer);
    const last = rows.at(-1);
    if (last && cells.every((cell, i) => cell === last.cells[i])) last.numbers.push(layer.index);
    else rows.push({ numbers: [layer.index], cells });
  }
  return rows;
}

/** The numbers of the layers by each reason that there is for them. */
export function reasonsOf(
  layers: Inspection['layers'],
  reasonOf: (layer: LayerInspection) => string | null,
): ReadonlyMap<string, readonly number[]> {
  const reasons = new Map<string, number[]>();
  for (const layer of layers) {
    const why = reasonOf(layer);
    if (why !== null) reasons.set(why, [...(reasons.get(why) ?? []), layer.index]);
  }
  return reasons;
}
