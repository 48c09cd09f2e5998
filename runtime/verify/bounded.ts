/**
 * A session of a model that is larger than memory: its nodes in pieces one after another, each loaded, run and released. All inputs
 * and outputs are those of the whole model, caches among them; it is read from disk once for each run.
 */

import type { Model } from '../../ir/core.js';
import { referenceOf } from '../../ir/disk/model.js';
import type { GroupSession } from '../ranks/group.js';
import { cutByWeights, cutSegment, type Segment } from '../ranks/segments.js';
import { runtimeErrors } from '../session/errors.js';
import { availableMemory, fitsInMemory, weightBytes, weightsInMemory } from '../session/memory.js';
import { type ModelLocation, type SessionOptions, withSession } from '../session/session.js';
import type { HostTensor, TensorMap } from '../session/tensor.js';
import type { Candidate } from './verify.js';

/** A model that is run in pieces, and how many bytes of weights one may have. */
export interface Bounded extends Candidate {
  readonly pieceBytes: number;
}

/** Whether a candidate is run in pieces. */
export function isBounded(candidate: Candidate): candidate is Bounded {
  return 'pieceBytes' in candidate;
}

/** The candidate as it is where it fits into `have` bytes of memory or is run in pieces already, else one that is. `open` reads its model anew. */
export function bounded(
  candidate: Candidate,
  open: () => Model,
  have: number = availableMemory(),
): Candidate | Bounded {
  if (isBounded(candidate) || fitsInMemory(candidate.model, have).fits) return candidate;
  const pieceBytes = weightsInMemory(have);
  return { ...candidate, pieceBytes, open: (options) => openBounded(open, pieceBytes, have, options) };
}

/** @throws Diagnostic OF_MEMORY where one operator alone has more weights than fit. */
async function openBounded(
  open: () => Model,
  pieceBytes: number,
  have: number,
  options: SessionOptions,
): Promise<GroupSession> {
  const whole = open();
  const segments = cutByWeights(whole, pieceBytes);
  const results = new Set(whole.graph.outputs.map(({ name }) => name));
  // Weights stay in the files: what is kept of a piece is its part of the header.
  const pieces = new Map<Segment, Piece>();
  const pieceAt = (segment: Segment): Piece => {
    let piece = pieces.get(segment);
    if (!piece) {
      const model = open();
      cutSegment(model, segment);
      const { fits, need } = fitsInMemory(model, have);
      if (!fits) throw runtimeErrors.memory('a piece of the model', need, have);
      piece = { location: referenceOf(model), weightBytes: weightBytes(model) };
      pieces.set(segment, piece);
    }
    return piece;
  };
  return {
    optimizationLevel: options.optimization ?? 'all',
    release: async () => pieces.clear(),
    run: (feeds) => runPieces(segments, pieceAt, results, feeds, options),
  };
}

interface Piece {
  readonly location: ModelLocation;
  readonly weightBytes: number;
}

async function runPieces(
  segments: readonly Segment[],
  pieceAt: (segment: Segment) => Piece,
  results: ReadonlySet<string>,
  feeds: TensorMap,
  options: SessionOptions,
): Promise<Map<string, HostTensor>> {
  const outputs = new Map<string, HostTensor>();
  const values = new Map(feeds);
  /** The last segment that reads each value. */
  const lastReader = new Map(segments.flatMap(({ carried }, k) => carried.map((name) => [name, k] as const)));
  for (const [k, segment] of segments.entries()) {
    if (segment.outputs.length === 0) continue;
    const { location, weightBytes } = pieceAt(segment);
    const given = new Map(
      [...segment.inputs, ...segment.carried].map((name) => [name, values.get(name) as HostTensor]),
    );
    const found = await withSession(location, { ...options, weightBytes }, (session) => session.run(given));
    for (const [name, tensor] of found) {
      if (lastReader.has(name)) values.set(name, tensor);
      if (results.has(name)) outputs.set(name, tensor);
    }
    for (const name of segment.carried) if (lastReader.get(name) === k) values.delete(name);
  }
  return outputs;
}
