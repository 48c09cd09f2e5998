/** What `onnx-fuse inspect` prints. */
import { basename } from 'node:path';
import { countText, sizeText } from '../../api/basics/byte-size.js';
import type { Inspection } from '../../api/inspect/inspect.js';
import { attentionText, ffnText, nameText, normName, reasonsOf, rowsAlike, UNNAMED } from '../../api/inspect/words.js';
import { counted } from '../../ir/visible.js';
import { widthsText } from '../../passes/analysis/plans/fused-run.js';
import { layersText } from '../../passes/framework/facts.js';
import { printLayers } from '../../passes/framework/options.js';
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
    ...model.missing.map((file) => `its data file ${basename(file)} is not there`),
    ...(model.kvBytesPerToken ? [`${sizeText(model.kvBytesPerToken)} of KV caches per token`] : []),
    '',
  ];
  if (layers.length === 0) return [...lines, table([], [[`no layers: ${model.reason}`]], width)].join('\n');
  if (model.doubt !== null) lines.push(table([], [[`layers are numbered by position: ${model.doubt}`]], width), '');
  const names = new Set(layers.map(nameText));
  const [name] = names;
  if (names.size === 1 && name !== UNNAMED) lines.push(`layers are named ${name}`, '');
  const rows = rowsAlike(layers, (layer) => {
    const { attention, ffn } = layer;
    return [
      ...(names.size > 1 ? [nameText(layer)] : []),
      attentionText(layer),
      ffnText(layer),
      ffn.width === null ? '-' : String(ffn.width),
      normName(layer),
      ffn.dtype ?? '-',
      (attention.reason ?? ffn.reason) === null ? 'yes' : 'no',
    ];
  });
  const head = ['layers', ...(names.size > 1 ? ['named'] : []), 'attention', 'FFN', 'width', 'norm', 'dtype', 'fuses'];
  lines.push(
    table(
      head,
      rows.map(({ numbers, cells }) => [printLayers(numbers), ...cells]),
      width,
    ),
    '',
  );
  const reasons = reasonsOf(layers, ({ attention, ffn }) => attention.reason ?? ffn.reason);
  const whyNot = [...reasons].map(([why, numbers]) => [`  ${layersText(numbers.map(String))}:`, withFlags(why)]);
  if (whyNot.length > 0) lines.push('why not:', table([], whyNot, width), '');
  if (runs.length === 0) lines.push('no attention-free run to fuse as the model is; --remove-attention makes one');
  for (const run of runs) {
    const widths = `${widthsText(run.widths)} -> ${run.fusedWidth}`;
    lines.push(table([], [[`${layersText(run.layers)} would fuse: ${widths}`]], width));
  }
  return lines.join('\n');
}
