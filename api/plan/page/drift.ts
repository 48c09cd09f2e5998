/** KL by position in the sequence: whether a changed model drifts away the longer the text. */
import { counted } from '../../../ir/visible.js';
import { dataTable, details, html, type Markup, notMeasured, picture } from '../../page/markup.js';
import { figure, greatest, limitText, linearScale, tickText } from '../../page/numbers.js';
import type { Figures } from './evidence.js';

const [WIDTH, HEIGHT] = [400, 330];
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 14, 26, 62];
/** Positions are put together into this many stretches at most. */
const STRETCHES = 24;
/** Told apart by how they are drawn, since colours have meanings: searched on, checked on, held out. */
const KINDS = ['line-pale', 'line-ink', 'line-ink line-dotted'] as const;

/** One line of the chart. */
export interface Series {
  readonly name: string;
  readonly quality: Figures | null;
}

interface Stretch {
  readonly from: number;
  readonly to: number;
  /** Null when no position of it has a number. */
  readonly kl: number | null;
}

function stretches(values: readonly (number | null)[], size: number): Stretch[] {
  return Array.from({ length: Math.ceil(values.length / size) }, (_, i) => {
    const [from, to] = [i * size, Math.min((i + 1) * size, values.length)];
    const known = values.slice(from, to).filter((value) => value !== null);
    return { from, to, kl: known.length === 0 ? null : known.reduce((sum, kl) => sum + kl, 0) / known.length };
  });
}

/** The chart of KL by position. */
export function drift(all: readonly Series[], maxKl: number | null): Markup {
  const longest = greatest([0, ...all.map(({ quality }) => quality?.klByPosition.length ?? 0)]);
  const size = Math.max(1, Math.ceil(longest / STRETCHES));
  const series = all
    .map(({ name, quality }) => ({ name, parts: stretches(quality?.klByPosition ?? [], size) }))
    .filter(({ parts }) => parts.some(({ kl }) => kl !== null));
  if (series.length === 0) return notMeasured('the file has no KL by position');

  const floor = HEIGHT - BOTTOM;
  const right = WIDTH - RIGHT;
  const highest = greatest(series.flatMap(({ parts }) => parts.map(({ kl }) => kl ?? 0)));
  const limit = maxKl !== null && maxKl > 0 && maxKl <= highest * 4 ? maxKl : null;
  const y = linearScale(0, Math.max(highest, limit ?? 0) || 1, floor, TOP);
  const x = (position: number): number => LEFT + (position / longest) * (right - LEFT);
  const ticks = linearScale(0, longest, LEFT, right).ticks.filter((tick) => tick <= longest);
  const path = (parts: readonly Stretch[]): string => {
    let isDown = false;
    return parts
      .map(({ from, to, kl }) => {
        const start =
          kl === null ? '' : `${isDown ? 'V' : `M${x(from).toFixed(1)} `}${y(kl).toFixed(1)}H${x(to).toFixed(1)}`;
        isDown = kl !== null;
        return start;
      })
      .join('');
  };
  const lines = series.map(({ name, parts }, i) => {
    const kind = KINDS[i] ?? KINDS[0];
    const at = LEFT + i * 118;
    return html`<path class="line ${kind}" d="${path(parts)}"/><path class="line ${kind}" d="M${at} ${HEIGHT - 8}h16"/><text class="strong" x="${at + 21}" y="${HEIGHT - 4}">${name}</text>`;
  });
  const frame = html`${y.ticks.map((tick) => html`<path class="grid" d="M${LEFT} ${y(tick)}H${right}"/><text class="end" x="${LEFT - 6}" y="${y(tick) + 4}">${tickText(tick)}</text>`)}${ticks.map((tick) => html`<path class="axis" d="M${x(tick)} ${floor}v4"/><text class="middle" x="${x(tick)}" y="${floor + 17}">${tickText(tick)}</text>`)}<path class="axis" d="M${LEFT} ${TOP}V${floor}H${right}"/><text x="2" y="12">KL, nats per token</text><text class="middle" x="${(LEFT + right) / 2}" y="${floor + 34}">position in the sequence</text>`;
  const budget =
    limit !== null &&
    html`<path class="limit" d="M${LEFT} ${y(limit)}H${right}"/><text class="end over" x="${right}" y="${y(limit) - 5}">${`budget ${limitText(limit)}`}</text>`;
  const description = `Mean KL of stretches of ${counted(size, 'position')} over ${counted(longest, 'position')}, for ${series.map(({ name }) => name).join(' and ')}; at most ${figure(highest)}. The figures are in the table below.`;
  const rows = Array.from({ length: Math.ceil(longest / size) }, (_, i) => [
    size === 1 ? String(i) : `${i * size}–${Math.min((i + 1) * size, longest) - 1}`,
    ...series.map(({ parts }) => {
      const kl = parts[i]?.kl ?? null;
      return kl === null ? '–' : figure(kl);
    }),
  ]);
  return html`<figure>${picture('drift', 'KL by position', description, { width: WIDTH, height: HEIGHT, largest: 520 }, html`${frame}${lines}${budget}`)}
<figcaption>Both models are told the true tokens, so nothing adds up from earlier mistakes but what is in the KV cache. ${size > 1 && `Means of stretches of ${size} positions.`}</figcaption></figure>
${details('Table of KL by position', dataTable(['positions', ...series.map(({ name }) => name)], rows))}`;
}
