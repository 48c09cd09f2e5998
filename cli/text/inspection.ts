/** What `onnx-fuse inspect` prints. */
import { basename } from 'node:path';
import { sizeText } from '../../api/basics/byte-size.js';
import type { Inspection, LayerInspection } from '../../api/inspect/inspect.js';
import { counted } from '../../ir/visible.js';
import { byMessage, layersText, printLayers, widthsText } from '../../passes/index.js';
import { countText } from './counts.js';
import { withFlags } from './flags.js';
import { table } from './table.js';
import { textWidth } from './width.js';

/** The table of `onnx-fuse inspect`: layers that follow one another and are alike share a row. */
export function renderInspection({ model, layers, runs }: Inspection): string {
  const width = textWidth();
  const opsets = Object.entries(model.opsets).map(([domain, version]) => `${domain} ${version}`);
  const lines = [
    basename(model.file),
    table([], [[[model.producer, `IR ${model.irVersion}`, ...opsets].join(', ')]], width),
    `${counted(model.nodes, 'node')}, ${counted(model.parameters, 'parameter', { text: countText(model.parameters) })}, ${sizeText(model.weightBytes)} of weights`,
    ...(model.kvBytesPerToken ? [`${sizeText(model.kvBytesPerToken)} of KV caches per token`] : []),
    '',
  ];
  if (layers.length === 0) return [...lines, table([], [[`no layers: ${model.reason}`]], width)].join('\n');
  if (model.doubt !== null) lines.push(table([], [[`layers are numbered by position: ${model.doubt}`]], width), '');
  const names = new Set(layers.map(nameText));
  const [name] = names;
  if (names.size === 1 && name !== UNNAMED) lines.push(`layers are named ${name}`, '');
  const rows = grouped(layers, (layer) => {
    const { attention, ffn } = layer;
    return [
      ...(names.size > 1 ? [nameText(layer)] : []),
      attentionText(layer),
      ffnText(layer),
      ffn.width === null ? '-' : String(ffn.width),
      // The operators that a norm is made of are in the JSON.
      ffn.norm?.replace(/ \(.*/, '') ?? '-',
      ffn.dtype ?? '-',
      (attention.reason ?? ffn.reason) === null ? 'yes' : 'no',
    ];
  });
  const head = ['layers', ...(names.size > 1 ? ['named'] : []), 'attention', 'FFN', 'width', 'norm', 'dtype', 'fuses'];
  lines.push(table(head, rows, width), '');
  const reasons = layers.flatMap(({ index, attention, ffn }) => {
    const message = attention.reason ?? ffn.reason;
    return message === null ? [] : [{ layer: String(index), message: withFlags(message) }];
  });
  if (reasons.length > 0) lines.push('why not:', table([], byMessage(reasons).map(splitMessage), width), '');
  if (runs.length === 0) lines.push('no attention-free run to fuse as the model is; --remove-attention makes one');
  for (const run of runs) {
    const widths = `${widthsText(run.widths)} -> ${run.fusedWidth}`;
    lines.push(table([], [[`${layersText(run.layers)} would fuse: ${widths}`]], width));
  }
  return lines.join('\n');
}

/** `layers 0-3: why` in two columns. */
function splitMessage(line: string): string[] {
  const at = line.indexOf(': ');
  return [`  ${line.slice(0, at + 1)}`, line.slice(at + 2)];
}

/** What a layer without a name of its own is called. */
const UNNAMED = 'layer N';

/** The name of a layer with N for its number; that of several that became one as it is. */
function nameText({ name, index }: LayerInspection): string {
  return name.replace(new RegExp(`(?<![\\d-])${index}(?![\\d-])(?!.*(?<!\\d)${index}(?!\\d))`), 'N');
}

/** Rows with the numbers of their layers in front. */
function grouped(layers: readonly LayerInspection[], cellsOf: (layer: LayerInspection) => string[]): string[][] {
  const rows: { readonly numbers: number[]; readonly cells: string[] }[] = [];
  for (const layer of layers) {
    const cells = cellsOf(layer);
    const last = rows.at(-1);
    if (last && cells.every((cell, i) => cell === last.cells[i])) last.numbers.push(layer.index);
    else rows.push({ numbers: [layer.index], cells });
  }
  return rows.map(({ numbers, cells }) => [printLayers(numbers), ...cells]);
}

/** What mixes tokens in a layer, or the linear in its place. */
function attentionText({ attention, linears, others }: LayerInspection): string {
  const own = attention.present ? [`${attention.kind}${attention.removable ? '' : ' (fixed)'}`] : [];
  const linear = linears.filter(({ slot }) => slot === 'attention').map(() => 'linear');
  const mixers = others.filter(({ mixesTokens }) => mixesTokens).map(({ kind }) => kind);
  return [...own, ...linear, ...mixers].join(' + ') || '-';
}

/** The FFN of a layer, or the linear in its place. */
function ffnText({ ffn, linears }: LayerInspection): string {
  const linear = linears.filter(({ slot }) => slot !== 'attention').map(() => 'linear');
  return [...(ffn.kind === null ? [] : [ffn.kind]), ...linear].join(' + ') || '-';
}
