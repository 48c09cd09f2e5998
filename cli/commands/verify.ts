/** `onnx-fuse verify a.onnx b.onnx` */
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { withHead } from '../../api/fuse/evidence.js';
import { renderContinuations } from '../../api/verify/continuations.js';
import { checkBudget, checkDecode, checkTolerance, renderQuality } from '../../api/verify/on-text.js';
import { comparedFiles, type Verification, verifyFiles } from '../../api/verify/verify.js';
import type { ArgumentsOf } from '../options/spec.js';
import type { verifySpec } from '../options/verify.js';
import { renderComparison, renderPlacement } from '../text/render.js';
import { failureIn, give } from './command.js';

const ALGEBRA_ONLY = 'random tokens only check the algebra; --data measures quality on text';

export async function verifyCommand(args: ArgumentsOf<typeof verifySpec>): Promise<number> {
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
  const result = await withHead('verification', comparedFiles(a, b), found);
  return give({ kind: 'verification', result, render, failure: failureIn(() => checkLimits(found, args)) }, args.json);
}

function checkLimits({ text, worst }: Verification, args: ArgumentsOf<typeof verifySpec>): void {
  if (text) {
    checkDecode(text, [args.a, args.b]);
    checkBudget(text, {
      maxKl: args['max-kl'],
      maxPplIncrease: args['max-ppl-increase'],
      minTop1: args['min-top1'],
    });
  }
  if (args.tolerance !== undefined) checkTolerance(worst.relative, args.tolerance);
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
