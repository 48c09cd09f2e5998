/** Text to token ids and back: by the tokenizer.json beside the model, or bytes for a model with a token per byte. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { errors } from '../../ir/index.js';
import { apiErrors } from '../basics/errors.js';
import { readText } from '../basics/small-file.js';
import type { TokenizerAnswer, TokenizerFiles, TokenizerRequest } from './tokenizer-worker.js';

/** Turns text into token ids and back. */
export interface TextCodec {
  /** How it works, for people. */
  readonly name: string;
  /** @throws Diagnostic OF_TOKENIZER when it fails or takes too long. */
  encode(text: string): Promise<readonly number[]>;
  /** Special tokens are left out; bytes that are no UTF-8 become the replacement character. Throws like `encode`. */
  decode(ids: readonly number[]): Promise<string>;
}

/** A byte-level model has one token per byte: no tokenizer is needed. */
export const BYTE_VOCABULARY = 256;

/** The codec of a byte-level model. */
export const BYTES: TextCodec = {
  name: 'bytes',
  encode: async (text) => [...new TextEncoder().encode(text)],
  decode: async (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
};

/**
 * The codec of a model: a tokenizer.json named or lying beside the model, else bytes when the vocabulary is 256; null
 * when there is neither.
 * @throws Diagnostic OF_TOKENIZER for a file that is no tokenizer.
 */
export async function codecFor(
  modelFile: string,
  vocabulary: number | null,
  tokenizer?: string,
): Promise<TextCodec | null> {
  if (tokenizer !== undefined && !existsSync(tokenizer)) throw errors.noSuchFile(tokenizer);
  const path = tokenizer ?? tokenizersOf(modelFile).find((file) => existsSync(file));
  if (path !== undefined) return loadTokenizer(path);
  return vocabulary === BYTE_VOCABULARY ? BYTES : null;
}

/** Where a model's tokenizer may lie. transformers.js has its models in a folder `onnx` below it. */
export function tokenizersOf(modelFile: string): string[] {
  const folder = dirname(modelFile);
  const folders = basename(folder) === 'onnx' ? [folder, dirname(folder)] : [folder];
  return folders.map((each) => join(each, 'tokenizer.json'));
}

async function loadTokenizer(path: string): Promise<TextCodec> {
  const settings = join(dirname(path), 'tokenizer_config.json');
  const thread = new TokenizerThread(path, {
    tokenizer: readText(path, apiErrors.tokenizer),
    settings: existsSync(settings) ? readText(settings, apiErrors.tokenizer) : null,
  });
  await thread.ready;
  return {
    name: path,
    encode: async (text) => {
      const answer = await thread.ask({ encode: text }, LIMIT_MS + text.length / CHARACTERS_PER_MS);
      return 'ids' in answer ? answer.ids : [];
    },
    decode: async (ids) => {
      const answer = await thread.ask({ decode: ids }, LIMIT_MS + ids.length);
      return 'text' in answer ? answer.text : '';
    },
  };
}

/**
 * Milliseconds of computing after which a tokenizer is given up: far more than the largest ones need to load. Of the
 * clock it may take more, on a machine that does other things, too.
 */
const LOADING_MS = 6_000;
const LIMIT_MS = 4_000;
const LONGEST_MS = 600_000;
/** Long texts get more: so many characters of a text are worth a millisecond. */
const CHARACTERS_PER_MS = 128;
const POLL_MS = 50;
/** Megabytes of objects. A vocabulary of 256 thousand tokens takes a third of it. */
const MEMORY_MB = 320;

/** The thread that a tokenizer works in: one request at a time. It keeps no process alive. */
class TokenizerThread {
  /** Settles when the tokenizer is loaded. */
  readonly ready: Promise<TokenizerAnswer>;
  readonly #worker: Worker;
  readonly #path: string;
  #last: Promise<unknown>;
  #hasEnded = false;

  constructor(path: string, files: TokenizerFiles) {
    this.#path = path;
    this.#worker = new Worker(new URL('./tokenizer-worker.js', import.meta.url), {
      workerData: files,
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB, maxYoungGenerationSizeMb: 32 },
    });
    this.ready = this.#answer(LOADING_MS);
    this.#last = this.ready.catch(() => {});
  }

  /** @throws Diagnostic OF_TOKENIZER. */
  ask(request: TokenizerRequest, limitMs: number): Promise<TokenizerAnswer> {
    const asked = this.#last.then(() => {
      if (this.#hasEnded) throw apiErrors.tokenizer(this.#path, 'its thread has ended');
      this.#worker.postMessage(request);
      return this.#answer(limitMs);
    });
    this.#last = asked.catch(() => {});
    return asked;
  }

  /** The next answer, waited for no longer than so many milliseconds of computing. */
  #answer(limitMs: number): Promise<TokenizerAnswer> {
    const worker = this.#worker;
    const began = { wall: performance.now(), cpu: process.cpuUsage() };
    return new Promise((resolve, reject) => {
      worker.ref();
      const end = (failure: string | null, answer?: TokenizerAnswer): void => {
        clearInterval(timer);
        worker.off('message', onMessage).off('error', onError).off('exit', onExit);
        if (failure === null) worker.unref();
        else {
          this.#hasEnded = true;
          void worker.terminate();
        }
        if (failure === null) resolve(answer as TokenizerAnswer);
        else reject(apiErrors.tokenizer(this.#path, failure));
      };
      const onMessage = (answer: TokenizerAnswer): void =>
        'failure' in answer ? end(answer.failure.split('\n')[0] as string) : end(null, answer);
      const onError = (error: unknown): void => {
        const isFull = (error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY';
        end(
          isFull
            ? `it takes more than ${MEMORY_MB} MB of memory`
            : (String((error as Error).message).split('\n')[0] ?? ''),
        );
      };
      const onExit = (): void => end('its thread has ended');
      const timer = setInterval(() => {
        const { user, system } = process.cpuUsage(began.cpu);
        const isOver = (user + system) / 1000 > limitMs || performance.now() - began.wall > LONGEST_MS + limitMs;
        if (isOver) end(`it was given up after ${(limitMs / 1000).toFixed(0)} s of computing`);
      }, POLL_MS);
      worker.on('message', onMessage).on('error', onError).on('exit', onExit);
    });
  }
}
