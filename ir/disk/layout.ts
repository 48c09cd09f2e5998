/** Where every tensor of the output goes, decided before any byte of a weight is read. */
import { basename, dirname } from 'node:path';
import { readRange } from '../bytes.js';
import type { Model, Tensor } from '../core.js';
import { errors } from '../diagnostic.js';
import { type ExternalLocator, encodeModel } from '../proto/encode.js';
import type { RopeChunk } from '../proto/rope.js';
import type { ExternalLocation } from '../proto/tensor.js';
import { bitsOf } from '../type.js';
import { allInitializers, allTensors } from '../walk.js';
import { type SourceWeight, sourceWeight, type Weight } from '../weight.js';
import { type DataNames, dataNameOf } from './output-names.js';
import { sharedName } from './shared.js';
import { FileSource } from './source.js';

/** Tensors below this size stay in the header when there is a choice. */
export const EXTERNAL_FROM = 1024;
/** Protobuf ends at 2^31-1 bytes; onnxruntime cannot load more. The rest is room for what others add. */
const HEADER_LIMIT = 2_000_000_000;
/** Large tensors begin where memory maps like it. */
const LARGE = 1024 * 1024;
const LARGE_ALIGNMENT = 64 * 1024;
const PADDING = new Uint8Array(LARGE_ALIGNMENT);
const SMALL_ALIGNMENT = 64;
/** Smaller data files are not worth being copied as they are: their tensors go where the others go. */
const COPY_FROM = 1024 * 1024;

/** How the bytes of a model are spread over files. */
export interface LayoutOptions {
  /** true: every initializer from 1 KiB on goes to the data file; false: none. By default as the input had it. */
  readonly external?: boolean | undefined;
  /** A data file does not get larger than this, except for a tensor that is larger by itself: none is split. In bytes; no limit by default. */
  readonly maxShardBytes?: number | undefined;
  /** By default as the data files of the input are called. */
  readonly dataNames?: DataNames | undefined;
  /**
   * Tensors that lie in a file as they are wanted stay there, and the header names that file; only what is new is
   * written. False by default.
   */
  readonly share?: boolean | undefined;
}

/** A weight or bytes to be written, and the tensor that messages about it name. */
export interface Piece {
  readonly chunk: RopeChunk;
  readonly name: string;
}

/** One file: its pieces in order, padding included. */
export interface LaidOutFile {
  readonly name: string;
  readonly pieces: readonly Piece[];
  readonly byteLength: number;
  /** The file that it is a copy of, byte for byte. */
  readonly copyOf: FileSource | null;
}

/** All files of an output. */
export interface FileLayout {
  readonly header: LaidOutFile;
  /** None when everything is in the header. */
  readonly data: readonly LaidOutFile[];
}

/** How the data files of the input are called. */
function namesIn(external: ReadonlySet<Tensor>): DataNames {
  const isUnderscored = [...external].some(
    ({ weight }) =>
      weight?.op === 'source' && weight.source instanceof FileSource && /_data(_\d+)?$/.test(weight.source.path),
  );
  return isUnderscored ? 'underscore' : 'point';
}

/** Lays out the files of the model at `outPath`. Throws OF_USAGE when `external: false` does not fit. */
export function layOutModel(model: Model, outPath: string, options: LayoutOptions = {}): FileLayout {
  const chosen = chooseExternal(model, options.external);
  const names = options.dataNames ?? namesIn(chosen);
  const limit = options.maxShardBytes ?? Number.POSITIVE_INFINITY;
  if (options.share) return layoutWith(model, outPath, chooseExternal(model, true), limit, names, true);
  const layout = layoutWith(model, outPath, chosen, limit, names);
  if (layout.header.byteLength <= HEADER_LIMIT) return layout;
  if (options.external === false) {
    const found = `${layout.header.byteLength} bytes in one file, more than the ${HEADER_LIMIT} that protobuf allows`;
    throw errors.usage(outPath, found, 'let the weights go to an external data file');
  }
  const external = layoutWith(model, outPath, chooseExternal(model, true), limit, names);
  if (external.header.byteLength > HEADER_LIMIT) {
    const found = `${external.header.byteLength} bytes without the weights, more than protobuf allows`;
    throw errors.usage(outPath, found, 'turn large Constant nodes into initializers');
  }
  return external;
}

function chooseExternal(model: Model, wish: boolean | undefined): ReadonlySet<Tensor> {
  const chosen = new Set<Tensor>();
  if (wish === false) return chosen;
  let hasExternal = false;
  for (const tensor of allTensors(model)) {
    if (tensor.storage !== 'external' || !tensor.weight) continue;
    hasExternal = true;
    chosen.add(tensor);
  }
  for (const tensor of allInitializers(model)) {
    if (!tensor.weight || tensor.weight.byteLength < EXTERNAL_FROM) continue;
    const isNew = tensor.carried === null;
    if (wish === true || (hasExternal && isNew && tensor.storage === 'raw')) chosen.add(tensor);
  }
  return chosen;
}

function layoutWith(
  model: Model,
  outPath: string,
  external: ReadonlySet<Tensor>,
  limit: number,
  dataNames: DataNames,
  shares = false,
): FileLayout {
  const places = shares ? sharedPlaces(external, dirname(outPath)) : new Map<Weight, ExternalLocation>();
  const data: LaidOutFile[] = [];
  for (const { source, weights } of shares ? [] : untouchedFiles(external, limit)) {
    const name = dataNameOf(outPath, data.length, dataNames);
    const whole = sourceWeight(source, 0, 'uint8', [source.size]);
    data.push({ name, pieces: [{ chunk: whole, name: '' }], byteLength: source.size, copyOf: source });
    for (const weight of weights) {
      places.set(weight, { location: name, offset: weight.offset, length: weight.byteLength });
    }
  }
  const alignmentOf = alignmentsIn(external);
  let pieces: Piece[] = [];
  let end = 0;
  const finish = (): void => {
    if (pieces.length > 0) {
      data.push({ name: dataNameOf(outPath, data.length, dataNames), pieces, byteLength: end, copyOf: null });
    }
    pieces = [];
    end = 0;
  };
  for (const tensor of external) {
    const { weight } = tensor;
    // Tensors of the same weight share its range.
    if (!weight || places.has(weight)) continue;
    const alignment = alignmentOf(weight);
    if (Math.ceil(end / alignment) * alignment + weight.byteLength > limit) finish();
    const offset = Math.ceil(end / alignment) * alignment;
    if (offset > end) pieces.push({ chunk: PADDING.subarray(0, offset - end), name: '' });
    pieces.push({ chunk: weight, name: tensor.name });
    places.set(weight, { location: dataNameOf(outPath, data.length, dataNames), offset, length: weight.byteLength });
    end = offset + weight.byteLength;
  }
  finish();
  const locate: ExternalLocator = (tensor) =>
    external.has(tensor) && tensor.weight ? (places.get(tensor.weight) ?? null) : null;
  const names = new Map<Weight, string>();
  for (const tensor of allTensors(model)) if (tensor.weight) names.set(tensor.weight, tensor.name);
  const { chunks, byteLength } = encodeModel(model, locate);
  const header = chunks.map((chunk) => ({
    chunk,
    name: chunk instanceof Uint8Array ? '' : (names.get(chunk) ?? ''),
  }));
  return { header: { name: basename(outPath), pieces: header, byteLength, copyOf: null }, data };
}

/** The files that a model at a place of its own would share, each once, in the order in which they are needed. */
export function sharedSources(model: Model): FileSource[] {
  const found = new Map<string, FileSource>();
  for (const { weight } of chooseExternal(model, true))
    if (isShareable(weight)) found.set(weight.source.id, weight.source);
  return [...found.values()];
}

function isShareable(weight: Weight | null): weight is SourceWeight & { readonly source: FileSource } {
  return weight?.op === 'source' && weight.source instanceof FileSource;
}

/** The places of tensors that lie in files already, named from `folder`. */
function sharedPlaces(external: ReadonlySet<Tensor>, folder: string): Map<Weight, ExternalLocation> {
  const names = new Map<FileSource, string>();
  const places = new Map<Weight, ExternalLocation>();
  for (const { weight } of external) {
    if (!isShareable(weight)) continue;
    const { source, offset, byteLength } = weight;
    const location = names.get(source) ?? sharedName(source, folder);
    names.set(source, location);
    places.set(weight, { location, offset, length: byteLength });
  }
  return places;
}

/**
 * Where tensors may begin. Those of an input file lie as they lay there, the large ones and the others: no file becomes
 * larger because some of it is gone. What is new and large begins where memory maps like it.
 */
function alignmentsIn(external: ReadonlySet<Tensor>): (weight: Weight) => number {
  const key = (weight: SourceWeight): string => `${weight.source.id}|${weight.byteLength >= LARGE}`;
  const found = new Map<string, number>();
  const ofInput = (weight: Weight | null): weight is SourceWeight =>
    weight?.op === 'source' && weight.source instanceof FileSource;
  for (const { weight, storage } of external) {
    if (storage !== 'external' || !ofInput(weight)) continue;
    let alignment = LARGE_ALIGNMENT;
    while (weight.offset % alignment !== 0) alignment /= 2;
    found.set(key(weight), Math.min(alignment, found.get(key(weight)) ?? LARGE_ALIGNMENT));
  }
  return (weight) => {
    const own = ofInput(weight) ? found.get(key(weight)) : undefined;
    // Nothing begins in the middle of an element.
    if (own !== undefined) return Math.max(own, Math.ceil(bitsOf(weight.dtype) / 8));
    return weight.byteLength >= LARGE ? LARGE_ALIGNMENT : SMALL_ALIGNMENT;
  };
}

interface UntouchedFile {
  readonly source: FileSource;
  readonly weights: readonly SourceWeight[];
}

/**
 * The input files that the output needs as they are: between the tensors that it takes from one there is nothing but
 * padding with zeros. A tensor that it does not take shows as a gap that is too wide, or not zero.
 */
function untouchedFiles(external: ReadonlySet<Tensor>, limit: number): UntouchedFile[] {
  const files = new Map<string, { source: FileSource; weights: SourceWeight[] }>();
  for (const { weight } of external) {
    if (weight?.op !== 'source' || !(weight.source instanceof FileSource)) continue;
    const { source } = weight;
    if (source.size < COPY_FROM || source.size > limit) continue;
    const file = files.get(source.id) ?? { source, weights: [] };
    file.weights.push(weight);
    files.set(source.id, file);
  }
  return [...files.values()].filter(({ source, weights }) => {
    let end = 0;
    const gaps: [number, number][] = [];
    const ranges = weights.map(({ offset, byteLength }): [number, number] => [offset, offset + byteLength]);
    for (const [from, to] of [...ranges.sort(([a], [b]) => a - b), [source.size, source.size] as const]) {
      if (from - end > LARGE_ALIGNMENT) return false;
      if (from > end) gaps.push([end, from]);
      end = Math.max(end, to);
    }
    return gaps.every(([from, to]) => readRange(source, from, to - from).every((byte) => byte === 0));
  });
}
