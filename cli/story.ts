/** Lets models continue a text, so that a person sees what a fusion did to them. */
import { errors, openModel } from '../ir/index.js';
import { generate, readSignature, withSession } from '../runtime/index.js';

/** A byte-level model has one token per byte: no tokenizer is needed. */
const BYTE_VOCABULARY = 256;

/**
 * The greedy continuation of `prompt` by a byte-level model, `count` bytes.
 * @throws Diagnostic OF_USAGE for a model with another vocabulary; OF_RUNTIME.
 */
export async function continueText(path: string, prompt: string, count: number): Promise<string> {
  const model = openModel(path);
  const signature = readSignature(model);
  if (signature.vocabulary !== BYTE_VOCABULARY) {
    throw errors.usage(
      '--prompt',
      `the model has a vocabulary of ${signature.vocabulary ?? 'unknown size'}; text can be given to byte-level models (256) only`,
      'leave --prompt out',
    );
  }
  const ids = [...new TextEncoder().encode(prompt)];
  const made = await withSession(path, {}, (session) => generate(session, signature, ids, count));
  return new TextDecoder().decode(new Uint8Array(made));
}
