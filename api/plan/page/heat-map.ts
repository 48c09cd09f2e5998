/** The dependency matrix of FFN Fusion (arXiv 2503.18908, section 5), on the paper's scale: log2, from 2^-9 to 2^-1. */

import { dataTable, details, html, type Markup, notMeasured, picture } from '../../page/markup.js';
import { figure, power } from '../../page/numbers.js';
import { HEAT_STEPS } from '../../page/style.js';
import type { PlanEvidence } from './evidence.js';

const [LOWEST, HIGHEST] = [-9, -1];
const [LEFT, TOP, RIGHT, FOOT] = [36, 22, 8, 66];

/** The step of a value; what is beyond an end of the scale has the colour of the end. */
function stepOf(value: number): number {
  const place = (Math.log2(Math.max(value, Number.MIN_VALUE)) - LOWEST) / (HIGHEST - LOWEST);
  return Math.min(HEAT_STEPS - 1, Math.max(0, Math.floor(place * HEAT_STEPS)));
}

/** The picture of which layers depend on which. */
export function heatMap({ scores, chosen }: PlanEvidence): Markup {
  const matrix = scores?.dependency;
  if (!scores || !matrix) return notMeasured('the file has no dependency matrix');
  const { layers } = scores;
  const count = layers.length;
  const side = count <= 40 ? 310 / count : 5;
  const [width, height] = [LEFT + count * side + RIGHT, TOP + count * side + FOOT];
  const cells: Markup[] = [];
  let [largest, where] = [0, ''];
  for (const [i, row] of matrix.entries()) {
    for (const [j, value] of row.entries()) {
      if (j <= i || value === null) continue;
      if (value > largest) [largest, where] = [value, `block ${layers[j]} without block ${layers[i]}`];
      cells.push(
        html`<rect class="h${stepOf(value)}" x="${LEFT + j * side}" y="${TOP + i * side}" width="${side + 0.1}" height="${side + 0.1}"><title>${`${layers[i]} → ${layers[j]}: ${figure(value)}`}</title></rect>`,
      );
    }
  }
  const every = count <= 16 ? 1 : count <= 40 ? 5 : 10;
  const gone = [...chosen.removeAttention, ...chosen.linearizeAttention];
  const labels = layers.flatMap((layer, i) => {
    const kind = gone.includes(layer) ? ' marked' : '';
    const at = (i + 0.5) * side;
    const tick = kind && html`<path class="line line-chosen" d="M${LEFT - 4} ${TOP + at}h3"/>`;
    if (layer % every !== 0) return [tick || null];
    return [
      tick || null,
      html`<text class="end${kind}" x="${LEFT - 6}" y="${TOP + at + 4}">${String(layer)}</text><text class="middle${kind}" x="${LEFT + at}" y="${TOP + count * side + 13}">${String(layer)}</text>`,
    ];
  });
  const runs = chosen.runs.flatMap((run) => {
    const [first, last] = [layers.indexOf(run[0] as number), layers.indexOf(run.at(-1) as number)];
    if (first < 0 || last <= first) return [];
    const size = (last - first + 1) * side;
    return html`<rect class="line line-fused" x="${LEFT + first * side}" y="${TOP + first * side}" width="${size}" height="${size}"/>`;
  });
  const axes = html`<text x="${2}" y="12">dropped block ↓</text><text class="middle" x="${LEFT + (count * side) / 2}" y="${TOP + count * side + 30}">measured block</text>`;
  const size = { width, height, isFixed: count > 40, largest: width * 1.35 };
  const description = `${count} by ${count} blocks. With the block of a row dropped, what the block of a column adds turns by the cosine distance shown. The largest is ${figure(largest)}: ${where}. The figures are in the table below.`;
  const content = html`${axes}${cells}${runs}${labels}${legend(TOP + count * side + 42, LEFT)}`;
  return html`<figure class="beside">${picture('heat-map', 'Dependency of blocks on earlier blocks', description, size, content)}
<figcaption>Cosine distance between what a block adds with an earlier block dropped and what it adds otherwise, mean over positions. Dark on light, or light on dark, is strong dependency; pale blocks can be computed beside one another. <span class="chosen">Violet</span>: layers that lose their attention; framed: FFNs that are fused into one.</figcaption></figure>
${details('Table of the dependency matrix', table(layers, matrix))}`;
}

function legend(y: number, x: number): Markup {
  const width = 14;
  const steps = Array.from(
    { length: HEAT_STEPS },
    (_, i) => html`<rect class="h${i}" x="${x + i * width}" y="${y}" width="${width + 0.1}" height="8"/>`,
  );
  const ticks = [-9, -7, -5, -3, -1].map((exponent) => {
    const at = x + ((exponent - LOWEST) / (HIGHEST - LOWEST)) * HEAT_STEPS * width;
    const sign = exponent === LOWEST ? '≤ ' : exponent === HIGHEST ? '≥ ' : '';
    return html`<text class="middle" x="${at}" y="${y + 20}">${sign}${power(2, exponent)}</text>`;
  });
  return html`${steps}${ticks}`;
}

function table(layers: readonly number[], matrix: readonly (readonly (number | null)[])[]): Markup {
  const cell = (value: number | null, i: number, j: number): string => {
    if (j <= i) return '';
    return value === null ? '–' : value.toPrecision(2);
  };
  const rows = matrix.map((row, i) => [String(layers[i]), ...row.map((value, j) => cell(value, i, j))]);
  return html`<div class="matrix">${dataTable(['dropped', ...layers.map(String)], rows)}</div>`;
}
