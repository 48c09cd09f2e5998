/** `onnx-fuse verify a.onnx b.onnx` */
import { openModel } from '../ir/index.js';
import { verifyPair } from '../runtime/index.js';
import { type Cli, type Runner, say } from './command.js';
import { renderComparison } from './render.js';
import { silent, stderrTalk } from './talk.js';
import { checkBudget, qualityOnData, renderQuality } from './verify-data.js';

const ALGEBRA_ONLY = 'random tokens only check the algebra; --data measures quality on text';

export function verifyCommand(cli: Cli, run: Runner): void {
  cli.command(
    'verify <a> <b>',
    'Run both models with onnxruntime on the same inputs and compare',
    (command) =>
      command
        .positional('a', { type: 'string', demandOption: true, describe: 'The reference' })
        .positional('b', { type: 'string', demandOption: true, describe: 'The model to judge' })
        .option('tolerance', { type: 'number', describe: 'Exit 1 when the relative error is larger' })
        .option('data', { type: 'string', describe: 'Also measure on this text: .jsonl or .npy of token ids, or text' })
        .option('length', { type: 'number', describe: 'Tokens of a sequence of --data [256]' })
        .option('max-tokens', { type: 'number', describe: 'Tokens of --data to read [65536]' })
        .option('tokenizer', { type: 'string', describe: 'The tokenizer.json for text [beside <a>]' })
        .option('max-kl', { type: 'number', implies: 'data', describe: 'Exit 1 when the mean KL on --data is larger' })
        .option('max-ppl-increase', {
          type: 'number',
          implies: 'data',
          describe: 'Exit 1 when perplexity grows by a larger share',
        })
        .option('min-top1', { type: 'number', implies: 'data', describe: 'Exit 1 when fewer top-1 tokens agree' })
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
        const { data, length, tokenizer } = args;
        const maxTokens = args['max-tokens'];
        const budget = { maxKl: args['max-kl'], maxPplIncrease: args['max-ppl-increase'], minTop1: args['min-top1'] };
        const request = {
          ...(length === undefined ? {} : { length }),
          ...(maxTokens === undefined ? {} : { maxTokens }),
          ...(tokenizer === undefined ? {} : { tokenizer }),
        };
        const text = data === undefined ? null : await qualityOnData(args.a, args.b, { data, ...request }, talk);
        talk.done();
        say(
          args.json
            ? JSON.stringify(text ? { ...comparison, text } : comparison, null, 2)
            : `${renderComparison(comparison)}\n${text ? renderQuality(text) : ALGEBRA_ONLY}`,
        );
        if (text) checkBudget(text, budget);
        return args.tolerance !== undefined && !(comparison.worst.relative <= args.tolerance) ? 1 : 0;
      }),
  );
}
