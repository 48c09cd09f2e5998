/** `onnx-fuse plan model.onnx -o plan.json --data calib.jsonl --max-kl 0.05` */
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { checkPlan, plan } from '../../api/commands/plan.js';
import { isFolder } from '../../api/folder/inside.js';
import { readLayers } from '../../api/fuse/layer-choice.js';
import type { PlanFile } from '../../api/plan/plan-file.js';
import { mapBitsOf } from '../../api/settings/flag-values.js';
import { visible } from '../../ir/index.js';
import { selectedLayers } from '../../passes/index.js';
import type { planSpec } from '../options/plan.js';
import type { ArgumentsOf } from '../options/spec.js';
import { applyingCommand, sharedPath } from '../text/command-line.js';
import { renderPlan } from '../text/plan.js';
import { failureIn } from './command.js';
import type { Outcome } from './results.js';

export async function planCommand(args: ArgumentsOf<typeof planSpec>): Promise<Outcome> {
  const { model, output, data, tokenizer, length, temperature, seed, recover, fuse, lead, scores, device } = args;
  const { runtime, context, batch, provider, threads, measure, random, ablate, report } = args;
  const fixed = args['remove-attention'];
  const applying = (nameOf: (path: string) => string): string =>
    applyingCommand(nameOf(model), nameOf(output), isFolder(model));
  const made = await plan({
    ...{
      model,
      output,
      report,
      command: () => applying(sharedPath),
      data,
      tokenizer,
      length,
      temperature,
      seed,
      recover,
      fuse,
      lead,
      scores,
      device,
    },
    ...{ runtime, context, batch, provider, threads, measure, random, ablate },
    heldOut: args['held-out'],
    maxTokens: args['max-tokens'],
    maxKl: args['max-kl'],
    maxPplIncrease: args['max-ppl-increase'],
    minTop1: args['min-top1'],
    removeAttention:
      fixed === undefined ? undefined : selectedLayers(readLayers('attention', fixed, '--remove-attention')),
    targetSpeedup: args['target-speedup'],
    optimizeFor: args['optimize-for'],
    quantizeMaps: mapBitsOf(args['quantize-maps']),
    mapRank: args['map-rank'],
    keepLast: args['keep-last'],
    maxEvaluations: args['max-evaluations'],
    talk: args.quiet ? silent : stderrTalk(),
  });
  const drawn = report === undefined ? '' : `\ndrawn in ${report}`;
  const render = (shown: PlanFile): string => renderPlan(shown, output, applying(visible)) + drawn;
  return { kind: 'plan', result: made, render, failure: failureIn(() => checkPlan(made)) };
}
