/** Lets models continue a text, so that a person sees what a fusion did to them. */
import { errors, openModel } from '../../ir/index.js';
import { checkClaim, generate, readSignature, withSession } from '../../runtime/index.js';
import { codecFor, type TextCodec } from '../tokens/text-codec.js';

/**
 * The greedy continuation of `prompt`, `count` tokens, through the tokenizer.json beside the model or as bytes.
 * @throws Diagnostic OF_USAGE for a model that has neither; OF_TOKENIZER; OF_RUNTIME.
 */
export async function continueText(path: string, prompt: string, count: number): Promise<string> {
  const model = openModel(path);
  const signature = readSignature(model);
  checkClaim(signature, path);
  const codec = await codecFor(path, signature.vocabulary);
  if (!codec) {
    throw errors.usage(
      'option prompt',
      `the model has a vocabulary of ${signature.vocabulary ?? 'unknown size'} and no tokenizer.json beside it`,
      'copy its tokenizer.json there, or give no prompt',
    );
  }
  const ids = await codec.encode(prompt);
  const made = await withSession(path, {}, (session) => generate(session, signature, ids, count));
  return textAfter(codec, ids, made);
}

/** The text of `made` where it follows `ids`: decoded as a whole, since a token may mean another text at the beginning. */
export async function textAfter(codec: TextCodec, ids: readonly number[], made: readonly number[]): Promise<string> {
  const before = await codec.decode(ids);
  return (await codec.decode([...ids, ...made])).slice(before.length);
}
