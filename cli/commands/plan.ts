/** `onnx-fuse plan model.onnx -o plan.json --data calib.jsonl --max-kl 0.05` */

import { apiErrors } from '../../api/basics/errors.js';
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson, writeWhole } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { readLayers } from '../../api/fuse/layer-choice.js';
import { renderReport } from '../../api/plan/page/index.js';
import { makePlan } from '../../api/plan/plan.js';
import type { PlanFile } from '../../api/plan/plan-file.js';
import { PlanProgress } from '../../api/plan/resume.js';
import { checkBudget } from '../../api/verify/on-text.js';
import { errors } from '../../ir/index.js';
import { DEFAULT_RUN_OPTIONS, selectedLayers } from '../../passes/index.js';
import { renderPlan } from '../text/plan.js';
import { type Cli, type Runner, say, show } from './command.js';
import { SPEED_OPTIONS } from './providers.js';

export function planCommand(cli: Cli, run: Runner): void {
  cli.command(
    'plan <model>',
    'Choose what becomes of each layer: measure plans on text, take the fastest within a budget or the best at a speed',
    (command) =>
      command
        .positional('model', {
          type: 'string',
          demandOption: true,
          describe: 'The model (.onnx), or a folder with one',
        })
        .option('output', {
          alias: 'o',
          type: 'string',
          requiresArg: true,
          describe: 'Write the plan to this file [plan.json]',
        })
        .option('report', {
          type: 'string',
          requiresArg: true,
          describe: 'Also draw the plan and its evidence on this HTML page',
        })
        .option('data', {
          type: 'string',
          requiresArg: true,
          describe:
            'Fit and measure on this text or these token ids: .jsonl, .npy, or any text; may be given again [the model writes its own]',
        })
        .option('held-out', {
          type: 'string',
          requiresArg: true,
          describe: 'Check the choice on this text instead of the end of --data',
        })
        .option('tokenizer', {
          type: 'string',
          describe: 'Read text with this tokenizer.json [the one beside the model]',
        })
        .option('length', { type: 'number', describe: 'Cut the data into sequences of this many tokens [256]' })
        .option('max-tokens', {
          type: 'number',
          describe: 'Use at most this many tokens of the data, and of the held-out text [65536]',
        })
        .option('temperature', { type: 'number', describe: 'Temperature of text that the model writes itself [0.9]' })
        .option('seed', { type: 'number', describe: 'Seed of text that the model writes itself [1]' })
        .option('max-kl', {
          type: 'number',
          describe: 'Allow at most this KL(original || changed), in nats per token on average',
        })
        .option('max-ppl-increase', {
          type: 'number',
          describe: 'Allow perplexity to grow by at most this share: 0.05 is 5 %',
        })
        .option('min-top1', {
          type: 'number',
          describe: "Keep the original's top token at this share of positions at least",
        })
        .option('remove-attention', {
          type: 'string',
          describe: 'Do not search, but measure the plan in which the attention of these layers goes',
        })
        .option('target-speedup', {
          type: 'number',
          describe: 'Look for the best plan that is predicted to be this many times as fast, instead of the fastest',
        })
        .option('recover', {
          type: 'boolean',
          default: true,
          describe: 'Let linear maps stand where branches were; --no-recover only removes',
        })
        .option('fuse', {
          choices: ['auto', 'always', 'never'] as const,
          default: 'auto' as const,
          describe: 'Fuse FFNs where the device gains by it, wherever they become consecutive, or never',
        })
        .option('keep-last', {
          type: 'number',
          default: DEFAULT_RUN_OPTIONS.keepLast,
          describe: 'Leave this many FFNs at the end of each run as they are',
        })
        .option('lead', { type: 'boolean', default: false, describe: 'Also fuse the FFN just before each run' })
        .option('scores', {
          choices: ['needed', 'all'] as const,
          default: 'needed' as const,
          describe: 'Measure what the search needs, or also how blocks depend on each other (for the page)',
        })
        .option('device', {
          type: 'string',
          describe: 'Predict speed for this device: h100x8, or a JSON file [this machine, measured]',
        })
        .option('max-evaluations', { type: 'number', default: 40, describe: 'Measure at most this many plans' })
        .options(SPEED_OPTIONS)
        .option('batch', { type: 'number', describe: 'Measure the speed of this many sequences together [1]' })
        .option('provider', {
          choices: ['cpu', 'cuda', 'webgpu'] as const,
          default: 'cpu' as const,
          describe: 'Run on this provider',
        })
        .option('measure', {
          type: 'boolean',
          default: false,
          describe: 'Also measure the speed of the chosen plan, beside the original',
        })
        .option('threads', { type: 'number', describe: 'Run with this many threads [as onnxruntime chooses]' })
        .option('random', {
          type: 'number',
          default: 0,
          describe: 'Also measure this many random plans of the same size, for comparison',
        })
        .option('ablate', {
          type: 'boolean',
          default: false,
          describe: 'Also measure the plan in the ways of the paper',
        })
        .option('json', { type: 'boolean', default: false, describe: 'Print the plan as JSON' })
        .option('quiet', { type: 'boolean', default: false, describe: 'Print nothing but the result' }),
    (args) =>
      run(async () => {
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
          options: { recover: args.recover, fuse: args.fuse, keepLast: args['keep-last'], lead: args.lead },
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
        show(plan, (shown) => renderPlan(shown, output), args.json);
        if (args.report !== undefined && !args.json) say(`drawn in ${args.report}`);
        checkPlan(plan);
        return 0;
      }),
  );
}

/** A plan that was asked for and does not keep to its budget, or to the speed that was asked for, is a failure. */
function checkPlan({ budget, objective, chosen, evaluated }: PlanFile): void {
  if (objective.kind === 'best' && chosen.predictedSpeedup < objective.speedup - 1e-9) {
    throw apiErrors.tooSlow(objective.speedup, Math.max(1, ...evaluated.map((point) => point.predictedSpeedup)));
  }
  const { maxKl, maxPerplexityIncrease: maxPplIncrease, minTop1 } = budget;
  checkBudget({ quality: chosen.check }, { maxKl, maxPplIncrease, minTop1 });
}
