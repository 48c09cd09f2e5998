/** What benchmarks that let variants take turns have in common: samples that are medians of turns. */

/** A turn of a variant: one run to warm up, then runs for this long. Its sample is their median. */
const TURN_MS = 40;
const TURN_RUNS = 20;

/** Milliseconds of one run. */
export async function turn(run: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let spent = 0; spent < TURN_MS && times.length < TURN_RUNS; spent += times.at(-1) as number) {
    const start = performance.now();
    await run();
    times.push(performance.now() - start);
  }
  return quartiles(times).median;
}

/** The middle of some samples, and the quarters around it. */
export interface Quartiles {
  readonly p25: number;
  readonly median: number;
  readonly p75: number;
}

/** The quartiles of samples, in any order. */
export function quartiles(samples: readonly number[]): Quartiles {
  const sorted = [...samples].sort((x, y) => x - y);
  const at = (part: number): number => {
    const place = part * (sorted.length - 1);
    const low = sorted[Math.floor(place)] as number;
    return low + (place % 1) * ((sorted[Math.ceil(place)] as number) - low);
  };
  return { p25: at(0.25), median: at(0.5), p75: at(0.75) };
}
