/** `onnx-fuse plan model.onnx -o plan.json --data calib.jsonl --max-kl 0.05` */
import { apiErrors } from '../../api/basics/errors.js';
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson, writeWhole } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { isFolder } from '../../api/folder/inside.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { readLayers } from '../../api/fuse/layer-choice.js';
import { renderReport } from '../../api/plan/page/index.js';
import { makePlan } from '../../api/plan/plan.js';
import type { PlanFile } from '../../api/plan/plan-file.js';
import { PlanProgress } from '../../api/plan/resume.js';
import { mapBitsOf } from '../../api/settings/flag-values.js';
import { checkBudget } from '../../api/verify/on-text.js';
import { errors } from '../../ir/index.js';
import { selectedLayers } from '../../passes/index.js';
import type { planSpec } from '../options/plan.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderPlan } from '../text/plan.js';
import { failureIn, give } from './command.js';

export async function planCommand(args: ArgumentsOf<typeof planSpec>): Promise<number> {
  const data = [args.data ?? []].flat();
  const budget = {
    maxKl: args['max-kl'] ?? null,
    maxPerplexityIncrease: args['max-ppl-increase'] ?? null,
    minTop1: args['min-top1'] ?? null,
  };
  const fixed = args['remove-attention'];
  const speedup = args['target-speedup'];
  if (speedup !== undefined && !(speedup > 1 && Number.isFinite(speedup))) {
    throw errors.usage('--target-speedup', `it is ${speedup}, expected more than 1`, 'try 1.25');
  }
  const hasBudget = Object.values(budget).some((limit) => limit !== null);
  if (fixed === undefined && speedup === undefined && !hasBudget) {
    const why = 'there is neither a budget nor a speed to reach, and without one everything may go';
    throw errors.usage('--max-kl', why, 'give --max-kl 0.05, say, or --target-speedup 1.25');
  }
  const output = args.output ?? 'plan.json';
  const progressFile = `${output}.progress`;
  const talk = args.quiet ? silent : stderrTalk();
  const session = { provider: args.provider, threads: args.threads };
  const fitFile = `${output.replace(/\.json$/, '')}.onnx-fuse-fit`;
  const used = [args.model, ...data, args['held-out'], args.tokenizer];
  for (const target of [output, fitFile, progressFile]) checkTarget(target, used);
  checkTarget(args.report, used, [output]);
  const plan = await makePlan({
    model: modelFile(args.model),
    data,
    own: { ...session, temperature: args.temperature, seed: args.seed, talk },
    heldOut: args['held-out'],
    tokenizer: args.tokenizer,
    length: args.length,
    maxTokens: args['max-tokens'],
    budget,
    objective: speedup === undefined ? { kind: 'fastest' } : { kind: 'best', speedup },
    options: {
      recover: args.recover,
      quantizeMaps: mapBitsOf(args['quantize-maps']),
      fuse: args.fuse,
      keepLast: args['keep-last'],
      lead: args.lead,
    },
    device: args.device,
    speed: { ...session, context: args.context, batch: args.batch, runtime: args.runtime, talk },
    measure: args.measure,
    session,
    maxEvaluations: args['max-evaluations'],
    random: args.random,
    ablate: args.ablate,
    detailed: args.scores === 'all',
    removeAttention:
      fixed === undefined ? undefined : selectedLayers(readLayers('attention', fixed, '--remove-attention')),
    fitFile,
    progressFile,
    talk,
  });
  await writeJson(output, plan, 1);
  if (args.report !== undefined) await writeWhole(args.report, renderReport(plan));
  new PlanProgress(progressFile, {}).remove();
  const files = isFolder(args.model) ? `${args.model} out` : undefined;
  const drawn = args.report === undefined ? '' : `\ndrawn in ${args.report}`;
  const render = (shown: PlanFile): string => renderPlan(shown, output, files) + drawn;
  return give({ kind: 'plan', result: plan, render, failure: failureIn(() => checkPlan(plan)) }, args.json);
}

/** A plan that was asked for and does not keep to its budget, or to the speed that was asked for, is a failure. */
function checkPlan({ budget, objective, chosen, evaluated }: PlanFile): void {
  if (objective.kind === 'best' && chosen.predictedSpeedup < objective.speedup - 1e-9) {
    throw apiErrors.tooSlow(objective.speedup, Math.max(1, ...evaluated.map((point) => point.predictedSpeedup)));
  }
  const { maxKl, maxPerplexityIncrease: maxPplIncrease, minTop1 } = budget;
  checkBudget({ quality: chosen.check }, { maxKl, maxPplIncrease, minTop1 });
}
