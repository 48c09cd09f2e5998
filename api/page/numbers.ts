/** Figures as people read them, and the scales of axes. */

const SUPERSCRIPTS = '⁰¹²³⁴⁵⁶⁷⁸⁹';

/** 2⁻⁹ and the like. */
export function power(base: number, exponent: number): string {
  const digits = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[Number(digit)]).join('');
  return `${base}${exponent < 0 ? '⁻' : ''}${digits}`;
}

/** Three significant digits; a power of ten where zeros would be counted. */
export function figure(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return '0';
  const sign = value < 0 ? '−' : '';
  if (size < 9.995e-4 || size >= 1e6) {
    const [digits = '', exponent] = size.toExponential(1).split('e');
    return `${sign}${digits} × ${power(10, Number(exponent))}`;
  }
  return `${sign}${size >= 999.5 ? count(Math.round(size)) : size.toPrecision(3)}`;
}

/** A whole number, its thousands apart. */
export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** A share in percent. */
export function percent(share: number): string {
  return `${share < 0 ? '−' : ''}${(100 * Math.abs(share)).toFixed(1)} %`;
}

/** A change, with its sign. */
export function change(share: number): string {
  return share > 0 ? `+${percent(share)}` : percent(share);
}

/** Seconds, in a unit that suits them. */
export function duration(seconds: number): string {
  if (seconds >= 1) return `${figure(seconds)} s`;
  return seconds >= 1e-3 ? `${figure(seconds * 1e3)} ms` : `${figure(seconds * 1e6)} µs`;
}

/** A factor: 1.25×. */
export function times(ratio: number): string {
  return `${ratio.toFixed(2)}×`;
}

/** Turns values into positions on the page. */
export interface Scale {
  (value: number): number;
  readonly ticks: readonly number[];
}

/** Round steps of 1, 2 or 5 that make about `wanted` of `span`. */
function step(span: number, wanted: number): number {
  const rough = span / wanted;
  const unit = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5].find((each) => each * unit >= rough) ?? 10) * unit;
}

/** From `low` to at least `high`, ending on a tick. */
export function linearScale(low: number, high: number, from: number, to: number, wanted = 5): Scale {
  const span = high > low ? high - low : Math.abs(low) || 1;
  const each = step(span, wanted);
  const [first, last] = [Math.floor(low / each + 1e-9), Math.ceil((low + span) / each - 1e-9)];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * each).toPrecision(12)));
  const [start, end] = [first * each, last * each];
  return Object.assign((value: number) => from + ((value - start) / (end - start)) * (to - from), { ticks });
}

/** Around positive `values`, from a 1, 2 or 5 to another; powers of ten are ticks, or all of these where few powers are inside. */
export function logScale(values: readonly number[], from: number, to: number): Scale {
  const [low, high] = [least(values), greatest(values)];
  const marks: number[] = [];
  for (let exponent = Math.floor(Math.log10(low)); exponent <= Math.ceil(Math.log10(high)) + 1; exponent++) {
    for (const digit of [1, 2, 5]) marks.push(Number(`${digit}e${exponent}`));
  }
  const first = Math.max(0, marks.filter((mark) => mark <= low).length - 1);
  const last = marks.findIndex((mark, i) => mark >= high && i > first);
  const inside = marks.slice(first, last + 1);
  const powers = inside.filter((mark) => Number.isInteger(Number(Math.log10(mark).toFixed(9))));
  const few = powers.length < 2 ? inside : powers;
  const every = Math.ceil(few.length / 6);
  const [start, end] = [Math.log10(marks[first] as number), Math.log10(marks[last] as number)];
  return Object.assign((value: number) => from + ((Math.log10(value) - start) / (end - start)) * (to - from), {
    ticks: few.filter((_, i) => i % every === 0),
  });
}

/** A limit as the user gave it. */
export function limitText(value: number): string {
  return tickText(Number(value.toPrecision(6)));
}

/** The text of a tick of an axis: as short as is exact. */
export function tickText(value: number): string {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? figure(value).replace('1.0 × ', '') : String(value);
}

/** The smallest number; for lists that are too long to be arguments. */
export function least(values: readonly number[]): number {
  return values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
}

/** The largest number; for lists that are too long to be arguments. */
export function greatest(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
}
