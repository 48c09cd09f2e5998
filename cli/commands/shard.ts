/** `onnx-fuse shard in.onnx out/ --tp 8` */
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { annotate, shard } from '../../api/commands/shard.js';
import { errors } from '../../ir/index.js';
import type { shardSpec } from '../options/shard.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderReport } from '../text/render.js';
import { renderShards } from '../text/shards.js';
import type { Outcome } from './results.js';

export async function shardCommand(args: ArgumentsOf<typeof shardSpec>): Promise<Outcome> {
  const { input, output, tp: ranks, collectives: style, uneven, verify, force, device, report } = args;
  if (ranks === undefined) throw errors.usage('--tp', 'the number of ranks is not given', 'give --tp 8, say');
  const common = { input, output, ranks, verify, force, report, talk: args.quiet ? silent : stderrTalk() };
  if (style === 'annotate') {
    for (const name of ['tp-plan', 'lm-head', 'device'] as const) {
      if (args[name] !== undefined)
        throw errors.usage(`--${name}`, 'it says how to cut, and annotating cuts nothing', 'leave it out');
    }
    return { kind: 'annotation', result: await annotate(common), render: renderReport };
  }
  const refuse = uneven === 'replicate';
  const result = await shard({ ...common, style, refuse, lmHead: args['lm-head'], tpPlan: args['tp-plan'], device });
  return { kind: 'ranks', result, render: (shown) => renderShards(shown, output) };
}
