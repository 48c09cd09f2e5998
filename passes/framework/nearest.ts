/** The word that somebody probably meant. */
import { distance } from 'fastest-levenshtein';

/** Letters of a word from which on what begins with it is meant by it. */
const SHORTEST_BEGINNING = 3;
/** Letters of a word that is told by its beginning alone. */
const LONG = 8;

/** The nearest of `known` to `word`, in any spelling; null when none is near. */
export function nearest(word: string, known: Iterable<string>): string | null {
  const wanted = plain(word);
  let best: string | null = null;
  let least = Math.max(wanted.length > 3 ? 2 : 1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of known) {
    const spelled = plain(candidate);
    if (wanted.length >= SHORTEST_BEGINNING && spelled.startsWith(wanted)) return candidate;
    // Shortened in another way, but for its last letter: `removeAttn`.
    if (wanted.length >= LONG && spelled.startsWith(wanted.slice(0, -1))) return candidate;
    const far = distance(wanted, spelled);
    if (far >= least) continue;
    best = candidate;
    least = far;
  }
  return best;
}

/** What to say to who wrote `word`, which is none of `known`. */
export function suggestion(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  if (near !== null) return `did you mean '${near}'?`;
  return known.length > 0 ? `choose of ${known.join(', ')}` : 'there are none';
}

/** keepLast, keep_last and keep-last are one word. */
function plain(word: string): string {
  return word.toLowerCase().replace(/[^a-z0-9]/g, '');
}
