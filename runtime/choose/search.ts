/**
 * Searches for a plan: which branches go, with or without a linear map in their place, and which runs are fused.
 *
 * A plan is a set of moves. A move's own KL and the time that it saves say what to try first; what is tried is measured,
 * because moves interact. The moves are ordered by KL per second saved, the longest beginning of that order which keeps
 * within the limit is found by bisection, and then single moves are added and exchanged as long as the plan gets better.
 * No plan is measured twice. The same measurements give the same plan.
 */

/** Something that a plan can do. */
export interface Move {
  /** Says what it does and tells moves apart: `map attention 7`. */
  readonly key: string;
  /** What it touches: two moves that share one of these are not made together. */
  readonly touches: readonly string[];
  /** KL(original || with this move alone), nats a token. */
  readonly kl: number;
  /** Predicted, of one token. */
  readonly secondsSaved: number;
}

/** A set of moves that was measured. */
export interface MeasuredPlan<Q> {
  readonly moves: readonly Move[];
  readonly quality: Q;
  readonly secondsSaved: number;
}

/**
 * `fastest`: saves the most time of all plans that `isAllowed`. `best`: has the least KL of those that save at least
 * `secondsSaved`.
 */
export type Objective<Q> =
  | { readonly kind: 'fastest'; isAllowed(quality: Q): boolean }
  | { readonly kind: 'best'; readonly secondsSaved: number };

export interface SearchRequest<Q extends { readonly kl: number }> {
  readonly moves: readonly Move[];
  readonly objective: Objective<Q>;
  /** A plan that is known to be near the best one; none by default. */
  readonly start?: readonly Move[];
  /** Plans that may be measured. */
  readonly maxEvaluations: number;
  /** Measures a plan; null where it cannot be built. */
  measure(moves: readonly Move[]): Promise<Q | null>;
  /** Moves that only make sense beside these, such as fusing the FFNs that are consecutive now. */
  following?(moves: readonly Move[]): readonly Move[];
}

/** Moves that are tried at a time to be added or exchanged. */
const TRIES = 4;
/** A KL below this says nothing: it is within the noise of rounding. */
const SMALLEST_KL = 1e-6;

/** All plans that were measured, the best one, and null where none is allowed or fast enough. */
export async function searchMoves<Q extends { readonly kl: number }>(
  request: SearchRequest<Q>,
): Promise<{ readonly best: MeasuredPlan<Q> | null; readonly measured: readonly MeasuredPlan<Q>[] }> {
  const { objective, maxEvaluations } = request;
  const measured: MeasuredPlan<Q>[] = [];
  const known = new Map<string, MeasuredPlan<Q> | null>();
  let best: MeasuredPlan<Q> | null = null;
  const order = [...request.moves].filter(({ secondsSaved }) => secondsSaved > 0).sort(byPrice);

  const measure = async (moves: readonly Move[]): Promise<MeasuredPlan<Q> | null> => {
    const sorted = [...moves].sort((a, b) => (a.key < b.key ? -1 : 1));
    const key = sorted.map((move) => move.key).join('; ');
    const before = known.get(key);
    if (before !== undefined) return before;
    if (measured.length >= maxEvaluations) return null;
    const quality = await request.measure(sorted);
    const plan = quality && { moves: sorted, quality, secondsSaved: sumOf(sorted, ({ secondsSaved }) => secondsSaved) };
    known.set(key, plan);
    if (plan) {
      measured.push(plan);
      if (isBetter(plan, best, objective)) best = plan;
    }
    return plan;
  };
  // Ever longer beginnings of the order, of which the first moves are those to start with.
  const start = [...(request.start ?? [])].sort(byPrice);
  const ladder = [...start, ...compatible(start, order)];
  const beginning = (count: number): readonly Move[] => ladder.slice(0, count);
  if (objective.kind === 'best') {
    let count = Math.max(1, start.length);
    const saved = (): number => sumOf(beginning(count), (move) => move.secondsSaved);
    while (count < ladder.length && saved() < objective.secondsSaved) count++;
    if (ladder.length > 0) await measure(beginning(count));
  } else {
    await longestAllowed(start.length, ladder.length, async (count) => {
      const plan = await measure(beginning(count));
      return plan !== null && objective.isAllowed(plan.quality);
    });
  }

  for (let isImproved = true; isImproved && measured.length < maxEvaluations; ) {
    isImproved = false;
    const from: readonly Move[] = (best as MeasuredPlan<Q> | null)?.moves ?? [];
    for (const moves of neighbours(from, [...(request.following?.(from) ?? []), ...order])) {
      const before: MeasuredPlan<Q> | null = best;
      await measure(moves);
      if (best !== before) {
        isImproved = true;
        break;
      }
      if (measured.length >= maxEvaluations) break;
    }
  }
  return { best, measured };
}

/**
 * Asks for ever longer, or ever shorter, beginnings from `first` on in doubling steps, then halves the gap between the
 * longest that is allowed and the shortest that is not: the KL of longer ones is larger, but for noise. None is allowed.
 */
async function longestAllowed(
  first: number,
  most: number,
  isAllowed: (count: number) => Promise<boolean>,
): Promise<void> {
  let [low, high] = [0, most + 1];
  const ask = async (count: number): Promise<boolean> => {
    const found = count === 0 || (await isAllowed(count));
    if (found) low = Math.max(low, count);
    else high = Math.min(high, count);
    return found;
  };
  if (await ask(first)) {
    for (let step = 1; low < most && high > most; step *= 2) await ask(Math.min(most, low + step));
  } else {
    for (let step = 1; low === 0 && high > step; step *= 2) await ask(high - step);
  }
  while (high - low > 1) await ask(Math.floor((low + high) / 2));
}

/** Plans one step away: with one move more, with one exchanged, with one exchanged for two, with one less. */
function* neighbours(from: readonly Move[], order: readonly Move[]): Generator<readonly Move[]> {
  const added = compatible(from, order).slice(0, TRIES);
  for (const move of added) yield [...from, move];
  const byCost = [...from].sort((a, b) => byPrice(b, a)).slice(0, TRIES);
  for (const gone of byCost) {
    const rest = from.filter((move) => move !== gone);
    const others = compatible(
      rest,
      order.filter((move) => move !== gone),
    ).slice(0, TRIES);
    for (const move of others) yield [...rest, move];
    const [first, second] = others;
    if (first && second && compatible([...rest, first], [second]).length > 0) yield [...rest, first, second];
  }
  for (const gone of byCost) if (from.length > 1) yield from.filter((move) => move !== gone);
}

/** The moves of `order` that can be made beside `from` and beside each other, first come first served. */
function compatible(from: readonly Move[], order: readonly Move[]): Move[] {
  const touched = new Set(from.flatMap((move) => move.touches));
  const found: Move[] = [];
  for (const move of order) {
    if (from.includes(move) || move.touches.some((each) => touched.has(each))) continue;
    found.push(move);
    for (const each of move.touches) touched.add(each);
  }
  return found;
}

function isBetter<Q extends { readonly kl: number }>(
  plan: MeasuredPlan<Q>,
  than: MeasuredPlan<Q> | null,
  objective: Objective<Q>,
): boolean {
  if (objective.kind === 'fastest') {
    if (!objective.isAllowed(plan.quality)) return false;
    if (!than) return true;
    const faster = plan.secondsSaved - than.secondsSaved;
    return Math.abs(faster) > 1e-12 ? faster > 0 : plan.quality.kl < than.quality.kl;
  }
  if (plan.secondsSaved < objective.secondsSaved - 1e-12) return false;
  return !than || plan.quality.kl < than.quality.kl;
}

/** Least KL a second first; then by name, so that the order does not depend on that of the moves. */
export function byPrice(a: Move, b: Move): number {
  const price = ({ kl, secondsSaved }: Move): number =>
    secondsSaved > 0 ? Math.max(SMALLEST_KL, kl) / secondsSaved : Number.MAX_VALUE;
  return price(a) - price(b) || (a.key < b.key ? -1 : 1);
}

function sumOf(moves: readonly Move[], of: (move: Move) => number): number {
  return moves.reduce((sum, move) => sum + of(move), 0);
}
