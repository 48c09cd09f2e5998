/** `verify`: two models held against each other. */
import type { Model } from '../../ir/index.js';
import { checkOptions, checkType } from '../basics/options.js';
import { withHead } from '../fuse/evidence.js';
import { checkBudget, checkDecode, checkLimits, checkTolerance, type QualityBudget } from '../verify/on-text.js';
import { comparedFiles, compareModels, type Verification, type VerificationRequest } from '../verify/verify.js';

/** What a verification is held to; what is not given is not judged. */
export interface VerificationLimits extends QualityBudget {
  /** Largest relative error of an output on random tokens: ||a - b|| / ||a||; none by default. */
  readonly tolerance?: number | null | undefined;
}

/**
 * Runs both models with onnxruntime on the same seeded inputs, prefill and decode, and compares every output of the
 * same name: `worst.relative` is ||a - b|| / ||a|| of the worst output. With `data` the quality of `b` on a text is
 * measured as well (`text`), and what both say next (`continuations`): what `onnx-fuse verify` does. Limits are not judged:
 * `checkVerification` tells.
 *
 * @param a the reference: an .onnx file, a folder with one, or a model in memory, which need not be saved first
 * @param b the model to judge, likewise, or a folder that `shard` wrote
 * @throws Diagnostic OF_NO_RUNTIME without onnxruntime-node, OF_RUNTIME, OF_CANNOT_FEED, OF_NOT_COMPARABLE, OF_TOKEN_DATA,
 * OF_TOKENIZER, OF_RANKS, OF_USAGE
 */
export async function verify(
  a: string | Model,
  b: string | Model,
  request: VerificationRequest = {},
): Promise<Verification> {
  for (const [place, model] of Object.entries({ a, b })) checkType(place, model, 'object | string');
  checkOptions('VerificationRequest', request);
  const found = await compareModels(a, b, request);
  return withHead('verification', comparedFiles(a, b), found);
}

/**
 * Holds a verification to limits. On text both models must also decode token by token what they say in one prefill.
 *
 * @param names what the models are called in an error
 * @throws Diagnostic OF_DECODE, OF_QUALITY, OF_TOLERANCE for the first limit that is not kept
 */
export function checkVerification(
  found: Verification,
  limits: VerificationLimits = {},
  names: readonly [a: string, b: string] = ['the original', 'the changed model'],
): void {
  checkOptions('VerificationLimits', limits);
  checkLimits(limits);
  const { text, worst } = found;
  if (text) {
    checkDecode(text, names);
    checkBudget(text, limits);
  }
  if (limits.tolerance != null) checkTolerance(worst.relative, limits.tolerance);
}
