/** Predicted speed against measured quality: every plan that was measured, the front, and what was chosen. */
import { counted } from '../../../ir/visible.js';
import { printLayers } from '../../../passes/index.js';
import { dataTable, details, html, type Markup, type MarkupPart, notMeasured, picture } from '../../page/markup.js';
import {
  count,
  duration,
  figure,
  greatest,
  least,
  linearScale,
  logScale,
  percent,
  tickText,
  times,
} from '../../page/numbers.js';
import { isSameChoice } from '../plan-file.js';
import type { DrawnPlan, PlanEvidence } from './evidence.js';

const [WIDTH, HEIGHT] = [400, 330];
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 14, 26, 42];
/** A strip under the logarithmic axis for KL of 0, and one beside it for random plans, which have no predicted speed of their own. */
const [ZERO_STRIP, RANDOM_STRIP] = [22, 58];

interface Placed {
  readonly speed: number;
  readonly kl: number;
}

/** Points that can be drawn. A KL that is no number (the plan breaks the model) has no place. */
function placed(points: readonly DrawnPlan[]): Placed[] {
  return points.flatMap(({ speedup, quality }) =>
    speedup !== null && quality?.kl != null ? [{ speed: speedup, kl: quality.kl }] : [],
  );
}

/** The chart of speed against KL. */
export function tradeOff(evidence: PlanEvidence): Markup {
  const { budget, chosen } = evidence;
  const [front, evaluated, [best]] = [placed(evidence.front), placed(evidence.evaluated), placed([chosen])];
  const all = [...front, ...evaluated, ...(best ? [best] : [])];
  const random = evidence.random?.kl ?? [];
  const positive = [...all.map(({ kl }) => kl), ...random, budget.maxKl ?? 0].filter((kl) => kl > 0);
  if (all.length === 0 || positive.length === 0) return notMeasured('the file has no plans with figures');

  const hasZero = all.some(({ kl }) => kl <= 0);
  const right = WIDTH - RIGHT - (random.length > 0 ? RANDOM_STRIP : 0);
  const floor = HEIGHT - BOTTOM;
  const foot = floor - (hasZero ? ZERO_STRIP : 0);
  const speeds = all.map(({ speed }) => speed);
  const x = linearScale(Math.min(1, least(speeds)), Math.max(greatest(speeds), 1.01), LEFT + 8, right - 8);
  const scale = logScale([least(positive), greatest(positive)], foot - 2, TOP + 2);
  const y = (kl: number): number => (kl > 0 ? scale(kl) : floor - ZERO_STRIP / 2);

  const dots = (points: readonly Placed[], kind: string, radius: number): MarkupPart =>
    points.map(
      ({ speed, kl }) =>
        html`<circle class="${kind}" cx="${x(speed)}" cy="${y(kl)}" r="${radius}"><title>${`${times(speed)}, KL ${figure(kl)}`}</title></circle>`,
    );
  const steps = [...front]
    .sort((a, b) => a.speed - b.speed)
    .map(
      ({ speed, kl }, i) =>
        `${i === 0 ? `M${x(speed).toFixed(1)} ` : 'V'}${y(kl).toFixed(1)}${i === 0 ? '' : `H${x(speed).toFixed(1)}`}`,
    );
  // The first step goes up before it goes along: a speed costs what the next plan of the front costs.
  const line = front.length > 1 && html`<path class="line line-ink" stroke-opacity=".45" d="${steps.join('')}"/>`;
  const frame = html`${scale.ticks.map((tick) => html`<path class="grid" d="M${LEFT} ${scale(tick)}H${right}"/><text class="end" x="${LEFT - 6}" y="${scale(tick) + 4}">${tickText(tick)}</text>`)}${x.ticks.map((tick) => html`<path class="axis" d="M${x(tick)} ${floor}v4"/><text class="middle" x="${x(tick)}" y="${floor + 17}">${`${tickText(tick)}×`}</text>`)}${hasZero && html`<path class="grid" d="M${LEFT} ${foot}H${right}"/><text class="end" x="${LEFT - 6}" y="${y(0) + 4}">0</text>`}<path class="axis" d="M${LEFT} ${TOP}V${floor}H${right}"/><text x="2" y="12">KL, nats per token (log scale)</text><text class="middle" x="${(LEFT + right) / 2}" y="${HEIGHT - 6}">predicted speed, the original is 1</text>`;
  const limit =
    budget.maxKl !== null && budget.maxKl > 0
      ? html`<path class="limit" d="M${LEFT} ${y(budget.maxKl)}H${WIDTH - RIGHT}"/><text class="over" x="${LEFT + 6}" y="${y(budget.maxKl) + 14}">${`budget ${figure(budget.maxKl)}`}</text>`
      : null;
  const strip = right + 14;
  const others =
    random.length > 0 &&
    html`<text x="${strip}" y="${floor + 17}">random</text>${random.map((kl) => html`<path class="tick" d="M${strip} ${y(kl)}h24"><title>${`random plan, KL ${figure(kl)}`}</title></path>`)}`;
  const mark =
    best &&
    html`${dots([best], 'dot-chosen', 5)}<text class="end marked" x="${x(best.speed) - 9}" y="${y(best.kl) + 16}">chosen</text>`;
  const description = `${counted(evaluated.length, 'plan that was', { many: 'plans that were' })} measured, ${front.length} of them on the front${best ? `; the chosen one is at ${times(best.speed)}, KL ${figure(best.kl)}` : ''}${random.length > 0 ? `; ${counted(random.length, 'random plan')}` : ''}. Lower and further right is better. The figures are in the tables below.`;
  const content = html`${frame}${line}${dots(evaluated, 'dot', 3)}${dots(front, 'dot-front', 3.5)}${limit}${mark ?? null}${others}`;
  const missing = evidence.evaluated.length - evaluated.length;
  return html`<figure>${picture('trade-off', 'Predicted speed against KL', description, { width: WIDTH, height: HEIGHT, largest: 520 }, content)}
<figcaption>Faint: ${evidence.evaluated.length === 1 ? 'the one measurement' : `all ${count(evidence.evaluated.length)} measurements`} of the search, with maps fitted each alone or one after another. Black or white: plans that nothing beats in both. Lower and further right is better.${missing > 0 && ` ${missing} without a figure are not drawn.`}${random.length > 0 && ' At the right: random plans of as many changes of the same kinds.'}</figcaption></figure>`;
}

/** How `printLayers` says that there are none. */
const NONE = printLayers([]);
const layersText = (layers: readonly number[]): string => printLayers(layers).replaceAll(',', ', ');

/** What a plan does to layers, by the heads of columns. */
const CHANGES: readonly (readonly [head: string, (point: DrawnPlan) => string])[] = [
  ['attention → map', (point) => layersText(point.linearizeAttention)],
  ['attention removed', (point) => layersText(point.removeAttention)],
  ['FFN → map', (point) => layersText(point.linearizeFfn)],
  ['FFNs fused', (point) => point.runs.map(layersText).join('; ') || NONE],
  ['FFNs removed', (point) => layersText(point.removeFfn)],
];

function pointTable(points: readonly DrawnPlan[], chosen: DrawnPlan | null, timed: string): Markup {
  const shown = (value: number | null | undefined, text: (value: number) => string): string =>
    value == null ? '–' : text(value);
  // What no plan does is no column.
  const changes = CHANGES.filter(([, text], i) => i === 0 || points.some((point) => text(point) !== NONE));
  const rows = points.map((point) => {
    const isChosen = chosen !== null && isSameChoice(point, chosen) && point.quality?.kl === chosen.quality?.kl;
    const { quality } = point;
    const [first = '', ...others] = changes.map(([, text]) => text(point));
    return [
      isChosen ? html`<span class="chosen">${first} (chosen)</span>` : first,
      ...others,
      shown(point.speedup, times),
      shown(quality?.kl, figure),
      shown(point.seconds, duration),
      shown(quality?.maxKl, figure),
      shown(quality?.perplexity, (value) => value.toFixed(3)),
      shown(quality?.top1, percent),
      shown(quality?.positions, count),
    ];
  });
  const head = ['predicted speed', 'KL', timed, 'largest KL', 'perplexity', 'top-1', 'positions'];
  return dataTable(
    [...changes.map(([name]) => name), ...head],
    rows,
    changes.map((_, i) => i),
  );
}

/** The front, and all that was measured folded away. */
export function frontTables({ front, evaluated, chosen, options }: PlanEvidence): Markup {
  const timed = options.optimizeFor === 'prompt' ? 'a prompt' : 'a token';
  return html`${front.length > 0 ? html`<h3>The front</h3>${pointTable(front, chosen, timed)}` : notMeasured('the file has no front of plans')}
${evaluated.length > 0 && details(evaluated.length === 1 ? 'Table of the one measurement' : `Table of all ${count(evaluated.length)} measurements`, pointTable(evaluated, chosen, timed))}`;
}

/** How the chosen plan compares with random plans of its size. */
export function randomPlans({ chosen, random }: PlanEvidence): Markup {
  const kls = random?.kl ?? [];
  const own = chosen.quality?.kl ?? null;
  if (kls.length === 0 || own === null) return notMeasured('random plans of the same size were not tried');
  const worse = kls.filter((kl) => kl > own).length;
  return html`<p>Of ${counted(kls.length, 'random plan')} of as many changes of the same kinds, ${worse === 1 ? '1 is' : `${worse} are`} worse than the chosen one on the same text: KL ${figure(least(kls))} at best, ${figure(greatest(kls))} at worst; the chosen one ${figure(own)}.</p>
${details(
  'Table of random plans',
  dataTable(
    ['random plan', 'KL'],
    kls.map((kl, i) => [String(i + 1), figure(kl)]),
  ),
)}`;
}
