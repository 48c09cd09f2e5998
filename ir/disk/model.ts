/** Opening and saving models. */
import { realpathSync } from 'node:fs';
import { dirname, relative, resolve, sep } from 'node:path';
import { MemorySource } from '../bytes.js';
import type { Model } from '../core.js';
import { errors } from '../diagnostic.js';
import { decodeModel, sourcesOf } from '../proto/decode.js';
import { encodeModel } from '../proto/encode.js';
import { allTensors } from '../walk.js';
import { leaves, type Weight } from '../weight.js';
import type { ByteSource } from '../weight-types.js';
import { AbsentSource, externalResolver, isInside } from './external.js';
import { EXTERNAL_FROM, type LayoutOptions, layOutModel, sharedSources } from './layout.js';
import { checkShares, noteShares, type SharedFile, sharedFile, sharedName } from './shared.js';
import { FileSource } from './source.js';
import { checkFolder, checkOutputs, type StagedFile, stageLayout } from './stage.js';
import { evaluate, WeightReader } from './tile.js';

/** How a model is written. */
export interface SaveOptions extends LayoutOptions {
  /** Called as bytes reach the disk; nothing by default. */
  readonly onProgress?: ((bytesDone: number, bytesTotal: number) => void) | undefined;
  /** Hash the files (StagedFile.sha256), which reads them once more; not done by default. */
  readonly hash?: boolean | undefined;
}

/** An output that is complete but not in its place yet. */
export interface StagedModel {
  /** The header in its temporary folder; unless it shares weights, its data lie beside it, so it can be loaded from there. */
  readonly headerPath: string;
  /** What can be loaded before it is committed: that path, or where weights are shared a header that names their places. */
  location(): string | { readonly bytes: Uint8Array; readonly folder: string };
  /** The files of others that weights lie in; none unless that was asked for. */
  readonly shared: readonly SharedFile[];
  readonly files: readonly StagedFile[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Moves the files to their place: data first, header last. Throws OF_WRITE and leaves the old output as it was. */
  commit(): Promise<void>;
  /** Removes the files. */
  discard(): Promise<void>;
}

/** Reads an .onnx file; weights stay on disk. Throws a Diagnostic for everything that is wrong with it. */
export function openModel(path: string): Model {
  const model = decodeModel(new FileSource(path), path, externalResolver(dirname(path), path));
  checkShares(model, allSources(model), dirname(path));
  return model;
}

/** Reads an .onnx file for looking only: external data files may be absent, as where weights were not downloaded. */
export function openHeader(path: string): Model {
  return decodeModel(new FileSource(path), path, externalResolver(dirname(path), path, true));
}

/** Reads a model from memory; its external data are looked up in `folder`. */
export function openModelBytes(bytes: Uint8Array, folder: string): Model {
  return decodeModel(new MemorySource(bytes), 'model', externalResolver(folder, null));
}

/** The bytes of a small weight, evaluated in memory. */
export function readWeight(weight: Weight): Uint8Array {
  return evaluate(weight);
}

/** The files that a model was read from and that its weights lie in, each once. */
export function modelSources(model: Model): FileSource[] {
  const byId = new Map(allSources(model).map((source) => [source.id, source]));
  return [...byId.values()];
}

/** Data files that a model names and that are not there: `openHeader` lets them be. */
export function missingFiles(model: Model): string[] {
  return [...readSources(model)].flatMap((source) => (source instanceof AbsentSource ? [source.path] : []));
}

/** Opening a file twice gives two objects with one id; weights are interned and may refer to either. */
function allSources(model: Model): FileSource[] {
  const found = new Set([...sourcesOf(model), ...readSources(model)]);
  return [...found].filter((source) => source instanceof FileSource);
}

/** Where the weights of a model are read from. */
function readSources(model: Model): Set<ByteSource> {
  const found = new Set<ByteSource>();
  for (const { weight } of allTensors(model)) {
    if (!weight) continue;
    for (const leaf of leaves(weight)) if (leaf.op === 'source') found.add(leaf.source);
  }
  return found;
}

/**
 * Writes header and data into a temporary folder beside `outPath`, under their final names.
 * Throws OF_OUTPUT_IS_INPUT, OF_USAGE (no such folder), OF_READ, OF_WRITE, OF_CHANGED, OF_WEIGHT_OVERFLOW.
 */
export async function stageModel(model: Model, outPath: string, options: SaveOptions = {}): Promise<StagedModel> {
  checkFolder(outPath);
  const inputs = allSources(model);
  const shared = options.share ? sharedBy(model, dirname(outPath)) : [];
  noteShares(model, shared);
  const layout = layOutModel(model, outPath, options);
  checkOutputs(layout, outPath, inputs);
  const total = [layout.header, ...layout.data].reduce((sum, file) => sum + file.byteLength, 0);
  const readBefore = bytesRead(inputs);
  let done = 0;
  const onBytes = (count: number): void => {
    done += count;
    options.onProgress?.(done, total);
  };
  const staging = await stageLayout(layout, outPath, { onBytes, hash: options.hash === true });
  const headerPath = staging.header.path;
  try {
    for (const input of inputs) input.checkUnchanged();
  } catch (error) {
    await staging.discard();
    throw error;
  } finally {
    for (const input of inputs) input.close();
  }
  return {
    headerPath,
    location: () => (shared.length > 0 ? referenceOf(openStaged(headerPath, dirname(outPath))) : headerPath),
    shared,
    files: staging.files,
    bytesRead: bytesRead(inputs) - readBefore,
    bytesWritten: done,
    commit: staging.commit,
    discard: staging.discard,
  };
}

/** Which files a model beside them would share. Throws OF_USAGE where they lie elsewhere. */
function sharedBy(model: Model, folder: string): SharedFile[] {
  return sharedSources(model).map((source) => sharedFile(source, sharedName(source, folder)));
}

/** A model that was written but not yet moved to `folder`: its own data lie beside it, shared ones in that folder. */
function openStaged(path: string, folder: string): Model {
  const own = externalResolver(dirname(path), path);
  const others = externalResolver(folder, null);
  return decodeModel(new FileSource(path), path, (tensor, entries, byteLength) => {
    try {
      return own(tensor, entries, byteLength);
    } catch (error) {
      if (!errors.externalMissing.is(error)) throw error;
      return others(tensor, entries, byteLength);
    }
  });
}

function bytesRead(sources: readonly FileSource[]): number {
  return sources.reduce((sum, source) => sum + source.bytesRead, 0);
}

/** Writes a model to `outPath` (and `outPath`.data, `outPath`.data.1, ...); the old output stays until the new one is complete. */
export async function saveModel(model: Model, outPath: string, options: SaveOptions = {}): Promise<StagedModel> {
  const staged = await stageModel(model, outPath, options);
  await staged.commit();
  return staged;
}

/**
 * The model as bytes in which every tensor above 1 KiB that lies in a file is external data in that file, its location
 * relative to `folder`: a reference model over the input's own weights, for which nothing is copied. Expressions and small
 * tensors are in the bytes, and so is what lies in a file for which `isData` is false.
 */
export function referenceBytes(
  model: Model,
  folder: string,
  isData: (path: string) => boolean = () => true,
): Uint8Array {
  const root = withoutLinks(folder);
  // A model has thousands of tensors and few files.
  const locations = new Map<string, string>();
  const rope = encodeModel(model, ({ weight }) => {
    if (weight?.op !== 'source' || weight.byteLength <= EXTERNAL_FROM) return null;
    if (!(weight.source instanceof FileSource)) return null;
    const { path } = weight.source;
    if (!isData(path)) return null;
    const location = locations.get(path) ?? relative(root, withoutLinks(path)).split(sep).join('/');
    locations.set(path, location);
    return { location, offset: weight.offset, length: weight.byteLength };
  });
  const bytes = new Uint8Array(rope.byteLength);
  let at = 0;
  for (const chunk of rope.chunks) {
    if (chunk instanceof Uint8Array) bytes.set(chunk, at);
    else new WeightReader('').readBytes(chunk, 0, chunk.byteLength, bytes, at);
    at += chunk.byteLength;
  }
  return bytes;
}

/**
 * `referenceBytes` with the folder that they are for: the deepest one in which every file lies that the weights are in,
 * whatever links lead there. onnxruntime takes data from no place outside of the folder that it is given.
 */
export function referenceOf(model: Model): { readonly bytes: Uint8Array; readonly folder: string } {
  const folders = allSources(model).map((source) => dirname(withoutLinks(source.path)));
  let folder = folders[0] ?? '.';
  while (!folders.every((each) => isInside(folder, each))) folder = dirname(folder);
  return { bytes: referenceBytes(model, folder), folder };
}

function withoutLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}
