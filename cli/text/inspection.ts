/** What `onnx-fuse inspect` prints. */
import { basename } from 'node:path';
import { sizeText } from '../../api/basics/byte-size.js';
import type { Inspection, LayerInspection } from '../../api/inspect/inspect.js';
import { layersText, widthsText } from '../../passes/index.js';
import { countText } from './counts.js';
import { table } from './table.js';

/** The table of `onnx-fuse inspect`. */
export function renderInspection({ model, layers, runs }: Inspection): string {
  const opsets = Object.entries(model.opsets).map(([domain, version]) => `${domain} ${version}`);
  const lines = [
    `${basename(model.file)}  ${model.producer}, IR ${model.irVersion}, ${opsets.join(', ')}`,
    `${model.nodes} nodes, ${countText(model.parameters)} parameters, ${sizeText(model.weightBytes)} of weights` +
      (model.kvBytesPerToken === null ? '' : `, KV cache ${sizeText(model.kvBytesPerToken)} per token`),
    '',
  ];
  if (layers.length === 0) return [...lines, `no layers: ${model.reason}`].join('\n');
  if (model.doubt !== null) lines.push(`layers are numbered by position: ${model.doubt}`, '');
  const rows = layers.map((layer) => {
    const { index, name, attention, ffn } = layer;
    return [
      String(index),
      name,
      attentionText(layer),
      ffnText(layer),
      ffn.width === null ? '-' : String(ffn.width),
      ffn.norm ?? '-',
      ffn.dtype ?? '-',
      attention.reason ?? ffn.reason ?? 'fuses',
    ];
  });
  lines.push(table(['layer', 'name', 'attention', 'FFN', 'width', 'norm', 'dtype', 'fuses, or why not'], rows), '');
  if (runs.length === 0) lines.push('no attention-free run to fuse as the model is; --remove-attention makes one');
  for (const run of runs) {
    lines.push(`${layersText(run.layers)} would fuse: ${widthsText(run.widths)} -> ${run.fusedWidth}`);
  }
  return lines.join('\n');
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
