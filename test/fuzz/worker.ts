/**
 * A process that runs cases one after another and says on descriptor 3 which one it is at: when it dies or hangs, the one
 * that watches it (supervisor.ts) knows the case. Its argument is a Task as JSON.
 */
import { mkdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { decoderBytes } from './decoders/build.js';
import { decoderCase, runDecoder, simplerDecoders } from './decoders/case.js';
import type { DecoderCase } from './decoders/check.js';
import { type Failure, failureOf } from './failure.js';
import { mutatedModel, runModel, smallerModels } from './models/case.js';
import { Ort } from './models/ort.js';
import { shrink } from './shrink.js';

export type Kind = 'models' | 'decoders';

/** Cases [from, to) of a run, or the case in a file. */
export interface Task {
  readonly kind: Kind;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
  readonly file?: string;
  /** Folder for failing cases; null writes none. */
  readonly out: string | null;
  /** An empty folder, where mutated files may look for external data. */
  readonly empty: string;
  /** Ask onnxruntime about mutated models. */
  readonly onnxruntime: boolean;
  /** Signatures of failures that were made smaller already. */
  readonly known: readonly string[];
}

/** A line on descriptor 3. */
export type Report =
  | { readonly at: number }
  | ({ readonly done: number; readonly counts: Readonly<Record<string, number>> } & Use)
  | ({ readonly failed: number; readonly failure: Failure; readonly file: string | null } & Use)
  /** Still busy making a failing case smaller. */
  | { readonly shrinking: number; readonly failure: Failure };

/** What a case took: bytes that the process has afterwards, and seconds of its processor. */
export interface Use {
  readonly rss: number;
  readonly seconds: number;
}

const REPORT = 3;
const say = (report: Report): void => void writeSync(REPORT, `${JSON.stringify(report)}\n`);

/** What a kind of case is: how it is made, run, made smaller and kept. */
interface Campaign<T> {
  make(index: number): T;
  run(found: T): Promise<Record<string, number>>;
  simpler(found: T): Iterable<T>;
  write(found: T, name: string): string;
  read(file: string): T;
}

const task = JSON.parse(process.argv[2] ?? '') as Task;
let current = task.from;
// Waiting for onnxruntime is no hang of ours: it has a limit of its own.
const ort = task.kind === 'models' && task.onnxruntime ? new Ort(() => say({ at: current })) : null;

const models: Campaign<Uint8Array> = {
  make: (index) => mutatedModel(task.seed, index).bytes,
  run: (bytes) => runModel(bytes, task.empty, ort),
  simpler: smallerModels,
  write: (bytes, name) => {
    writeFileSync(`${name}.onnx`, bytes);
    return `${name}.onnx`;
  },
  read: (file) => readFileSync(file),
};

const decoders: Campaign<DecoderCase> = {
  make: (index) => decoderCase(task.seed, index),
  run: async (found) => runDecoder(found),
  simpler: simplerDecoders,
  write: (found, name) => {
    writeFileSync(`${name}.json`, `${JSON.stringify(found, null, 1)}\n`);
    writeFileSync(`${name}.onnx`, decoderBytes(found.spec));
    return `${name}.json`;
  },
  read: (file) => JSON.parse(readFileSync(file, 'utf8')) as DecoderCase,
};

/** Signatures that were made smaller already: the second of a kind is only counted. */
const seen = new Set<string>(task.known);

async function runCases<T>(campaign: Campaign<T>): Promise<void> {
  const outcome = async (found: T): Promise<Failure | Record<string, number>> => {
    try {
      return await campaign.run(found);
    } catch (error) {
      return failureOf(error);
    }
  };
  const isFailure = (found: Failure | Record<string, number>): found is Failure =>
    typeof found['signature'] === 'string';
  for (let index = task.from; index < task.to; index++) {
    current = index;
    // Weights that nobody holds any more are forgotten between the turns of the event loop.
    await new Promise(setImmediate);
    say({ at: index });
    const before = process.cpuUsage();
    const found = task.file === undefined ? campaign.make(index) : campaign.read(task.file);
    const result = await outcome(found);
    const { user, system } = process.cpuUsage(before);
    const use: Use = { rss: process.memoryUsage().rss, seconds: (user + system) / 1e6 };
    if (!isFailure(result)) {
      say({ done: index, counts: result, ...use });
      continue;
    }
    let file: string | null = null;
    if (task.out !== null && task.file === undefined && !seen.has(result.signature)) {
      seen.add(result.signature);
      const small = await shrink(found, result.signature, campaign.simpler, async (candidate) => {
        say({ shrinking: index, failure: result });
        const again = await outcome(candidate);
        return isFailure(again) ? again.signature : null;
      });
      mkdirSync(task.out, { recursive: true });
      file = campaign.write(small, join(task.out, `${task.kind}-${task.seed}-${index}`));
    }
    say({ failed: index, failure: result, file, ...use });
  }
}

if (task.kind === 'models') await runCases(models);
else await runCases(decoders);
ort?.close();
