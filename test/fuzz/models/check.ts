/** One mutated file through everything that reads, changes and writes models. Only Diagnostics may be thrown. */
import { inspectModel } from '../../../api/inspect/inspect.js';
import type { Model } from '../../../ir/core.js';
import { Diagnostic } from '../../../ir/diagnostic.js';
import { openModelBytes, referenceBytes } from '../../../ir/disk/model.js';
import { parseModel, printModel } from '../../../ir/text/index.js';
import { newViolations, verifyModel } from '../../../ir/verify.js';
import {
  concatAttention,
  concatFfn,
  factsOf,
  parsePipeline,
  referenceSteps,
  registry,
  renameKv,
  runPipeline,
} from '../../../passes/index.js';
import { readSignature } from '../../../runtime/index.js';
import { failureOf, Wrong } from '../failure.js';

/** What a pipeline made of the file. */
export interface Written {
  readonly pipeline: string;
  readonly bytes: Uint8Array;
  /** The same without fusion, where something was fused. */
  readonly reference: Uint8Array | null;
}

export interface Looked {
  /** The code with which opening refused; null where the file is read. */
  readonly refused: string | null;
  /** Pipelines that refused. */
  readonly refusals: number;
  /** Files that differ from the input. */
  readonly written: readonly Written[];
}

/** Opens, inspects, prints, transforms, writes and opens again. `folder` is where external data would be. */
export function checkModel(bytes: Uint8Array, folder: string): Looked {
  const opened = attempt(() => openModelBytes(bytes, folder));
  if (typeof opened === 'string') return { refused: opened, refusals: 0, written: [] };
  const layers = inspected(opened);
  checkUnchanged(opened, bytes, folder);
  checkText(opened);
  const known = verifyModel(opened);
  let refusals = 0;
  const written: Written[] = [];
  for (const pipeline of pipelinesFor(layers)) {
    const made = within(pipeline, () => attempt(() => transformed(bytes, folder, pipeline, known)));
    if (typeof made === 'string') refusals++;
    else if (made) written.push(made);
  }
  return { refused: null, refusals, written };
}

/** The code of a Diagnostic, or the result; anything else is thrown on. */
function attempt<T>(work: () => T): T | string {
  try {
    return work();
  } catch (error) {
    // That code says that a pass is wrong.
    if (error instanceof Diagnostic && error.code !== 'OF_INVALID_GRAPH') return error.code;
    throw error;
  }
}

/** Says in which pipeline something went wrong. */
function within<T>(pipeline: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof Wrong) throw error;
    if (error instanceof Diagnostic) throw new Wrong('invalid', `${error.message} (${pipeline})`);
    if (error instanceof Error) error.stack = `${failureOf(error).text}\nin the pipeline ${pipeline}`;
    throw error;
  }
}

function inspected(model: Model): readonly number[] {
  const found = attempt(() => inspectModel(model, 'case'));
  attempt(() => readSignature(model));
  return typeof found === 'string' ? [] : found.layers.map(({ index }) => index);
}

/** An empty pipeline gives back the bytes. */
function checkUnchanged(model: Model, bytes: Uint8Array, folder: string): void {
  const same = attempt(() => referenceBytes(model, folder));
  if (typeof same === 'string') return;
  if (!Buffer.from(same).equals(bytes)) {
    throw new Wrong(
      'unchanged',
      `a file of ${bytes.length} bytes comes out as ${same.length} others with an empty pipeline`,
    );
  }
}

function checkText(model: Model): void {
  const text = attempt(() => printModel(model));
  if (typeof text === 'string' && /^OF_[A-Z_]+$/.test(text)) return;
  const again = attempt(() => printModel(parseModel(text)));
  if (again !== text && !NOT_ALONE.test(text))
    throw new Wrong('text', `what is printed is not read back: ${again.slice(0, 80)}`);
}

/** Weights that lie elsewhere cannot be read back from text alone. */
const NOT_ALONE = /"location": | range \d+ \d+ "/;

/** A few option sets, over the layers that are there. */
export function pipelinesFor(layers: readonly number[]): readonly string[] {
  const list = layers.slice(0, 40).join(',');
  const [first, second] = layers;
  return [
    'inline-functions,parallelize-ffn,concat-ffn,drop-dead',
    'inline-functions,parallelize-ffn{keep-last=0 lead=true norm=last},requantize-ffn,concat-ffn,rename-kv{naming=compact},drop-dead',
    'inline-functions,annotate-tensor-parallel',
    'instrument',
    'inline-functions,shard-tensor-parallel{ranks=2 rank=1 collectives=none}',
    ...(first === undefined
      ? []
      : [
          `inline-functions,remove-attention{layers=${list}},parallelize-ffn{keep-last=0},concat-ffn,rename-kv{naming=compact},drop-dead`,
          `inline-functions,remove-attention{layers=${layers.at(-1)}},remove-ffn{layers=${first}},parallelize-ffn{keep-last=0},concat-ffn,drop-dead`,
        ]),
    ...(second === undefined
      ? []
      : [
          `inline-functions,parallelize-blocks{windows=${first}-${second}},concat-ffn,concat-attention,drop-dead`,
          `inline-functions,parallelize-blocks{windows=${first}-${second} form=literal},drop-dead`,
        ]),
  ];
}

function transformed(bytes: Uint8Array, folder: string, pipeline: string, known: readonly string[]): Written | null {
  const steps = parsePipeline(pipeline, registry);
  const model = openModelBytes(bytes, folder);
  const result = runPipeline(model, steps);
  const { changed } = result;
  if (!changed) return null;
  const made = referenceBytes(model, folder);
  const again = openedAgain(made, folder, pipeline);
  const broken = newViolations(again, known);
  if (broken[0] !== undefined) throw new Wrong('broken', `${broken[0]} (${pipeline})`);
  const merged = factsOf(result, concatAttention);
  const isFused = factsOf(result, concatFfn).length + merged.length > 0;
  // Interfaces that differ cannot be compared without more ado.
  const isAlike = merged.every(({ caches }) => caches.length === 0) && factsOf(result, renameKv).length === 0;
  let reference: Uint8Array | null = null;
  if (isFused && isAlike) {
    const unfused = openModelBytes(bytes, folder);
    runPipeline(unfused, referenceSteps(steps));
    reference = referenceBytes(unfused, folder);
  }
  return { pipeline, bytes: made, reference };
}

function openedAgain(bytes: Uint8Array, folder: string, pipeline: string): Model {
  try {
    return openModelBytes(bytes, folder);
  } catch (error) {
    if (error instanceof Diagnostic)
      throw new Wrong('reopen', `what was written is refused: ${error.message} (${pipeline})`);
    throw error;
  }
}
