/** Where every tensor of the output goes, decided before any byte of a weight is read. */
import type { Model, Tensor } from '../core.js';
import { errors } from '../diagnostic.js';
import { encodeModel, type Placement } from '../proto/encode.js';
import type { RopeChunk } from '../proto/rope.js';
import type { ExternalPlace } from '../proto/tensor.js';
import { allInitializers, allTensors } from '../walk.js';
import type { Weight } from '../weight.js';

/** Tensors below this size stay in the header when there is a choice. */
export const EXTERNAL_FROM = 1024;
/** Protobuf ends at 2^31-1 bytes; onnxruntime cannot load more. The rest is room for what others add. */
const HEADER_LIMIT = 2_000_000_000;
/** Large tensors begin where memory maps like it. */
const LARGE = 1024 * 1024;
const LARGE_ALIGNMENT = 64 * 1024;
const SMALL_ALIGNMENT = 64;

export interface PlanOptions {
  /** true: every initializer from 1 KiB on goes to the data file; false: none; undefined: as the input had it. */
  readonly external?: boolean | undefined;
}

/** A weight or bytes to be written, and the tensor that messages about it name. */
export interface Piece {
  readonly chunk: RopeChunk;
  readonly name: string;
}

/** One file: its pieces in order, padding included. */
export interface PlannedFile {
  readonly pieces: readonly Piece[];
  readonly byteLength: number;
}

export interface Plan {
  readonly header: PlannedFile;
  /** Null when everything is in the header. */
  readonly data: PlannedFile | null;
}

/**
 * Plans the files of a model; `dataName` is the location that external tensors get.
 * Throws OF_USAGE when `external: false` does not fit, with `label` as the place.
 */
export function planModel(model: Model, dataName: string, label: string, options: PlanOptions = {}): Plan {
  const plan = planWith(model, dataName, chooseExternal(model, options.external));
  if (plan.header.byteLength <= HEADER_LIMIT) return plan;
  if (options.external === false) {
    const found = `${plan.header.byteLength} bytes in one file, more than the ${HEADER_LIMIT} that protobuf allows`;
    throw errors.usage(label, found, 'let the weights go to an external data file');
  }
  const external = planWith(model, dataName, chooseExternal(model, true));
  if (external.header.byteLength > HEADER_LIMIT) {
    const found = `${external.header.byteLength} bytes without the weights, more than protobuf allows`;
    throw errors.usage(label, found, 'turn large Constant nodes into initializers');
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

function planWith(model: Model, location: string, external: ReadonlySet<Tensor>): Plan {
  const places = new Map<Weight, ExternalPlace>();
  const pieces: Piece[] = [];
  let end = 0;
  for (const tensor of external) {
    const { weight } = tensor;
    // Tensors of the same weight share its range.
    if (!weight || places.has(weight)) continue;
    const alignment = weight.byteLength >= LARGE ? LARGE_ALIGNMENT : SMALL_ALIGNMENT;
    const offset = Math.ceil(end / alignment) * alignment;
    if (offset > end) pieces.push({ chunk: new Uint8Array(offset - end), name: '' });
    pieces.push({ chunk: weight, name: tensor.name });
    places.set(weight, { location, offset, length: weight.byteLength });
    end = offset + weight.byteLength;
  }
  const place: Placement = (tensor) =>
    external.has(tensor) && tensor.weight ? (places.get(tensor.weight) ?? null) : null;
  const data = external.size > 0 ? { pieces, byteLength: end } : null;
  const names = new Map<Weight, string>();
  for (const tensor of allTensors(model)) if (tensor.weight) names.set(tensor.weight, tensor.name);
  const { chunks, byteLength } = encodeModel(model, place);
  const header = chunks.map((chunk) => ({
    chunk,
    name: chunk instanceof Uint8Array ? '' : (names.get(chunk) ?? ''),
  }));
  return { header: { pieces: header, byteLength }, data };
}
