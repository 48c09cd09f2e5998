/** Scores per layer, as bars in the rows of the layer map. */
import { printLayers } from '../../../passes/index.js';
import { dataTable, details, html, type Markup, notMeasured, picture } from '../../page/markup.js';
import { figure, greatest, least, logScale, tickText } from '../../page/numbers.js';
import { heightOf, type LayerRows, rowLabels } from '../../page/rows.js';
import type { DrawnScores, PlanEvidence, ScoreName } from './evidence.js';

interface Panel {
  readonly name: ScoreName;
  readonly title: string;
  readonly text: string;
}

/** Panels of a group share their axis. */
const GROUPS: readonly (readonly Panel[])[] = [
  [
    {
      name: 'mappedAttention',
      title: 'attention → map',
      text: 'KL(original ‖ with a map in its place), nats per token',
    },
    { name: 'withoutAttention', title: 'attention removed', text: 'KL(original ‖ without it), nats per token' },
    { name: 'mappedFfn', title: 'FFN → map', text: 'KL(original ‖ with a map in its place), nats per token' },
    { name: 'withoutFfn', title: 'FFN removed', text: 'KL(original ‖ without it), nats per token' },
    { name: 'mappedBlock', title: 'block → map', text: 'KL(original ‖ with one map for both), nats per token' },
    { name: 'withoutBlock', title: 'block removed', text: 'KL(original ‖ without both), nats per token' },
  ],
  [
    { name: 'attentionSimilarity', title: 'attention, cosine', text: '1 − cos(x, x + attention): LLM-Drop' },
    { name: 'blockInfluence', title: 'block influence', text: '1 − cos(block input, block output): ShortGPT' },
  ],
];
const PANELS = GROUPS.flat();

const [WIDTH, LEFT, RIGHT] = [142, 26, 128];
/** Axes start this far below the least value at most: what is nearly zero is then at the left end. */
const DECADES = 6;

/** The picture of what removing each part costs. */
export function scoreBars(evidence: PlanEvidence, rows: LayerRows): Markup {
  const { scores } = evidence;
  if (!scores) return notMeasured('the file has no scores of layers');
  return html`${GROUPS.map((group) => {
    const values = group.flatMap(({ name }) => scores.of[name]?.filter((value) => value !== null && value > 0) ?? []);
    const { removeAttention, linearizeAttention } = evidence.chosen;
    const gone = [...removeAttention, ...linearizeAttention];
    // What was not asked for is not there, and no gap.
    const there = group.filter(({ name }) => scores.of[name]?.some((value) => value !== null));
    return there.map((panel) => bars(panel, values as number[], scores, gone, rows));
  })}`;
}

function bars(
  panel: Panel,
  all: readonly number[],
  scores: DrawnScores,
  removed: readonly number[],
  rows: LayerRows,
): Markup {
  const { name, title, text } = panel;
  const values = scores.of[name];
  if (!values || all.length === 0) return html`<figure>${notMeasured(title)}</figure>`;
  const floor = Math.max(least(all), greatest(all) / 10 ** DECADES);
  const x = logScale([floor, greatest(all)], LEFT, RIGHT);
  const marks = /attention/i.test(name) ? removed : [];
  const drawn = rows.layers.map((layer, row) => {
    const value = values[scores.layers.indexOf(layer)] ?? null;
    if (value === null) return null;
    const length = Math.max(1, (value > 0 ? x(value) : LEFT) - LEFT);
    const thickness = Math.max(3, rows.rowHeight * 0.45);
    const y = rows.top + (row + 0.5) * rows.rowHeight - thickness / 2;
    return html`<rect class="${marks.includes(layer) ? 'bar-marked' : 'bar'}" x="${LEFT}" y="${y}" width="${length}" height="${thickness}"><title>${`layer ${layer}: ${figure(value)}`}</title></rect>`;
  });
  const ticks: number[] = [];
  for (const tick of x.ticks) if (ticks.length === 0 || x(tick) - x(ticks.at(-1) as number) >= 32) ticks.push(tick);
  const axis = ticks.map(
    (tick) =>
      html`<path class="grid" d="M${x(tick)} ${rows.top}V${rows.bottom}"/><text class="middle" x="${x(tick)}" y="${rows.bottom + 14}">${tickText(tick)}</text>`,
  );
  const highest = values.reduce<number>((best, value, i) => ((value ?? -1) > (values[best] ?? -1) ? i : best), 0);
  const description = `${text}. A bar per layer on a logarithmic scale; the largest is ${figure(values[highest] ?? 0)}, of layer ${scores.layers[highest]}. The figures are in the table below.`;
  const content = html`<text x="${LEFT}" y="12" class="strong">${title}</text>${axis}${rowLabels(rows, LEFT - 6, marks)}${drawn}<path class="axis" d="M${LEFT} ${rows.top}V${rows.bottom}"/><text x="${LEFT}" y="${rows.bottom + 30}">log scale</text>`;
  return html`<figure>${picture(`score-${name}`, title, description, { width: WIDTH, height: heightOf(rows), isFixed: true }, content)}</figure>`;
}

/** Everything about each layer, as figures. */
export function layerTable({ layers, scores, chosen }: PlanEvidence, rows: LayerRows): Markup {
  const cells = rows.layers.map((number) => {
    const layer = layers?.find((each) => each.layer === number);
    const run = chosen.runs.find((each) => each.includes(number));
    const fate = (has: boolean | undefined, isGone: boolean, isMapped: boolean, otherwise: string): string => {
      if (has === false) return 'none';
      if (isMapped) return 'a map';
      return isGone ? 'removed' : otherwise;
    };
    return [
      String(number),
      fate(
        layer?.attention,
        chosen.removeAttention.includes(number),
        chosen.linearizeAttention.includes(number),
        'kept',
      ),
      fate(
        layer?.ffn,
        chosen.removeFfn.includes(number),
        chosen.linearizeFfn.includes(number),
        run ? `fused, ${printLayers(run).replaceAll('-', '–').replaceAll(',', ', ')}` : 'kept',
      ),
      layer?.ffnWidth == null ? '–' : String(layer.ffnWidth),
      ...PANELS.map(({ name }) => {
        const value = scores?.of[name]?.[scores.layers.indexOf(number)] ?? null;
        return value === null ? '–' : figure(value);
      }),
    ];
  });
  const head = ['layer', 'attention', 'FFN', 'FFN width', ...PANELS.map(({ title }) => title)];
  return details('Table of layers and scores', dataTable(head, cells, [1, 2]));
}

/** What the scores are. */
export function scoreNotes({ data }: PlanEvidence): Markup {
  return html`<p class="note">KL is KL(original ‖ changed), nats per token, with nothing else changed; a map is fitted on what the original computes. Cosine scores, where they were asked for, are mean distances over positions: 1 − cos(x, x + attention(x)) is LLM-Drop's; 1 − cos(block input, block output) is ShortGPT's block influence. Layers that lose their attention are marked in <span class="chosen">violet</span>. Small means: the model hardly notices${data.source !== null && html`, on ${data.source}`}.</p>`;
}
