/** Large numbers, short. */

/** 12, 12.0 k, 2.28 M, 7.00 B. */
export function countText(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} B`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(2)} M`;
  return count >= 1e4 ? `${(count / 1e3).toFixed(1)} k` : String(count);
}

/** 1.25 ms, 310 us. */
export function secondsText(value: number): string {
  return value >= 1e-3 ? `${(1000 * value).toPrecision(3)} ms` : `${(1e6 * value).toPrecision(3)} us`;
}
