/** Holds the bytes of all ranks' weights against the original's, tensor by tensor. */
import { openModel, type Tensor, type Weight } from '../../ir/index.js';
import { runPipeline, type ShardOptions, shardSteps } from '../../passes/index.js';
import { tensorsOf } from '../../runtime/index.js';

/** Where the tensors of the original lie; small ones are constants in memory. */
interface Place {
  readonly name: string;
  readonly file: string;
  readonly start: number;
  readonly end: number;
}

/**
 * Null where every tensor of the original is cut (all its bytes once, on one rank each), replicated (once on every rank) or
 * held by groups of ranks (key-value heads); else what does not add up. A table that is looked up and multiplied with is
 * counted for both.
 */
export function checkBytes(path: string, request: ShardOptions): string | null {
  const { ranks } = request;
  const places = [...tensorsOf(openModel(path))].flatMap(placeOf);
  const totals = new Map<Place, number[]>();
  for (let rank = 0; rank < ranks; rank++) {
    const model = openModel(path);
    runPipeline(model, shardSteps(request, rank));
    const seen = new Set<string>();
    for (const { weight } of tensorsOf(model)) {
      if (!weight || seen.has(weight.key)) continue;
      seen.add(weight.key);
      for (const [file, offset, bytes] of rangesOf(weight)) {
        const place = places.find((each) => each.file === file && offset >= each.start && offset < each.end);
        if (!place) return `rank ${rank} reads ${bytes} bytes at ${offset} of ${file}, where no tensor lies`;
        const own = totals.get(place) ?? new Array<number>(ranks).fill(0);
        own[rank] = (own[rank] as number) + bytes;
        totals.set(place, own);
      }
    }
  }
  for (const place of places) {
    const { name, start, end } = place;
    const bytes = end - start;
    const own = totals.get(place);
    if (!own) continue;
    const total = own.reduce((sum, each) => sum + each, 0);
    const least = Math.min(...own);
    const isCut = total === bytes;
    const isWhole = own.every((each) => each === bytes);
    // Both: a tied table. Shared: several ranks hold the same heads, of a packed projection those of keys and values.
    const isBoth = own.every((each) => each >= bytes) && total === bytes * (ranks + 1);
    const isShared = total > bytes && total < bytes * ranks && own.every((each) => each === least);
    if (!isCut && !isWhole && !isBoth && !isShared) return `${name} of ${bytes} bytes: ${own.join(' + ')}`;
  }
  return null;
}

function placeOf({ name, weight }: Tensor): Place[] {
  if (weight?.op !== 'source') return [];
  return [{ name, file: weight.source.id, start: weight.offset, end: weight.offset + weight.byteLength }];
}

/** Which bytes of which files a weight is made of: file, first offset, count. */
function* rangesOf(weight: Weight): Generator<[file: string, offset: number, bytes: number]> {
  switch (weight.op) {
    case 'source':
      yield [weight.source.id, weight.offset, weight.byteLength];
      return;
    case 'concat':
      for (const part of weight.parts) yield* rangesOf(part);
      return;
    case 'transpose':
      yield* rangesOf(weight.operand);
      return;
    case 'slice':
      for (const [file, offset] of rangesOf(weight.operand)) {
        yield [file, offset, weight.byteLength];
        return;
      }
  }
}
