/** `onnx-fuse shard in.onnx out/ --tp 8` */

import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { fuse } from '../../api/fuse/fuse.js';
import { shard } from '../../api/shard/shard.js';
import { readTpPlan } from '../../api/shard/tp-plan.js';
import { errors } from '../../ir/index.js';
import { COLLECTIVES } from '../../passes/index.js';
import { renderReport } from '../text/render.js';
import { renderShards } from '../text/shards.js';
import { type Cli, type Runner, show } from './command.js';

export function shardCommand(cli: Cli, run: Runner): void {
  cli.command(
    'shard <input> <output>',
    'Cut a model over the GPUs of a tensor-parallel group: one file for each rank',
    (command) =>
      command
        .positional('input', {
          type: 'string',
          demandOption: true,
          describe: 'The model (.onnx), or a folder with one',
        })
        .positional('output', {
          type: 'string',
          demandOption: true,
          describe: 'The folder for rank_0_model.onnx and so on; with --collectives annotate a file',
        })
        .option('tp', { type: 'number', requiresArg: true, describe: 'Cut the model over this many ranks: 2, 4, 8' })
        .option('collectives', {
          choices: [...COLLECTIVES, 'annotate'] as const,
          default: 'ort' as const,
          describe:
            'Write collectives for onnxruntime with NCCL, for TensorRT, or none (graph outputs and inputs instead); or annotate one file that is not cut',
        })
        .option('lm-head', {
          choices: ['gather', 'replicate'] as const,
          describe:
            'Cut the projection to the vocabulary and gather the logits, or leave it whole on every rank [gather]',
        })
        .option('uneven', {
          choices: ['pad', 'replicate'] as const,
          default: 'pad' as const,
          describe: 'Fill up FFNs whose width does not divide with zeros, which is exact, or leave them whole',
        })
        .option('tp-plan', {
          type: 'string',
          requiresArg: true,
          describe: "Read from this JSON file which projections are cut, in Hugging Face's words (see README)",
        })
        .option('device', {
          type: 'string',
          requiresArg: true,
          describe: 'Predict the time of a token on this device: h100x8, or a JSON file',
        })
        .option('verify', { type: 'boolean', default: true, describe: 'Run the ranks together on the CPU first' })
        .option('force', { type: 'boolean', default: false, describe: 'Write the ranks even when the check fails' })
        .option('report', { type: 'string', requiresArg: true, describe: 'Write a report as JSON to this file' })
        .option('json', { type: 'boolean', default: false, describe: 'Print the report as JSON' })
        .option('quiet', { type: 'boolean', default: false, describe: 'Print nothing but the result' }),
    (args) =>
      run(async () => {
        const { tp, uneven, verify, force, device } = args;
        if (tp === undefined) throw errors.usage('--tp', 'the number of ranks is not given', 'give --tp 8, say');
        if (!Number.isSafeInteger(tp) || tp < 2)
          throw errors.usage('--tp', `it is ${tp}, expected 2 or more`, 'give --tp 8, say');
        checkTarget(args.report, [args.input, args['tp-plan']], [args.output]);
        const { collectives } = args;
        const talk = args.quiet ? silent : stderrTalk();
        if (collectives === 'annotate') {
          for (const name of ['tp-plan', 'lm-head', 'device'] as const) {
            if (args[name] !== undefined)
              throw errors.usage(`--${name}`, 'it says how to cut, and annotating cuts nothing', 'leave it out');
          }
          const pipeline = `inline-functions,annotate-tensor-parallel{ranks=${tp}}`;
          const done = await fuse({ input: modelFile(args.input), output: args.output, pipeline, verify, force, talk });
          if (args.report !== undefined) await writeJson(args.report, done);
          show(done, renderReport, args.json);
          return 0;
        }
        const plan = args['tp-plan'] === undefined ? null : readTpPlan(args['tp-plan']);
        if (plan?.lmHead !== undefined && args['lm-head'] !== undefined && plan.lmHead !== args['lm-head']) {
          throw errors.usage('--lm-head', `the plan says ${plan.lmHead} already`, 'keep one of them');
        }
        const report = await shard({
          input: args.input,
          output: args.output,
          ranks: tp,
          style: collectives,
          lmHead: args['lm-head'] ?? plan?.lmHead ?? 'gather',
          refuse: uneven === 'replicate',
          replicateAttention: plan?.replicateAttention,
          replicateFfn: plan?.replicateFfn,
          device,
          verify,
          force,
          talk,
        });
        if (args.report !== undefined) await writeJson(args.report, report);
        show(report, (shown) => renderShards(shown, args.output), args.json);
        return 0;
      }),
  );
}
