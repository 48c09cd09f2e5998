/**
 * How large a run may be. Shapes are whatever a file says: a model of a few bytes can declare 2^28 tokens, or caches of
 * 2^60 positions. Before anything is made, it is held against the weights of the model, which are really there: a model may
 * be fed with as much as it is itself, and a small one with a fixed amount.
 */

import { bitsOf } from '../../ir/type.js';
import { counted } from '../../ir/visible.js';
import { runtimeErrors } from '../session/errors.js';
import type { InputInfo } from '../signature/roles.js';
import type { Signature } from '../signature/signature.js';

/** Bytes that any model may be fed with. A check keeps a few runs at a time, so the process takes a multiple. */
const ALWAYS = 32 * 2 ** 20;
/** Tokens of a run that any model may fix, and bytes of weights that go with each one more. */
const ALWAYS_TOKENS = 4096;
const BYTES_PER_TOKEN = 4096;
/** Tokens that the amount above is for: who asks for more himself gets more. */
const TOKENS = 64;

/** An input and the shape that it is about to get. */
export interface WantedInput {
  readonly input: InputInfo;
  readonly dims: readonly number[];
}

/** @throws Diagnostic OF_CANNOT_FEED naming the largest input when they are too large together. */
export function checkRoom(signature: Signature, wanted: readonly WantedInput[], tokens: number): void {
  const { sequence, batch, weightBytes, vocabulary } = signature;
  const asked = sequence === null ? Math.max(1, tokens / (batch ?? 1) / TOKENS) : 1;
  const limit = Math.max(ALWAYS, weightBytes) * asked;
  const sizes = wanted.map(({ input, dims }) => dims.reduce((a, b) => a * b, bitsOf(input.dtype) / 8));
  const scores = 4 * tokens * (signature.logits === null ? 0 : (vocabulary ?? 0));
  const total = sizes.reduce((sum, bytes) => sum + bytes, scores);
  // A size that is no number at all fits nowhere.
  if (total <= limit) return;
  const at = sizes.indexOf(Math.max(...sizes));
  const { input, dims } = wanted[at] as WantedInput;
  const isScores = scores > (sizes[at] as number);
  throw runtimeErrors.cannotFeed(
    isScores ? (signature.driver ?? input).name : input.name,
    `${isScores ? `its ${counted(tokens, 'token has', { many: 'tokens have' })} scores` : `its shape [${dims.join(', ')}] is one`} of ${sizeText(
      isScores ? scores : (sizes[at] as number),
    )}, more than the ${sizeText(limit)} that a model of this size is run with`,
  );
}

/**
 * The tokens of a run where the model fixes their number.
 * @throws Diagnostic OF_CANNOT_FEED when there are too many to be made.
 */
export function checkTokens({ driver, weightBytes }: Signature, batch: number, tokens: number): void {
  const limit = Math.max(ALWAYS_TOKENS, weightBytes / BYTES_PER_TOKEN);
  if (batch * tokens <= limit) return;
  const found = `its shape fixes ${batch} x ${tokens} tokens`;
  const most = `more than the ${Math.floor(limit)} that a model of this size is run with`;
  throw runtimeErrors.cannotFeed(driver?.name ?? 'tokens', `${found}, ${most}`);
}

/** @throws Diagnostic OF_MEMORY for a model that makes far more out of its weights than they are. */
export function checkClaim({ claim, weightBytes }: Signature, place: string): void {
  const limit = Math.max(ALWAYS, weightBytes);
  if (!claim || claim.bytes <= limit) return;
  throw runtimeErrors.unfounded(place, claim.what, sizeText(claim.bytes), sizeText(limit));
}

function sizeText(bytes: number): string {
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toPrecision(3)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
}
