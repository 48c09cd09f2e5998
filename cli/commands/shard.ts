/** `onnx-fuse shard in.onnx out/ --tp 8` */
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { fuse } from '../../api/fuse/fuse.js';
import { shard } from '../../api/shard/shard.js';
import { readTpPlan } from '../../api/shard/tp-plan.js';
import { errors } from '../../ir/index.js';
import type { shardSpec } from '../options/shard.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderReport } from '../text/render.js';
import { renderShards } from '../text/shards.js';
import { give } from './command.js';

export async function shardCommand(args: ArgumentsOf<typeof shardSpec>): Promise<number> {
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
    return give({ kind: 'annotation', result: done, render: renderReport }, args.json);
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
  return give({ kind: 'ranks', result: report, render: (shown) => renderShards(shown, args.output) }, args.json);
}
