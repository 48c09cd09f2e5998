/** Makes a failing case smaller while it still fails alike. */

/** Time enough for most; a case that is not quite small is small enough. */
const LONGEST_MS = 60_000;

/**
 * The smallest case that was found. `simpler` lists candidates of a case, `fails` runs one and gives its signature, null
 * where it does not fail.
 */
export async function shrink<T>(
  first: T,
  signature: string,
  simpler: (of: T) => Iterable<T>,
  fails: (candidate: T) => Promise<string | null>,
  longest = LONGEST_MS,
): Promise<T> {
  const until = performance.now() + longest;
  let best = first;
  for (let isSmaller = true; isSmaller; ) {
    isSmaller = false;
    for (const candidate of simpler(best)) {
      if (performance.now() > until) return best;
      if ((await fails(candidate)) !== signature) continue;
      best = candidate;
      isSmaller = true;
      break;
    }
  }
  return best;
}
