/** Scores single moves, searches among plans, fits the maps of those that are left, and chooses. */
import {
  byMerit,
  byPrice,
  type Fits,
  isWithin,
  type LayerChoice,
  type MeasuredPlan,
  meets,
  NO_CHANGE,
  type Objective,
  ORIGINAL,
  planKey,
  type Quality,
  searchMoves,
  secondsSavedBy,
} from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { randomChoices, runsIfAny } from './candidates.js';
import type { Measurement } from './measurement.js';
import {
  type BranchCosts,
  choiceOf,
  type DraftMove,
  findMove,
  fuseMove,
  goneAttentions,
  type PlanMove,
  walkOf,
  walkWith,
} from './moves.js';
import { Phases } from './phases.js';
import type { PlanRequest } from './plan.js';
import type { PlanFile, SearchedPoint } from './plan-file.js';
import type { PlanProgress } from './resume.js';

/** Part of the budget that the search may use: the rest is for text that was not seen. */
const SHARE = 0.9;
/** Plans whose maps are fitted one after another, in parts of all that may be measured. */
const FITTED_SHARE = 0.3;
/** Moves are first scored on this share of the text to search on, and this share of them, the cheapest, on all of it. */
const SCORED_SHARE = 0.25;
const RESCORED_SHARE = 0.3;

/** What a planner works with. */
export interface PlannerTools {
  readonly measurement: Measurement;
  readonly progress: PlanProgress;
  readonly drafts: readonly DraftMove[];
  readonly costs: BranchCosts;
  readonly originalSeconds: number;
}

/** What came of it. */
export interface Planned {
  readonly chosen: SearchedPoint & { readonly check: Quality };
  readonly passedOver: PlanFile['passedOver'];
  readonly removed: Quality | null;
  readonly fits: Fits;
  /** The plan that changes nothing, and all that were measured. */
  readonly nothing: SearchedPoint;
  readonly evaluated: readonly SearchedPoint[];
  readonly random: PlanFile['random'];
  /** Of the original, where the choice was checked. */
  readonly perplexity: number;
}

/** A plan that was measured, as moves and as a point. */
interface Tried extends MeasuredPlan<Quality, PlanMove> {
  readonly point: SearchedPoint;
}

export class Planner {
  /** KL of single moves, by their keys. */
  readonly scores = new Map<string, number>();
  readonly #tried: Tried[] = [];
  readonly #runs = new Map<string, PlanMove[]>();
  readonly #phases: Phases;

  constructor(
    readonly request: PlanRequest,
    readonly tools: PlannerTools,
  ) {
    const { work } = tools.measurement;
    const { maxEvaluations, random, removeAttention, talk } = request;
    const isFixed = removeAttention !== undefined;
    this.#phases = new Phases(talk, 'planning', {
      'running the original': work.fit + work.search,
      'scoring the layers': isFixed ? 0 : tools.drafts.length * work.search * (SCORED_SHARE + RESCORED_SHARE) * 0.6,
      'searching plans': isFixed ? 0 : maxEvaluations * (1 - FITTED_SHARE) * work.search * 0.8,
      'fitting maps': (isFixed ? 1 : maxEvaluations * FITTED_SHARE) * (work.fit + work.search) * 0.8,
      'checking the choice': 3 * work.check,
      'random plans': random * (work.fit + work.search) * 0.8,
    });
  }

  async plan(): Promise<Planned> {
    const { measurement } = this.tools;
    await measurement.prepare((done, total) => this.#phases.at('running the original', done / total));
    const nothing = this.#triedOf([], NO_CHANGE, await measurement.unchanged(), 'none');
    const fixed = this.#fixed();
    if (fixed) await this.#fit(fixed);
    else await this.#search();
    const { best, ...choice } = await this.#choose(fixed !== null, nothing);
    const random = await this.#compare(best);
    this.#phases.done();
    return { ...choice, nothing: nothing.point, evaluated: this.#tried.map(({ point }) => point), random };
  }

  /** The moves that were asked for; null when they are searched. */
  #fixed(): PlanMove[] | null {
    const { removeAttention, options } = this.request;
    if (removeAttention === undefined) return null;
    const { drafts, costs } = this.tools;
    const actions = options.recover
      ? (['map attention', 'remove attention'] as const)
      : (['remove attention'] as const);
    const moves = removeAttention.map((layer) => {
      const move = findMove(drafts, layer, ...actions);
      if (move) return move;
      throw apiErrors.cannotRecover(layer, 'attention');
    });
    // Runs that save nothing are not fused; where fusing is asked for, all of them save something.
    const runs = options.fuse === 'never' ? [] : this.#runsAfter(removeAttention);
    return [...moves, ...runs.map((run) => fuseMove(run, costs)).filter(({ secondsSaved }) => secondsSaved > 0)];
  }

  async #search(): Promise<void> {
    const { maxEvaluations, options } = this.request;
    const moves = await this.#scored();
    const fittedCount = options.recover ? Math.max(1, Math.round(maxEvaluations * FITTED_SHARE)) : maxEvaluations;
    const search = async (start: readonly PlanMove[], most: number, phase: string, measure: Measure) => {
      let measured = 0;
      const { best } = await searchMoves({
        moves,
        start,
        objective: this.#objective(),
        maxEvaluations: most,
        following: (plan) => this.#runsOf(plan),
        measure: (plan) => {
          this.#phases.at(phase, measured++ / most, this.#bestSoFar());
          return measure(plan);
        },
      });
      return best?.moves ?? [];
    };
    // Maps that were fitted alone are at hand; the plans that are worth it get maps that were fitted together.
    const start = options.recover
      ? await search([], maxEvaluations - fittedCount, 'searching plans', (plan) => this.#together(plan))
      : [];
    await search(start, fittedCount, 'fitting maps', (plan) => this.#fit(plan));
  }

  /** All moves with their own KL: on a part of the text, and on all of it those that are in the race. */
  async #scored(): Promise<PlanMove[]> {
    const { measurement, progress, drafts } = this.tools;
    const batches = measurement.batchesOf(measurement.texts.search).length;
    const few = Math.max(1, Math.round(SCORED_SHARE * batches));
    const score = async (drafts: readonly DraftMove[], many: number, from: number, to: number): Promise<PlanMove[]> => {
      const moves: PlanMove[] = [];
      for (const [i, draft] of drafts.entries()) {
        this.#phases.at('scoring the layers', from + ((to - from) * i) / drafts.length);
        const name = `score ${draft.key} on ${many}`;
        const kl = await progress.once(name, async () => (await measurement.alone(draft, many)).kl);
        this.scores.set(draft.key, kl);
        moves.push({ ...draft, kl });
      }
      return moves;
    };
    const half = SCORED_SHARE / (SCORED_SHARE + RESCORED_SHARE);
    const moves = await score(drafts, few, 0, half);
    if (few === batches) return moves;
    const cheapest = [...moves].sort(byPrice).slice(0, Math.ceil(RESCORED_SHARE * moves.length));
    const again = new Map((await score(cheapest, batches, half, 1)).map((move) => [move.key, move]));
    return moves.map((move) => again.get(move.key) ?? move);
  }

  #objective(): Objective<Quality> {
    const { budget, objective } = this.request;
    if (objective.kind === 'fastest') {
      return { kind: 'fastest', isAllowed: (quality) => isWithin(quality, budget, SHARE) };
    }
    return { kind: 'best', secondsSaved: this.tools.originalSeconds * (1 - 1 / objective.speedup) };
  }

  /** The runs that can be fused beside these moves, and are worth it. */
  #runsOf(moves: readonly PlanMove[]): PlanMove[] {
    const { options } = this.request;
    if (options.fuse === 'never' || this.tools.costs.fusion(2) <= 0) return [];
    const gone = goneAttentions(moves, this.tools.measurement.model.pieces);
    const key = gone.join();
    let runs = this.#runs.get(key);
    if (!runs) {
      runs = this.#runsAfter(gone).map((run) => fuseMove(run, this.tools.costs));
      this.#runs.set(key, runs);
    }
    return runs;
  }

  #runsAfter(gone: readonly number[]): LayerChoice['runs'] {
    const { model, options } = this.request;
    return runsIfAny(model, gone, { keepLast: options.keepLast, lead: options.lead });
  }

  async #together(moves: readonly PlanMove[]): Promise<Quality> {
    const { measurement, progress } = this.tools;
    const { choice, quality } = await progress.once(`together ${planKey(moves)}`, async () => ({
      quality: await measurement.together(moves),
      choice: choiceOf(moves, measurement.model.pieces, await measurement.fitsApart(moves)),
    }));
    return this.#add(moves, choice, quality, 'alone');
  }

  async #fit(moves: readonly PlanMove[]): Promise<Quality> {
    const { measurement, progress } = this.tools;
    const key = planKey(moves);
    // Without a map there is nothing to fit together.
    const known = this.#tried.find(({ moves, point }) => point.maps !== 'alone' && planKey(moves) === key);
    if (known) return known.point.quality;
    const { choice, quality } = await progress.once(`fitted ${key}`, async () => {
      const found = await measurement.fitted(moves);
      return { choice: choiceOf(moves, measurement.model.pieces, found.fits), quality: found.quality };
    });
    return this.#add(moves, choice, quality, 'together');
  }

  #add(moves: readonly PlanMove[], choice: LayerChoice, quality: Quality, maps: SearchedPoint['maps']): Quality {
    this.#tried.push(this.#triedOf(moves, choice, quality, isMapped(choice) ? maps : 'none'));
    return quality;
  }

  #triedOf(moves: readonly PlanMove[], choice: LayerChoice, quality: Quality, maps: SearchedPoint['maps']): Tried {
    const { originalSeconds } = this.tools;
    const predictedSeconds = originalSeconds - secondsSavedBy(moves);
    const predictedSpeedup = originalSeconds / predictedSeconds;
    return { moves, quality, point: { ...choice, quality, predictedSeconds, predictedSpeedup, maps } };
  }

  #bestSoFar(): string {
    const [best] = this.#ranked();
    return best
      ? `so far ${best.point.predictedSpeedup.toPrecision(4)} times at KL ${best.point.quality.kl.toPrecision(3)}`
      : '';
  }

  /** The plans that meet the objective on the text that was searched on, the best first. */
  #ranked(): Tried[] {
    const objective = this.#objective();
    return this.#tried.filter((plan) => meets(plan, objective)).sort(byMerit(objective));
  }

  /** The first that is within the budget on text that nothing was fitted or chosen on, too; else none of them. */
  async #choose(
    isFixed: boolean,
    nothing: Tried,
  ): Promise<Omit<Planned, 'evaluated' | 'nothing' | 'random'> & { readonly best: Tried }> {
    const { measurement } = this.tools;
    const { budget } = this.request;
    const candidates = isFixed ? this.#tried : this.#ranked();
    const passedOver: (SearchedPoint & { readonly check: Quality })[] = [];
    for (const [i, best] of candidates.entries()) {
      this.#phases.at('checking the choice', i === 0 ? 0 : Math.min(0.9, 0.5 + i / 8));
      const fits = await measurement.finalFits(best.moves);
      const onBatch = (done: number, total: number): void => this.#phases.at('checking the choice', done / total / 2);
      const check = await measurement.checked(walkWith(best.moves, measurement.model.pieces, fits), onBatch);
      if (!isFixed && !isWithin(check, budget)) {
        passedOver.push({ ...best.point, check });
        continue;
      }
      const bare = walkOf(best.moves, measurement.model.pieces, () => 'remove');
      const removed = isMapped(best.point) ? await measurement.checked(bare) : null;
      const choice = choiceOf(best.moves, measurement.model.pieces, fits);
      const chosen = { ...best.point, ...choice, check };
      return { best, chosen, passedOver, removed, fits, perplexity: check.originalPerplexity };
    }
    const check = await measurement.checked(ORIGINAL);
    return {
      best: nothing,
      chosen: { ...nothing.point, check },
      passedOver,
      removed: null,
      fits: new Map(),
      perplexity: check.originalPerplexity,
    };
  }

  /** Plans of as many moves as the chosen one, drawn at random; null when none were asked for. */
  async #compare({ moves }: Tried): Promise<PlanFile['random']> {
    const { random } = this.request;
    const { drafts, measurement } = this.tools;
    const kinds = new Set(moves.map(({ key }) => key.replace(/ \d+$/, '')));
    const like = drafts.filter(({ key }) => kinds.has(key.replace(/ \d+$/, ''))).map((draft) => ({ ...draft, kl: 0 }));
    const size = moves.filter(({ run }) => run === null).length;
    if (random === 0 || size === 0) return null;
    const kl: number[] = [];
    for (const plan of randomChoices(like, size, random, planKey, planKey(moves))) {
      this.#phases.at('random plans', kl.length / random);
      kl.push((await measurement.fitted(plan)).quality.kl);
    }
    return { count: kl.length, kl };
  }
}

type Measure = (moves: readonly PlanMove[]) => Promise<Quality>;

function isMapped({ linearizeAttention, linearizeFfn }: LayerChoice): boolean {
  return linearizeAttention.length + linearizeFfn.length > 0;
}
