/** `onnx-fuse plan model.onnx -o plan.json --data calib.jsonl --max-kl 0.05` */

import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson, writeWhole } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { readLayers } from '../../api/fuse/layer-choice.js';
import { renderReport } from '../../api/plan/page/index.js';
import { makePlan } from '../../api/plan/plan.js';
import { PlanProgress } from '../../api/plan/resume.js';
import { errors } from '../../ir/index.js';
import { DEFAULT_RUN_OPTIONS, selectedLayers } from '../../passes/index.js';
import { renderPlan } from '../text/plan.js';
import { type Cli, type Runner, say, show } from './command.js';

export function planCommand(cli: Cli, run: Runner): void {
  cli.command(
    'plan <model>',
    'Choose the layers: measure plans on text, and take the fastest one within a budget',
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
          describe: 'Measure on this text or these token ids: .jsonl, .npy, or any text',
        })
        .option('tokenizer', {
          type: 'string',
          describe: 'Read text with this tokenizer.json [the one beside the model]',
        })
        .option('length', { type: 'number', describe: 'Cut the data into sequences of this many tokens [256]' })
        .option('max-tokens', { type: 'number', describe: 'Use at most this many tokens of the data [65536]' })
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
          describe: 'Do not search, but measure the removal of the attention of these layers',
        })
        .option('keep-last', {
          type: 'number',
          default: DEFAULT_RUN_OPTIONS.keepLast,
          describe: 'Leave this many FFNs at the end of each run as they are',
        })
        .option('lead', { type: 'boolean', default: false, describe: 'Also fuse the FFN just before each run' })
        .option('norm', {
          choices: ['fold', 'last'] as const,
          default: 'fold' as const,
          describe: 'Fold norms or use the last one, as in the main command',
        })
        .option('action', {
          choices: ['fuse', 'remove'] as const,
          default: 'fuse' as const,
          describe: 'Fuse the FFNs of each run, or remove them',
        })
        .option('device', {
          type: 'string',
          describe: 'Predict speed for this device: h100x8, or a JSON file [this machine, measured]',
        })
        .option('max-evaluations', { type: 'number', default: 100, describe: 'Measure at most this many plans' })
        .option('beam', { type: 'number', default: 3, describe: 'Keep this many states at each step of the search' })
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
        if (args.data === undefined) {
          const why =
            'there is no text to measure on; random tokens check the algebra, but say nothing about which layers matter';
          throw errors.usage('--data', why, 'give a .jsonl of token ids, or a text');
        }
        const budget = {
          maxKl: args['max-kl'] ?? null,
          maxPerplexityIncrease: args['max-ppl-increase'] ?? null,
          minTop1: args['min-top1'] ?? null,
        };
        const fixed = args['remove-attention'];
        if (fixed === undefined && Object.values(budget).every((limit) => limit === null)) {
          throw errors.usage(
            '--max-kl',
            'there is no budget, and without one everything may go',
            'give --max-kl 0.05, say',
          );
        }
        const output = args.output ?? 'plan.json';
        const progressFile = `${output}.progress`;
        const used = [args.model, args.data, args.tokenizer];
        for (const target of [output, progressFile]) checkTarget(target, used);
        checkTarget(args.report, used, [output]);
        const plan = await makePlan({
          model: modelFile(args.model),
          data: args.data,
          tokenizer: args.tokenizer,
          length: args.length,
          maxTokens: args['max-tokens'],
          budget,
          options: { norm: args.norm, keepLast: args['keep-last'], lead: args.lead, action: args.action },
          device: args.device,
          maxEvaluations: args['max-evaluations'],
          beam: args.beam,
          random: args.random,
          ablate: args.ablate,
          removeAttention:
            fixed === undefined ? undefined : selectedLayers(readLayers('attention', fixed, '--remove-attention')),
          progressFile,
          talk: args.quiet ? silent : stderrTalk(),
        });
        await writeJson(output, plan, 1);
        if (args.report !== undefined) await writeWhole(args.report, renderReport(plan));
        new PlanProgress(progressFile, {}).remove();
        show(plan, (shown) => renderPlan(shown, output), args.json);
        if (args.report !== undefined && !args.json) say(`drawn in ${args.report}`);
        return 0;
      }),
  );
}
