/** `onnx-fuse verify a.onnx b.onnx` */

import { silent, stderrTalk } from '../../api/basics/progress.js';
import { withHead } from '../../api/fuse/evidence.js';
import { renderContinuations } from '../../api/verify/continuations.js';
import { checkBudget, checkDecode, renderQuality } from '../../api/verify/on-text.js';
import { comparedFiles, type Verification, verifyFiles } from '../../api/verify/verify.js';
import { renderComparison, renderPlacement } from '../text/render.js';
import { type Cli, type Runner, show } from './command.js';
import { PROVIDER_OPTIONS } from './providers.js';

const ALGEBRA_ONLY = 'random tokens only check the algebra; --data measures quality on text';

export function verifyCommand(cli: Cli, run: Runner): void {
  cli.command(
    'verify <a> <b>',
    'Run both models with onnxruntime on the same inputs and compare',
    (command) =>
      command
        .positional('a', {
          type: 'string',
          demandOption: true,
          describe: 'The reference (.onnx), or a folder with one',
        })
        .positional('b', {
          type: 'string',
          demandOption: true,
          describe: 'The model to judge, likewise, or a folder of onnx-fuse shard',
        })
        .option('tolerance', { type: 'number', describe: 'Exit with 1 when the relative error is larger than this' })
        .option('data', { type: 'string', describe: 'Also measure on this text: .jsonl or .npy of token ids, or text' })
        .option('length', { type: 'number', describe: 'Cut --data into sequences of this many tokens [256]' })
        .option('max-tokens', { type: 'number', describe: 'Read at most this many tokens of --data [65536]' })
        .option('tokenizer', { type: 'string', describe: 'Read text with this tokenizer.json [the one beside <a>]' })
        .option('max-kl', {
          type: 'number',
          implies: 'data',
          describe: 'Exit with 1 when the mean KL on --data is larger than this',
        })
        .option('max-ppl-increase', {
          type: 'number',
          implies: 'data',
          describe: 'Exit with 1 when perplexity grows by a larger share than this',
        })
        .option('min-top1', {
          type: 'number',
          implies: 'data',
          describe: 'Exit with 1 when the top token agrees at a smaller share of positions',
        })
        .option('prompt', { type: 'string', describe: 'Let both models continue this text [the first rows of --data]' })
        .option('generate', { type: 'number', describe: 'Let both continue it by this many tokens; 0 for none [48]' })
        .option('timing', {
          type: 'boolean',
          default: true,
          describe: 'With --data, also time a token of both, for what <b> is worth as a draft for <a>',
        })
        .options(PROVIDER_OPTIONS)
        .option('json', { type: 'boolean', default: false, describe: 'Print the result as JSON' })
        .option('quiet', { type: 'boolean', default: false, describe: 'Print nothing but the result' }),
    (args) =>
      run(async () => {
        const { a, b, data, tokenizer, length, prompt, generate, provider, timing } = args;
        const maxTokens = args['max-tokens'];
        const request = {
          ...{ data, tokenizer, prompt, generate, timing, provider, allowFallback: args['allow-fallback'] },
          ...(length === undefined ? {} : { length }),
          ...(maxTokens === undefined ? {} : { maxTokens }),
        };
        const found = await verifyFiles(a, b, request, args.quiet ? silent : stderrTalk());
        // What models say is shown as it is, by its own rules.
        const { continuations } = found;
        const render = (shown: Verification) =>
          renderVerification(continuations === undefined ? shown : { ...shown, continuations });
        if (args.json) show(await withHead('verification', comparedFiles(a, b), found), render, true);
        else show(found, render);
        if (found.text) {
          checkDecode(found.text, [a, b]);
          checkBudget(found.text, {
            maxKl: args['max-kl'],
            maxPplIncrease: args['max-ppl-increase'],
            minTop1: args['min-top1'],
          });
        }
        return args.tolerance !== undefined && !(found.worst.relative <= args.tolerance) ? 1 : 0;
      }),
  );
}

function renderVerification(found: Verification): string {
  const { text, continuations, placements, notes } = found;
  return [
    renderComparison(found),
    ...(placements ?? []).map((placement, i) => `${i === 0 ? 'original' : 'fused'}: ${renderPlacement(placement)}`),
    text ? renderQuality(text) : ALGEBRA_ONLY,
    ...(continuations && continuations.length > 0 ? [renderContinuations(continuations)] : []),
    ...notes,
  ].join('\n');
}
