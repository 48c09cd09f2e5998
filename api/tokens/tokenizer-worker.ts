/**
 * A tokenizer in a thread of its own. A tokenizer.json holds regular expressions, and one of them can take for ever on an
 * innocent text: a thread can be ended, whatever it is doing.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Tokenizer } from '@huggingface/tokenizers';

/** What the thread is started with: tokenizer.json and tokenizer_config.json, as they are in the files. */
export interface TokenizerFiles {
  readonly tokenizer: string;
  readonly settings: string | null;
}

export type TokenizerRequest = { readonly encode: string } | { readonly decode: readonly number[] };
export type TokenizerAnswer =
  | { readonly ids: readonly number[] }
  | { readonly text: string }
  | { readonly failure: string };

function objectIn(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('it is no JSON object');
  return value as Record<string, unknown>;
}

function load({ tokenizer, settings }: TokenizerFiles): Tokenizer {
  const made = new Tokenizer(objectIn(tokenizer), settings === null ? {} : objectIn(settings));
  // Some faults show on the first text only.
  made.encode('a');
  return made;
}

function answer(work: () => TokenizerAnswer): void {
  let found: TokenizerAnswer;
  try {
    found = work();
  } catch (error) {
    found = { failure: error instanceof Error ? error.message : String(error) };
  }
  parentPort?.postMessage(found);
}

// Started by text-codec.ts, and only so: imported elsewhere this file does nothing.
if (parentPort && (workerData as TokenizerFiles | null)?.tokenizer !== undefined) {
  let made: Tokenizer;
  answer(() => {
    made = load(workerData as TokenizerFiles);
    return { ids: [] };
  });
  parentPort.on('message', (request: TokenizerRequest) =>
    answer(() =>
      'encode' in request
        ? { ids: [...made.encode(request.encode).ids] }
        : { text: made.decode([...request.decode], { skip_special_tokens: true }) },
    ),
  );
}
