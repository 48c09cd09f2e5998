/** Short times, in ASCII. */

/** 1.25 ms, 310 us. */
export function secondsText(value: number): string {
  return value >= 1e-3 ? `${(1000 * value).toPrecision(3)} ms` : `${(1e6 * value).toPrecision(3)} us`;
}
