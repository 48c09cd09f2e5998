/** `onnx-fuse verify a.onnx b.onnx` */
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { checkVerification, verify } from '../../api/commands/verify.js';
import { renderContinuations } from '../../api/verify/continuations.js';
import { checkLimits, renderQuality } from '../../api/verify/on-text.js';
import type { Verification } from '../../api/verify/verify.js';
import type { ArgumentsOf } from '../options/spec.js';
import type { verifySpec } from '../options/verify.js';
import { renderComparison, renderPlacement } from '../text/comparison.js';
import { cautions } from '../text/figures.js';
import { failureIn } from './command.js';
import type { Outcome } from './results.js';

const ALGEBRA_ONLY = 'random tokens only check the algebra; --data measures quality on text';

export async function verifyCommand(args: ArgumentsOf<typeof verifySpec>): Promise<Outcome> {
  const { a, b, data, tokenizer, length, prompt, generate, provider, timing, tolerance } = args;
  const limits = {
    maxKl: args['max-kl'],
    maxPplIncrease: args['max-ppl-increase'],
    minTop1: args['min-top1'],
    tolerance,
  };
  checkLimits(limits);
  const result = await verify(a, b, {
    ...{ data, tokenizer, length, prompt, generate, timing, provider },
    maxTokens: args['max-tokens'],
    allowFallback: args['allow-fallback'],
    talk: args.quiet ? silent : stderrTalk(),
  });
  // What models say is shown as it is, by its own rules.
  const { continuations } = result;
  const render = (shown: Verification) =>
    renderVerification(continuations === undefined ? shown : { ...shown, continuations });
  const failure = failureIn(() => checkVerification(result, limits, [a, b]));
  return { kind: 'verification', result, render, failure };
}

function renderVerification(found: Verification): string {
  const { text, continuations, placements, notes } = found;
  return [
    renderComparison(found),
    ...(placements ?? []).map((placement, i) => `${i === 0 ? 'original' : 'fused'}: ${renderPlacement(placement)}`),
    text ? [renderQuality(text), ...cautions(text.quality.positions)].join('\n') : ALGEBRA_ONLY,
    ...(continuations && continuations.length > 0 ? [renderContinuations(continuations)] : []),
    ...notes,
  ].join('\n');
}
