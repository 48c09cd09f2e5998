/** What a model consists of, and what would fuse, on one page. */
import { counted } from '../../ir/visible.js';
import { layersText, printLayers, widthsText } from '../../passes/index.js';
import { countText, sizeText } from '../basics/byte-size.js';
import { documentOf, type PagePart } from '../page/document.js';
import { absent, cellBar, commandLine, dataTable, details, fact, html, type Markup } from '../page/markup.js';
import { count, percent } from '../page/numbers.js';
import { MOST_LAYERS } from '../page/rows.js';
import type { Inspection, LayerInspection } from './inspect.js';
import { layerPicture } from './layer-picture.js';
import type { WeightKind, WeightShares } from './weights.js';
import { attentionText, ffnText, nameText, normName, reasonsOf, rowsAlike, UNNAMED } from './words.js';

/** What else a page is made of. */
export interface PageWords {
  /** How a reason, which names options as `option keep-last`, is worded for those who read the page. */
  readonly worded: (reason: string) => string;
  /** The command line that says what could be removed at which cost; none where it is not known. */
  readonly next?: string | undefined;
}

/** The page. */
export function inspectionPageOf(inspection: Inspection, weights: WeightShares, { worded, next }: PageWords): string {
  const { model, layers } = inspection;
  const none = absent(`No layers: ${worded(model.reason ?? 'none were found')}.`);
  const part = (id: string, title: string, content: Markup): PagePart => ({ id, title, content });
  return documentOf(`${fileName(model.file)}: layers`, headline(inspection, next), [
    part('weights', 'Where the weights are', weightsPart(weights)),
    part('layers', 'Layer by layer', layers.length === 0 ? none : layersPart(inspection, weights, worded)),
    ...(layers.length === 0 ? [] : [part('fuses', 'What would fuse, and why not', fusesPart(inspection, worded))]),
  ]);
}

const fileName = (path: string): string => path.split(/[\\/]/).at(-1) || path;

function headline({ model, layers, runs }: Inspection, next: string | undefined): Markup {
  const opsets = Object.entries(model.opsets).map(([domain, version]) => `${domain} ${version}`);
  const fused = runs.map((run) => `the FFNs of ${layersText(run.layers)} would fuse into one`).join('; ');
  const kinds = new Set(layers.map((layer) => [attentionText(layer), ffnText(layer)].join(' and the FFN ')));
  const [kind = '-'] = kinds;
  const producer = model.producer === 'unknown' ? 'The file does not say what made it' : `Made by ${model.producer}`;
  return html`<p class="kicker">onnx-fuse inspect</p>
<h1>${fileName(model.file)}</h1>
<p class="words">${counted(layers.length, 'layer')}${layers.length > 0 && `: ${fused || 'nothing would fuse as the model is'}`}.</p>
<p class="note">${producer}; IR ${String(model.irVersion)}, opsets ${opsets.join(', ') || 'none'}.${kinds.size === 1 && !/(?:^| )-(?: |$)/.test(kind) && ` In every layer the attention is ${kind}.`}${model.doubt !== null && ` Layers are numbered by position: ${model.doubt}.`}</p>
${next !== undefined && layers.length > 0 && commandLine('This command finds what can go, and what that costs on your text.', next)}
<dl class="facts">${fact('Layers', count(layers.length))}${fact('Parameters', countText(model.parameters))}${fact('Weights', sizeText(model.weightBytes))}${fact('KV caches', model.kvBytesPerToken === null ? '–' : sizeText(model.kvBytesPerToken), model.kvBytesPerToken === null ? 'sizes are known only at run time' : 'a token')}${fact('Hidden size', model.hidden === null ? '–' : count(model.hidden))}${fact('Nodes', count(model.nodes), `${counted(model.inputs, 'input')}, ${counted(model.outputs, 'output')}`)}</dl>`;
}

/** How kinds of weights are called, and the colour that they have on all pages. */
const KINDS: readonly (readonly [kind: WeightKind, name: string, color: string])[] = [
  ['attention', 'attention', 'attention'],
  ['ffn', 'FFN', 'ffn'],
  ['linear', 'linear maps', 'mapped'],
  ['other', 'other branches', 'other'],
  ['table', 'token embeddings', 'other'],
  ['rest', 'head and the rest', 'other'],
];

function weightsPart({ kinds }: WeightShares): Markup {
  const total = [...kinds.values()].reduce((sum, bytes) => sum + bytes, 0);
  if (total === 0) return absent('The model has no weights.');
  const rows = KINDS.flatMap(([kind, name, color]) => {
    const bytes = kinds.get(kind) ?? 0;
    return bytes > 0 ? [[name, cellBar(color, bytes / total), percent(bytes / total), sizeText(bytes)]] : [];
  });
  return html`<div class="wide">${dataTable(['', 'share of the bytes', '', ''], rows, [0, 1])}</div>
<p class="note">Every distinct weight is counted once. A table of embeddings that is also the output head is counted with the head; the rest is the last norm, and what several layers read.</p>`;
}

function layersPart({ layers, runs }: Inspection, weights: WeightShares, worded: PageWords['worded']): Markup {
  if (layers.length > MOST_LAYERS) return absent(`There are ${count(layers.length)} layers, more than are drawn.`);
  const bytesOf = (layer: LayerInspection): number =>
    weights.branches.reduce((sum, branch) => sum + (branch.layer === layer.index ? branch.weightBytes : 0), 0);
  const bytes = new Map(layers.map((layer) => [layer, bytesOf(layer)]));
  const names = new Set(layers.map(nameText));
  const [name = UNNAMED] = names;
  const rows = rowsAlike(layers, (layer) => [
    attentionText(layer),
    ffnText(layer),
    layer.ffn.width === null ? '-' : count(layer.ffn.width),
    normName(layer),
    dtypeText(layer),
    sizeText(bytes.get(layer) ?? 0),
    (layer.attention.reason ?? layer.ffn.reason) === null ? 'yes' : 'no',
  ]);
  const summary = dataTable(
    ['layers', 'attention', 'FFN', 'width', 'norm', 'stored as', 'a layer', 'fuses'],
    rows.map(({ numbers, cells }) => [printLayers(numbers).replaceAll(',', ', '), ...cells]),
    [0, 1, 2, 4, 5, 7],
  );
  const all = dataTable(
    ['layer', 'name', 'attention', 'KV caches', 'FFN', 'activation', 'width', 'norm', 'stored as', 'bytes', 'why not'],
    layers.map((layer) => [
      String(layer.index),
      layer.name,
      attentionText(layer),
      layer.attention.kvInputs.join(', ') || '-',
      ffnText(layer),
      layer.ffn.activation ?? '-',
      layer.ffn.width === null ? '-' : count(layer.ffn.width),
      layer.ffn.norm ?? '-',
      dtypeText(layer),
      sizeText(bytes.get(layer) ?? 0),
      [layer.attention.reason, layer.ffn.reason].flatMap((why) => (why === null ? [] : worded(why))).join('; ') || '-',
    ]),
    [1, 2, 3, 4, 5, 7, 8, 10],
  );
  return html`<p class="note keys"><span><i class="key attention"></i>attention</span> <span><i class="key ffn"></i>FFN</span> <span><i class="key fused"></i>FFNs that would fuse into one</span> <span><i class="key mapped"></i>a linear map in the place of a branch</span> <span><i class="key other"></i>other</span></p>
${names.size === 1 && name !== UNNAMED && html`<p class="note">Layers are named ${name}.</p>`}
<div class="beside">${layerPicture(layers, runs, weights)}${summary}</div>
${details('Table of all layers', all)}`;
}

/** How the weights of a layer are stored. */
function dtypeText({ ffn, linears }: LayerInspection): string {
  return (
    [...new Set([...(ffn.dtype === null ? [] : [ffn.dtype]), ...linears.map(({ dtype }) => dtype)])].join(', ') || '-'
  );
}

function fusesPart({ layers, runs }: Inspection, worded: PageWords['worded']): Markup {
  const merged = runs.map((run) => [layersText(run.layers), widthsText(run.widths), count(run.fusedWidth)]);
  const why = (what: string, reasonOf: (layer: LayerInspection) => string | null): string[][] =>
    [...reasonsOf(layers, reasonOf)].map(([reason, numbers]) => [
      what,
      printLayers(numbers).replaceAll(',', ', '),
      worded(reason),
    ]);
  const reasons = [
    ...why('attention', ({ attention }) => attention.reason),
    ...why('FFN', ({ ffn }) => ffn.reason),
    ...why('other', ({ others }) => others.map(({ kind, reason }) => `${kind}: ${reason}`).join('; ') || null),
  ];
  return html`${
    merged.length > 0
      ? dataTable(['FFNs that would be one', 'widths', 'fused'], merged, [0, 1])
      : html`<p>No FFNs would fuse as the model is: they fuse where no attention lies between them, so it is attentions that have to go first.</p>`
  }
${reasons.length > 0 && html`<h3>Why not</h3>${dataTable(['', 'layers', 'why it stays as it is'], reasons, [0, 1, 2])}`}`;
}
