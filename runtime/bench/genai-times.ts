/**
 * Times models in onnxruntime-genai, which serves many of them faster than onnxruntime-node: caches stay where they are. It has no
 * package for Node, so a Python that has it runs a script of ours. Each model gets a folder of its own beside the original: its
 * header, the original's genai_config.json, and links to the files in which the weights lie. They are copied where no link can be made.
 */
import { spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import type { Model } from '../../ir/core.js';
import { modelSources, reasonOf, referenceOf, removeTemporary, temporaryFor } from '../../ir/index.js';
import { runtimeErrors } from '../session/errors.js';
import type { SessionOptions } from '../session/session.js';
import { readSignature } from '../signature/signature.js';
import { type StepSamples, type StepTimer, type TimingRequest, TURN_MS, TURN_TOKENS } from './step-times.js';

/** The script lies beside its source, which is published; what runs lies somewhere in dist. */
const PACKAGE = dirname(createRequire(import.meta.url).resolve('onnx-fuse/package.json'));
const SCRIPT = join(PACKAGE, 'runtime', 'bench', 'genai_times.py');
const CONFIG = 'genai_config.json';
/** No name that a model's data has. */
const HEADER = 'onnx-fuse-timed.onnx';
/** Loading onnxruntime-genai takes seconds where it comes from a cold disk. */
const VERSION_MS = 120_000;

type Fields = Record<string, unknown>;

/** Python and its onnxruntime-genai. */
export interface GenaiRuntime {
  /** What is called to run Python. */
  readonly python: string;
  readonly version: string;
}

/** The onnxruntime-genai of this Python; a sentence with the reason where there is none. */
export async function findGenai(python: string): Promise<GenaiRuntime | string> {
  try {
    const answer = await talkTo(python, ['version'], '', () => {}, AbortSignal.timeout(VERSION_MS));
    const { version } = answer as { version?: unknown };
    return typeof version === 'string' ? { python, version } : `${python} tells no version of onnxruntime-genai`;
  } catch (error) {
    return reasonOf(error);
  }
}

/** Why onnxruntime-genai does not run the model at `path` as it lies; null when it does. */
export function whyNotGenai(path: string): string | null {
  const file = join(dirname(path), CONFIG);
  if (!existsSync(file)) return `there is no ${CONFIG} beside the model`;
  try {
    const decoder = decoderOf(readConfig(file));
    if (decoder['pipeline'] !== undefined) return 'it is one of several models of a pipeline';
    return decoder['filename'] === basename(path) ? null : `${CONFIG} is that of another model`;
  } catch (error) {
    return reasonOf(error);
  }
}

/** A timer by onnxruntime-genai for the model at `path` and models made of it, on the provider that its config says, or another. */
export function genaiTimer(path: string, runtime: GenaiRuntime, options: SessionOptions = {}): StepTimer {
  const { provider = 'cpu', threads } = options;
  return {
    runtime: `onnxruntime-genai ${runtime.version} on ${provider}`,
    time: async (models, request) => {
      const config = readConfig(join(dirname(path), CONFIG));
      const decoder = decoderOf(config);
      const session = fieldsOf(decoder['session_options']);
      decoder['filename'] = HEADER;
      decoder['session_options'] = session;
      if (provider !== 'cpu') session['provider_options'] = [{ [provider]: {} }];
      if (threads !== undefined) session['intra_op_num_threads'] = threads;
      const temporary = temporaryFor(join(dirname(path), 'timed'));
      try {
        const folders = models.map(({ model }, index) => {
          const folder = join(temporary, String(index));
          writeFolder(folder, model, JSON.stringify(config));
          return folder;
        });
        const limit = fieldsOf(config['model'])['context_length'];
        const signature = readSignature((models[0] as { model: Model }).model);
        return await timeFolders(runtime, folders, {
          ...request,
          context: roomFor(request, typeof limit === 'number' ? limit : Number.POSITIVE_INFINITY),
          vocabulary: signature.vocabulary ?? 32,
        });
      } catch (error) {
        throw runtimeErrors.runtimeFailed(path, reasonOf(error));
      } finally {
        await removeTemporary(temporary);
      }
    },
  };
}

function roomFor({ context, rounds }: TimingRequest, limit: number): number {
  return Math.max(1, Math.min(context, limit - (rounds + 2) * (TURN_TOKENS + 1)));
}

/** @internal Runs the script. Throws an Error with its last words. */
export async function timeFolders(
  { python }: GenaiRuntime,
  folders: readonly string[],
  { context, batch, rounds, prompt, onTurn, vocabulary }: TimingRequest & { readonly vocabulary: number },
): Promise<readonly StepSamples[]> {
  const request = { folders, vocabulary, context, batch, rounds, prompt, tokens: TURN_TOKENS, milliseconds: TURN_MS };
  const answer = await talkTo(python, ['time'], JSON.stringify(request), (line) => {
    if (typeof line['done'] === 'number' && typeof line['total'] === 'number') onTurn?.(line['done'], line['total']);
  });
  const times = Array.isArray(answer['times']) ? (answer['times'] as unknown[]) : [];
  const isTime = (value: unknown): value is number => typeof value === 'number' && value > 0 && Number.isFinite(value);
  const isList = (value: unknown, length: number): value is number[] =>
    Array.isArray(value) && value.length === length && value.every(isTime);
  const samples = times.flatMap((each): StepSamples[] => {
    const { token, prompt: first } = fieldsOf(each);
    return isList(token, rounds) && isList(first, prompt ? rounds : 0) ? [{ token, prompt: first }] : [];
  });
  if (samples.length === folders.length) return samples;
  throw new Error(`the script of ${python} gave no times, but ${JSON.stringify(answer).slice(0, 200)}`);
}

/** The last JSON object that the script prints; others go to `onLine`, what is none is passed over. */
function talkTo(
  python: string,
  argv: readonly string[],
  input: string,
  onLine: (line: Fields) => void,
  signal?: AbortSignal,
): Promise<Fields> {
  return new Promise((resolve, reject) => {
    const child = spawn(python, [SCRIPT, ...argv], { stdio: 'pipe', ...(signal ? { signal } : {}) });
    let [last, words]: [Fields | null, string] = [null, ''];
    createInterface({ input: child.stdout }).on('line', (line) => {
      try {
        last = fieldsOf(JSON.parse(line));
        onLine(last);
      } catch {
        // Libraries talk, too.
        words = line;
      }
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      words = (words + text).slice(-2000);
    });
    child.on('error', (error) => reject(new Error(`${python} does not run: ${reasonOf(error)}`)));
    // It must not go on for a process that was told to end.
    const stop = (): void => void child.kill();
    process.once('exit', stop);
    child.on('close', (code, killed) => {
      process.off('exit', stop);
      if (code === 0 && last) resolve(last);
      else reject(new Error(words.trim().split('\n').at(-1) || `${python} ended with ${killed ?? code}`));
    });
    // It may end before it has read anything.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

/** A folder with a header over the files of the weights, which are linked at the places that the header says. */
function writeFolder(folder: string, model: Model, config: string): void {
  const { bytes, folder: root } = referenceOf(model);
  mkdirSync(folder, { recursive: true });
  for (const { path } of modelSources(model)) {
    const real = realpathSync(path);
    const target = join(folder, relative(realpathSync(root), real));
    mkdirSync(dirname(target), { recursive: true });
    bring(real, target);
  }
  writeFileSync(join(folder, HEADER), bytes);
  writeFileSync(join(folder, CONFIG), config);
}

type Way = (real: string, target: string) => void;

/**
 * Not every file system has hard links, and onnxruntime says so itself where it does not follow the others. Windows lets only some
 * users make those. Throws what the last way did.
 */
export function bring(
  real: string,
  target: string,
  ways: readonly Way[] = [linkSync, symlinkSync, copyFileSync],
): void {
  for (const [index, way] of ways.entries()) {
    try {
      way(real, target);
      return;
    } catch (error) {
      if (index === ways.length - 1) throw error;
    }
  }
}

function readConfig(file: string): Fields {
  return fieldsOf(JSON.parse(readFileSync(file, 'utf8')));
}

function decoderOf(config: Fields): Fields {
  return fieldsOf(fieldsOf(config['model'])['decoder']);
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}
