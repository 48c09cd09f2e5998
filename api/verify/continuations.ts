/** What both models say next, greedily, side by side. */

import { errors, visible } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import { type ForcedScorer, generate, hasCache, longestSequence, type SessionPair } from '../../runtime/index.js';
import { runtimeErrors } from '../../runtime/session/errors.js';
import type { Talk } from '../basics/progress.js';
import type { TextCodec } from '../tokens/text-codec.js';
import { textAfter } from './story.js';

/** A text where the ids can be told, else the ids. */
export type Saying = string | readonly number[];

/** What both models make of one prompt. */
export interface Continuation {
  readonly prompt: Saying;
  readonly original: Saying;
  readonly fused: Saying;
  /** The first generated token, from 0, that differs; null when none does. */
  readonly differsAt: number | null;
  readonly ids: {
    readonly prompt: readonly number[];
    readonly original: readonly number[];
    readonly fused: readonly number[];
  };
}

/** Rows of data that begin a continuation, and tokens of each. */
const PROMPTS = 2;
const PROMPT_TOKENS = 16;

/** The prompts: the given text, else the beginnings of the first rows. @throws Diagnostic OF_USAGE without a codec. */
export async function promptsOf(
  prompt: string | undefined,
  rows: readonly (readonly number[])[],
  codec: TextCodec | null,
): Promise<(readonly number[])[]> {
  if (prompt === undefined) return rows.slice(0, PROMPTS).map((row) => row.slice(0, PROMPT_TOKENS));
  if (codec) return [await codec.encode(prompt)];
  throw errors.usage(
    'option prompt',
    'the model has no tokenizer.json beside it and no token per byte',
    'name one (option tokenizer), or give no prompt',
  );
}

/** Lets both models continue every prompt by `count` tokens, with the KV cache where there is one. @throws Diagnostic OF_RUNTIME, OF_CANNOT_FEED. */
export async function continueBoth(
  pair: SessionPair,
  prompts: readonly (readonly number[])[],
  count: number,
  codec: TextCodec | null,
  talk: Talk,
): Promise<Continuation[]> {
  const total = 2 * prompts.length * count;
  const said: number[][][] = [[], []];
  for (const side of [1, 0] as const) {
    await pair.use(side, async (scorer) => {
      for (const [index, prompt] of prompts.entries()) {
        const done = ((1 - side) * prompts.length + index) * count;
        const onToken = (_: number, at: number) => talk.progress('continuing', done + at, total) as undefined;
        said[side]?.push(await continued(scorer, prompt, count, onToken));
      }
    });
  }
  const made: Continuation[] = [];
  for (const [i, prompt] of prompts.entries()) {
    made.push(await continuationOf(prompt, said[0]?.[i] ?? [], said[1]?.[i] ?? [], codec));
  }
  return made;
}

/** @throws Diagnostic OF_USAGE when the model has no room for the prompt. */
async function continued(
  { session, signature }: ForcedScorer,
  prompt: readonly number[],
  count: number,
  onToken: (id: number, at: number) => undefined,
): Promise<number[]> {
  const room = longestSequence(signature);
  if (prompt.length > room) {
    throw errors.usage(
      'option prompt',
      `it has ${counted(prompt.length, 'token')}, the model takes ${room}`,
      'give a shorter one',
    );
  }
  const most = Math.min(count, room - prompt.length + 1);
  return generate(session, signature, prompt, most, { onToken }).catch((error: unknown) => {
    // Some exports take no more than one token at a time.
    const again = hasCache(signature) && runtimeErrors.runtimeFailed.is(error);
    if (again) return generate(session, signature, prompt, most, { onToken, stepwise: true });
    throw error;
  });
}

/** @internal The two side by side. */
export async function continuationOf(
  prompt: readonly number[],
  original: readonly number[],
  fused: readonly number[],
  codec: TextCodec | null,
): Promise<Continuation> {
  const longest = Math.max(original.length, fused.length);
  const differsAt = Array.from({ length: longest }, (_, i) => original[i] === fused[i]).indexOf(false);
  return {
    prompt: codec ? await codec.decode(prompt) : prompt,
    original: codec ? await textAfter(codec, prompt, original) : original,
    fused: codec ? await textAfter(codec, prompt, fused) : fused,
    differsAt: differsAt < 0 ? null : differsAt,
    ids: { prompt, original, fused },
  };
}

function sameText(differsAt: number | null, length: number): string {
  if (differsAt === null) return `the same ${counted(length, 'token')}`;
  if (differsAt === 0) return `they differ from the first of ${counted(length, 'token')} on`;
  return `of ${counted(length, 'token')} the first ${differsAt === 1 ? 'one is' : `${differsAt} are`} the same`;
}

/** A block per prompt: what was given, what each says, where they part. */
export function renderContinuations(continuations: readonly Continuation[]): string {
  const lines: string[] = [];
  for (const { prompt, original, fused, differsAt, ids } of continuations) {
    lines.push(
      `continuing ${shown(prompt)}`,
      `  original ${shown(original)}`,
      `  fused    ${shown(fused)}`,
      `  ${sameText(differsAt, Math.max(ids.original.length, ids.fused.length))}`,
    );
  }
  return lines.join('\n');
}

/** On one line: line ends and quotes are escaped, and so is what would move a terminal's cursor. */
function shown(saying: Saying): string {
  if (typeof saying !== 'string') return saying.join(' ');
  return visible(JSON.stringify(saying));
}
