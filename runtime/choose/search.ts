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
export interface MeasuredPlan<Q extends PlanQuality, M extends Move = Move> {
  readonly moves: readonly M[];
  readonly quality: Q;
}

/** What plans are compared by. */
export interface PlanQuality {
  readonly kl: number;
}

/**
 * `fastest`: saves the most time of all plans that `isAllowed`. `best`: has the least KL of those that save at least
 * `secondsSaved`.
 */
export type Objective<Q> =
  | { readonly kind: 'fastest'; isAllowed(quality: Q): boolean }
  | { readonly kind: 'best'; readonly secondsSaved: number };

export interface SearchRequest<Q extends PlanQuality, M extends Move> {
  readonly moves: readonly M[];
  readonly objective: Objective<Q>;
  /** A plan that is known to be near the best one; none by default. */
  readonly start?: readonly M[];
  /** Plans that may be measured. */
  readonly maxEvaluations: number;
  /** Measures a plan; null where it cannot be built. */
  measure(moves: readonly M[]): Promise<Q | null>;
  /** Moves that only make sense beside these, such as fusing the FFNs that are consecutive now. */
  following?(moves: readonly M[]): readonly M[];
}

/** Moves that are tried at a time to be added or exchanged. */
const TRIES = 4;
/** A KL below this says nothing: it is within the noise of rounding. */
const SMALLEST_KL = 1e-6;

/** All plans that were measured, the best one, and null where none is allowed or fast enough. */
export async function searchMoves<Q extends PlanQuality, M extends Move>(
  request: SearchRequest<Q, M>,
): Promise<{ readonly best: MeasuredPlan<Q, M> | null; readonly measured: readonly MeasuredPlan<Q, M>[] }> {
  const { objective, maxEvaluations } = request;
  const measured: MeasuredPlan<Q, M>[] = [];
  const known = new Map<string, MeasuredPlan<Q, M> | null>();
  let best: MeasuredPlan<Q, M> | null = null;
  const order = [...request.moves].filter(({ secondsSaved }) => secondsSaved > 0).sort(byPrice);

  const measure = async (moves: readonly M[]): Promise<MeasuredPlan<Q, M> | null> => {
    const key = planKey(moves);
    const before = known.get(key);
    if (before !== undefined) return before;
    if (measured.length >= maxEvaluations) return null;
    const sorted = [...moves].sort((a, b) => (a.key < b.key ? -1 : 1));
    const quality = await request.measure(sorted);
    const plan = quality && { moves: sorted, quality };
    known.set(key, plan);
    if (plan) {
      measured.push(plan);
      if (meets(plan, objective) && (!best || byMerit(objective)(plan, best) < 0)) best = plan;
    }
    return plan;
  };
  // Ever longer beginnings of the order, of which the first moves are those to start with.
  const start = [...(request.start ?? [])].sort(byPrice);
  const ladder = [...start, ...compatible(start, order)];
  const beginning = (count: number): readonly M[] => ladder.slice(0, count);
  if (objective.kind === 'best') {
    let count = Math.max(1, start.length);
    while (count < ladder.length && secondsSavedBy(beginning(count)) < objective.secondsSaved) count++;
    if (ladder.length > 0) await measure(beginning(count));
  } else {
    await longestAllowed(start.length, ladder.length, async (count) => {
      const plan = await measure(beginning(count));
      return plan !== null && meets(plan, objective);
    });
  }

  for (let isImproved = true; isImproved && measured.length < maxEvaluations; ) {
    isImproved = false;
    const from: readonly M[] = (best as MeasuredPlan<Q, M> | null)?.moves ?? [];
    for (const moves of neighbours(from, [...(request.following?.(from) ?? []), ...order])) {
      const before: MeasuredPlan<Q, M> | null = best;
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
function* neighbours<M extends Move>(from: readonly M[], order: readonly M[]): Generator<readonly M[]> {
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
function compatible<M extends Move>(from: readonly M[], order: readonly M[]): M[] {
  const touched = new Set(from.flatMap((move) => move.touches));
  const found: M[] = [];
  for (const move of order) {
    if (from.includes(move) || move.touches.some((each) => touched.has(each))) continue;
    found.push(move);
    for (const each of move.touches) touched.add(each);
  }
  return found;
}

/** What a set of moves is called, whatever their order. */
export function planKey(moves: readonly Pick<Move, 'key'>[]): string {
  return moves
    .map(({ key }) => key)
    .sort()
    .join('; ');
}

/** Of one token, predicted. */
export function secondsSavedBy(moves: readonly Pick<Move, 'secondsSaved'>[]): number {
  return moves.reduce((sum, { secondsSaved }) => sum + secondsSaved, 0);
}

/** Sums of seconds that differ by less are the same, added up in another order. */
const SAME_SECONDS = 1e-12;

/** Whether a plan is one of those among which the objective takes the best. */
export function meets<Q extends PlanQuality>({ moves, quality }: MeasuredPlan<Q>, objective: Objective<Q>): boolean {
  return objective.kind === 'fastest'
    ? objective.isAllowed(quality)
    : secondsSavedBy(moves) >= objective.secondsSaved - SAME_SECONDS;
}

/** The better of two plans that meet the objective first. */
export function byMerit<Q extends PlanQuality>({ kind }: Objective<Q>) {
  return (a: MeasuredPlan<Q>, b: MeasuredPlan<Q>): number => {
    const slower = secondsSavedBy(b.moves) - secondsSavedBy(a.moves);
    return kind === 'fastest' && Math.abs(slower) > SAME_SECONDS ? slower : a.quality.kl - b.quality.kl;
  };
}

/** Least KL a second first; then by name, so that the order does not depend on that of the moves. */
export function byPrice(a: Move, b: Move): number {
  const price = ({ kl, secondsSaved }: Move): number =>
    secondsSaved > 0 ? Math.max(SMALLEST_KL, kl) / secondsSaved : Number.MAX_VALUE;
  return price(a) - price(b) || (a.key < b.key ? -1 : 1);
}
