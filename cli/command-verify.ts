/** `onnx-fuse verify a.onnx b.onnx` */
import { openModel } from '../ir/index.js';
import { verifyPair } from '../runtime/index.js';
import { type Cli, type Runner, say } from './command.js';
import { renderComparison } from './render.js';
import { silent, stderrTalk } from './talk.js';

export function verifyCommand(cli: Cli, run: Runner): void {
  cli.command(
    'verify <a> <b>',
    'Run both models with onnxruntime on the same inputs and compare',
    (command) =>
      command
        .positional('a', { type: 'string', demandOption: true, describe: 'The reference' })
        .positional('b', { type: 'string', demandOption: true, describe: 'The model to judge' })
        .option('tolerance', { type: 'number', describe: 'Exit 1 when the relative error is larger' })
        .option('json', { type: 'boolean', default: false, describe: 'As JSON' })
        .option('quiet', { type: 'boolean', default: false, describe: 'Print nothing but the result' }),
    (args) =>
      run(async () => {
        const talk = args.quiet ? silent : stderrTalk();
        const comparison = await verifyPair(
          { location: args.a, model: openModel(args.a) },
          { location: args.b, model: openModel(args.b) },
          { onRun: (done, total) => talk.progress('running', done, total) },
        );
        talk.done();
        say(args.json ? JSON.stringify(comparison, null, 2) : renderComparison(comparison));
        return args.tolerance !== undefined && !(comparison.worst.relative <= args.tolerance) ? 1 : 0;
      }),
  );
}
