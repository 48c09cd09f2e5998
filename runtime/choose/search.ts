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
  /** The first `count` moves of the order that go together. */
  const beginning = (count: number): Move[] => compatible([], order).slice(0, count);

  const longest = compatible([], order).length;
  if (objective.kind === 'best') {
    let count = 1;
    while (count < longest && sumOf(beginning(count), (move) => move.secondsSaved) < objective.secondsSaved) count++;
    await measure(beginning(count));
  } else {
    // Doubling, then bisection: the KL of longer beginnings is larger, but for noise.
    let [low, high] = [0, 1];
    const isAllowed = async (count: number): Promise<boolean> => {
      const plan = await measure(beginning(count));
      return plan !== null && objective.isAllowed(plan.quality);
    };
    while (high <= longest && (await isAllowed(high))) [low, high] = [high, Math.min(2 * high, longest + 1)];
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (await isAllowed(middle)) low = middle;
      else high = middle;
    }
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
function byPrice(a: Move, b: Move): number {
  const price = (move: Move): number => Math.max(SMALLEST_KL, move.kl) / move.secondsSaved;
  return price(a) - price(b) || (a.key < b.key ? -1 : 1);
}

function sumOf(moves: readonly Move[], of: (move: Move) => number): number {
  return moves.reduce((sum, move) => sum + of(move), 0);
}
