/** `plan`: what becomes of each layer, chosen by measurement, and written with its evidence. */
import { errors } from '../../ir/index.js';
import { DEFAULT_RUN_OPTIONS } from '../../passes/index.js';
import { type Budget, isWithin, type MapBits, type Provider, type SpeedGoal } from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { checkOptions } from '../basics/options.js';
import { silent, type Talk } from '../basics/progress.js';
import { writeJson, writeWhole } from '../basics/small-file.js';
import { checkTarget } from '../basics/targets.js';
import { modelFile } from '../folder/model-folder.js';
import { checkedForm } from '../plan/map-form.js';
import type { ServingRuntime } from '../plan/measured-speed.js';
import type { ApplyingCommand } from '../plan/page/index.js';
import { makePlan } from '../plan/plan.js';
import type { PlanFile } from '../plan/plan-file.js';
import { PlanProgress } from '../plan/resume.js';
import { checkBudget, checkLimits } from '../verify/on-text.js';

/** What a plan is made for, and how. There must be a limit, a speed to reach, or a list of attentions. */
export interface PlanningRequest {
  /** The model: an .onnx file, or a folder with one. */
  readonly model: string;
  /** Where the plan is written; its maps are written beside it. `plan.json` by default. */
  readonly output?: string | undefined;
  /** An HTML page on which the plan and its evidence are also drawn; none by default. */
  readonly report?: string | undefined;
  /** The command line that applies the plan, which that page shows to be copied; none by default. */
  readonly command?: ApplyingCommand | undefined;
  /** Text or token ids (.jsonl, .npy) to fit and measure on; the model writes its own by default. */
  readonly data?: readonly string[] | undefined;
  /** Text that the choice is checked on; the end of `data` by default. */
  readonly heldOut?: string | undefined;
  /** A tokenizer.json to read text with; the one beside the model by default. */
  readonly tokenizer?: string | undefined;
  /** Tokens of a sequence that text is cut into; 256 by default. */
  readonly length?: number | undefined;
  /** Tokens that are used of the data, and of the text held out, at most; 65536 by default. */
  readonly maxTokens?: number | undefined;
  /** Temperature of text that the model writes itself; 0.9 by default. */
  readonly temperature?: number | undefined;
  /** Seed of text that the model writes itself; 1 by default. */
  readonly seed?: number | undefined;
  /** Largest KL(original || changed), in nats per token on average; no limit by default. */
  readonly maxKl?: number | undefined;
  /** Largest share by which perplexity may grow: 0.05 is 5 %; no limit by default. */
  readonly maxPplIncrease?: number | undefined;
  /** Smallest share of positions at which the original's top token is kept, from 0 to 1; no limit by default. */
  readonly minTop1?: number | undefined;
  /** Layers whose attention goes, without any search; by default plans are searched. */
  readonly removeAttention?: readonly number[] | undefined;
  /** Look for the best plan that is predicted to be this many times as fast; the fastest within the limits by default. */
  readonly targetSpeedup?: number | undefined;
  /** What is to be fast, and what a speed to reach is of; `both`, the default: tokens, and what is fused makes prompts no slower. */
  readonly optimizeFor?: SpeedGoal | undefined;
  /** Let linear maps stand where branches were; true by default. */
  readonly recover?: boolean | undefined;
  /** Bits of the blocks that maps are stored in; null, the default, is the type of the activations. */
  readonly quantizeMaps?: MapBits | null | undefined;
  /** Rank of maps, which are two matrices then, less than half the width of the stream; null, the default, is one matrix. */
  readonly mapRank?: number | null | undefined;
  /** Fuse FFNs where the device gains by it (`auto`, the default), wherever they become consecutive, or never. */
  readonly fuse?: 'auto' | 'always' | 'never' | undefined;
  /** FFNs at the end of each run that are left as they are; 1 by default. */
  readonly keepLast?: number | undefined;
  /** Also fuse the FFN just before each run; false by default. */
  readonly lead?: boolean | undefined;
  /** Measure what the search needs (the default), or also how blocks depend on each other. */
  readonly scores?: 'needed' | 'all' | undefined;
  /** The device that speed is predicted for: a name as h100x8, or a JSON file; this machine, measured, by default. */
  readonly device?: string | undefined;
  /** Plans that are measured at most; 40 by default. */
  readonly maxEvaluations?: number | undefined;
  /** What times tokens; `genai` where ONNX_FUSE_PYTHON or python3 has it, else `node`, by default. */
  readonly runtime?: ServingRuntime | undefined;
  /** Tokens that a timed token stands behind; 2048 by default. */
  readonly context?: number | undefined;
  /** Sequences that are timed together; 1 by default. */
  readonly batch?: number | undefined;
  /** Where models run; `cpu` by default. */
  readonly provider?: Provider | undefined;
  /** Threads that models run with; as onnxruntime chooses by default. */
  readonly threads?: number | undefined;
  /** Also measure the speed of the chosen plan, beside the original; false by default. */
  readonly measure?: boolean | undefined;
  /** Random plans of the same size that are also measured, for comparison; 0 by default. */
  readonly random?: number | undefined;
  /** Also measure the plan in the ways of the paper; false by default. */
  readonly ablate?: boolean | undefined;
  /** Where notes and progress go; nowhere by default. */
  readonly talk?: Talk | undefined;
}

const EVALUATIONS = 40;

/**
 * Chooses what becomes of each layer, by measuring plans on text, and writes plan.json with the evidence and, beside it, the
 * file of its maps: what `onnx-fuse plan` does. An interrupted run goes on where it was when it is repeated. A plan that does
 * not keep to what was asked for is returned like any other: `checkPlan` tells.
 *
 * @throws Diagnostic OF_TOKEN_DATA, OF_USAGE, OF_OUTPUT_IS_INPUT, OF_WRITE, and those of reading and of the runtime
 */
export async function plan(request: PlanningRequest): Promise<PlanFile> {
  checkOptions('PlanningRequest', request);
  const { model, output = 'plan.json', report, data = [], heldOut, tokenizer, length, maxTokens } = request;
  const { removeAttention, targetSpeedup: speedup, provider, threads, talk = silent } = request;
  const { runtime, context, batch, temperature, seed, device } = request;
  const { maxKl = null, maxPplIncrease: maxPerplexityIncrease = null, minTop1 = null } = request;
  const budget = { maxKl, maxPerplexityIncrease, minTop1 };
  checkLimits(request);
  if (speedup !== undefined && !(speedup > 1 && Number.isFinite(speedup))) {
    throw errors.usage('option target-speedup', `it is ${speedup}, expected more than 1`, 'try 1.25');
  }
  if (removeAttention === undefined && speedup === undefined && !isLimited(budget)) {
    const why = 'there is neither a budget nor a speed to reach, and without one everything may go';
    throw errors.usage(
      'option max-kl',
      why,
      'give a limit (option max-kl), 0.05 say, or a speed (option target-speedup)',
    );
  }
  const { recover = true, quantizeMaps = null, mapRank = null } = request;
  const form = checkedForm({ quantizeMaps, mapRank });
  if (!recover && mapRank !== null)
    throw errors.usage('option map-rank', 'it has no effect where no maps are fitted', 'leave it out');
  const progressFile = `${output}.progress`;
  const fitFile = `${output.replace(/\.json$/, '')}.onnx-fuse-fit`;
  const used = [model, ...data, heldOut, tokenizer];
  for (const target of [output, fitFile, progressFile]) checkTarget(target, used);
  checkTarget(report, used, [output]);
  const session = { provider: provider ?? 'cpu', threads };
  const made = await makePlan({
    model: modelFile(model),
    data,
    own: { ...session, temperature, seed, talk },
    ...{ heldOut, tokenizer, length, maxTokens, budget },
    objective: speedup === undefined ? { kind: 'fastest' } : { kind: 'best', speedup },
    options: {
      recover,
      ...form,
      optimizeFor: request.optimizeFor ?? 'both',
      fuse: request.fuse ?? 'auto',
      keepLast: request.keepLast ?? DEFAULT_RUN_OPTIONS.keepLast,
      lead: request.lead ?? false,
    },
    device,
    speed: { ...session, context, batch, runtime, talk },
    measure: request.measure ?? false,
    session,
    maxEvaluations: request.maxEvaluations ?? EVALUATIONS,
    random: request.random ?? 0,
    ablate: request.ablate ?? false,
    detailed: request.scores === 'all',
    ...{ removeAttention, fitFile, progressFile, talk },
  });
  await writeJson(output, made, 1);
  if (report !== undefined) {
    const { renderReport } = await import('../plan/page/index.js');
    await writeWhole(report, renderReport(made, {}, request.command));
  }
  new PlanProgress(progressFile, {}).remove();
  return made;
}

/**
 * Holds a plan to the limits and to the speed that it was made for.
 *
 * @throws Diagnostic OF_TOO_SLOW, OF_QUALITY for the first that it does not keep
 */
export function checkPlan(plan: PlanFile): void {
  const { budget, objective, chosen, evaluated } = plan;
  if (objective.kind === 'best' && chosen.predictedSpeedup < objective.speedup - 1e-9) {
    const within = evaluated.filter(({ quality }) => isWithin(quality, budget));
    const fastest = Math.max(1, ...within.map((point) => point.predictedSpeedup));
    throw apiErrors.tooSlow(objective.speedup, fastest, isLimited(budget));
  }
  const { maxKl, maxPerplexityIncrease: maxPplIncrease, minTop1 } = budget;
  checkBudget({ quality: chosen.check }, { maxKl, maxPplIncrease, minTop1 });
}

function isLimited(budget: Budget): boolean {
  return Object.values(budget).some((limit) => limit !== null);
}
