/**
 * The file of fitted maps: an ONNX file of initializers alone, float32, named after what they stand for:
 * `attention.7.weight` [hidden, hidden] (the normed input is multiplied with it from the left) and `attention.7.bias`
 * [hidden], `ffn.15.weight` and so on. A matrix of low rank is `attention.7.left` [hidden, rank] and `attention.7.right`
 * [rank, hidden], one that was rounded to blocks of bits `attention.7.levels` and `attention.7.scales`
 * (passes/removal/fit-file.ts). Where a bias alone was accepted there is no weight.
 */
import { basename } from 'node:path';
import { errors, Graph, inlineWeight, Model, reasonOf, saveModel, Tensor } from '../../ir/index.js';
import type { BranchPiece, Fits, StreamPiece } from '../../runtime/index.js';
import { fileFact } from '../fuse/file-fact.js';
import type { MapFact } from '../fuse/recovery-fact.js';

/** The file of a plan's maps. */
export interface FitFact {
  /** Its name, beside the plan. */
  readonly file: string;
  readonly sha256: string;
  readonly maps: readonly MapFact[];
}

/** The facts of all fits, in the order of the model. */
export function mapFacts(fits: Fits, pieces: readonly StreamPiece[]): MapFact[] {
  return [...fits].map(([i, { kind, ridge, unseen }]) => {
    const { layer, part } = pieces[i] as BranchPiece;
    return { layer, part: part as MapFact['part'], kind, ridge, unseen };
  });
}

/**
 * Writes the maps that were accepted to `path`; null when there are none. The same maps give the same bytes.
 * @throws Diagnostic OF_WRITE.
 */
export async function saveFits(path: string, fits: Fits, pieces: readonly StreamPiece[]): Promise<FitFact | null> {
  const graph = new Graph();
  graph.name = 'onnx-fuse fit';
  const add = (name: string, values: Float32Array, dims: readonly number[]): void => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    graph.addInitializer(name, new Tensor(name, 'float', dims, inlineWeight(bytes, 'float', dims)));
  };
  for (const [i, { kind, map }] of fits) {
    if (!map) continue;
    const { part, layer } = pieces[i] as BranchPiece;
    const hidden = map.bias.length;
    const name = `${part}.${layer}`;
    const { blocks, factors } = map;
    if (blocks) {
      const [out, count] = blocks.dims;
      graph.addInitializer(
        `${name}.levels`,
        new Tensor(`${name}.levels`, 'uint8', blocks.dims, inlineWeight(blocks.levels, 'uint8', blocks.dims)),
      );
      add(`${name}.scales`, blocks.scales, [out, count]);
    } else if (factors) {
      add(`${name}.left`, factors.left, [hidden, factors.rank]);
      add(`${name}.right`, factors.right, [factors.rank, hidden]);
    } else if (kind === 'map') add(`${name}.weight`, map.weight, [hidden, hidden]);
    add(`${name}.bias`, map.bias, [hidden]);
  }
  if (graph.initializers.length === 0) return null;
  await saveModel(new Model(8, [{ domain: '', version: 17 }], graph), path, { external: false });
  return { file: basename(path), sha256: await sha256Of(path), maps: mapFacts(fits, pieces) };
}

/** The hash of a file. @throws Diagnostic OF_READ. */
export async function sha256Of(path: string): Promise<string> {
  try {
    return (await fileFact(path, 0, true)).sha256 as string;
  } catch (error) {
    throw errors.readFailed(path, reasonOf(error));
  }
}
