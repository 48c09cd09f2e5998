/** What other commands measured and a report may also show. */
import { counted } from '../../../ir/visible.js';
import { dataTable, html, type Markup, type MarkupPart, notMeasured } from '../../page/markup.js';
import { duration, times } from '../../page/numbers.js';
import { type Figures, fields, figuresOf, list, numberOf, textOf } from './evidence.js';

/** Further measurements that a page shows. Their texts come from outside and may hold anything. */
export interface ReportExtras {
  /** `verify --data` on text that no plan was searched on. */
  readonly heldOut?: { readonly source?: string; readonly originalPerplexity?: number; readonly quality: unknown };
  /** Greedy continuations of the same prompt by both models. */
  readonly samples?: readonly { readonly prompt: string; readonly before: string; readonly after: string }[];
  /** What `bench` measured: `ratio` 1.2 is 1.2 times as fast; the others with their units. */
  readonly bench?: readonly {
    readonly name: string;
    /** Of one token behind others, and not of a prompt. */
    readonly isToken: boolean;
    readonly ratio: number;
    readonly before: string;
    readonly after: string;
  }[];
}

export interface HeldOut {
  readonly source: string | null;
  readonly quality: Figures;
}

export function heldOutOf({ heldOut }: ReportExtras): HeldOut | null {
  const quality = figuresOf(fields(heldOut)['quality']);
  const source = textOf(fields(heldOut)['source'])?.split(/[\\/]/).at(-1);
  return quality && { source: source ?? null, quality };
}

/**
 * The extras in what `verify --json` prints: quality on text (`text`) and continuations (`continuations`), where there are any.
 */
export function extrasOfVerify(value: unknown): ReportExtras {
  const text = fields(fields(value)['text']);
  const samples = list(fields(value)['continuations']).flatMap((each) => {
    const [prompt, before, after] = ['prompt', 'original', 'fused'].map((key) => sayingOf(fields(each)[key]));
    return prompt != null && before != null && after != null ? [{ prompt, before, after }] : [];
  });
  const source = textOf(text['source']);
  return {
    ...(figuresOf(text['quality'])
      ? { heldOut: { ...(source === null ? {} : { source }), quality: text['quality'] } }
      : {}),
    ...(samples.length > 0 ? { samples } : {}),
  };
}

/** A text, or the ids of tokens whose text is not known. */
function sayingOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  const ids = list(value).map(numberOf);
  return ids.length > 0 && !ids.includes(null) ? ids.join(' ') : null;
}

/** The extras in what `bench --json` writes for two models. */
export function extrasOfBench(value: unknown): Pick<ReportExtras, 'bench'> {
  const { prompt, provider } = fields(value);
  const bench = list(fields(value)['rows']).flatMap((each) => {
    const row = fields(each);
    const [ratio, before, after] = [row['ratio'], ...list(row['ms'])].map((spread) =>
      numberOf(fields(spread)['median']),
    );
    if (ratio == null || before == null || after == null || !(ratio > 0)) return [];
    const isToken = row['phase'] !== 'prefill';
    const phase = isToken ? 'one token' : `a prompt of ${numberOf(prompt) ?? '?'}`;
    const name = `${phase}, batch ${numberOf(row['batch']) ?? '?'}, ${textOf(provider) ?? 'cpu'}`;
    return [{ name, isToken, ratio: 1 / ratio, before: duration(before / 1e3), after: duration(after / 1e3) }];
  });
  return bench.length > 0 ? { bench } : {};
}

/** Continuations side by side; what both have in common at the start is pale. */
export function samplesOf({ samples = [] }: ReportExtras): Markup {
  if (samples.length === 0) return notMeasured('no continuations were given to this report');
  return html`${samples.map(({ prompt, before, after }) => {
    // By characters and not by halves of them.
    const [left, right] = [[...before], [...after]];
    let same = 0;
    while (same < left.length && left[same] === right[same]) same++;
    const isSame = same === left.length && same === right.length;
    const quote = (characters: readonly string[]): MarkupPart =>
      html`<blockquote><span class="same">${characters.slice(0, same).join('')}</span>${characters.slice(same).join('')}</blockquote>`;
    return html`<div class="sample"><p class="note">${prompt} …</p>
<div class="both"><div><p class="kicker">original</p>${quote(left)}</div><div><p class="kicker">${isSame ? 'changed: the same' : `changed: the same for ${counted(same, 'character')}`}</p>${quote(right)}</div></div></div>\n`;
  })}`;
}

export function benchOf({ bench = [] }: ReportExtras): Markup {
  const rows = bench.flatMap(({ name, ratio, before, after }) => {
    const found = numberOf(ratio);
    return found === null ? [] : [[name, times(found), before, after]];
  });
  if (rows.length === 0) return notMeasured('no benchmark was given to this report; the speed above is predicted');
  return html`<p>The speed of the changed model over that of the original, measured.</p>${dataTable(['', 'speed', 'original', 'changed'], rows)}`;
}
