/**
 * Rank models that NVIDIA's Polygraphy wrote (`polygraphy multi-device shard`): `NAME_tpN_rankI.onnx`, with DistCollective
 * nodes between the ranks and no file that describes them. What `ranks.json` says of our own is read off the models.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Model, openModel } from '../../ir/index.js';
import { branchesOf, layersOf } from '../../passes/index.js';
import { type RankChain, readSignature } from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import type { RanksFile } from './ranks-file.js';

/** What a comparison of ranks needs to know. */
export interface RankGroup extends Pick<RanksFile, 'ranks' | 'caches' | 'collectives' | 'style'> {
  /** Path of a rank's model. */
  readonly models: readonly string[];
  /** Where the models are segments already. */
  readonly chains?: readonly RankChain[];
  /** What a person should know of how the model was cut. */
  readonly notes: readonly string[];
}

const NAME = /^(.+)_tp(\d{1,4})_rank(\d{1,4})\.onnx$/;

/** The rank files of Polygraphy in `folder`, in the order of ranks; null when it has none. @throws Diagnostic OF_RANKS. */
export function polygraphyFiles(folder: string): string[] | null {
  const found = readdirSync(folder).flatMap((file) => {
    const [, stem, count, rank] = NAME.exec(file) ?? [];
    return stem === undefined ? [] : [{ file, group: `${stem}_tp${count}`, count: Number(count), rank: Number(rank) }];
  });
  const [first] = found;
  if (!first) return null;
  const other = found.find(({ group }) => group !== first.group);
  if (other) throw apiErrors.ranks(folder, `it has ranks of two models, '${first.file}' and '${other.file}'`);
  return Array.from({ length: first.count }, (_, rank) => {
    const own = found.find((each) => each.rank === rank);
    if (!own) throw apiErrors.ranks(folder, `rank ${rank} of ${first.count} is absent`);
    return join(folder, own.file);
  });
}

/** How the model `original` was cut into `models`. @throws Diagnostic OF_RANKS where they do not fit together. */
export function polygraphyRanks(original: Model, models: readonly string[]): RankGroup {
  const ranks = models.length;
  const opened = models.map((path) => openModel(path));
  const caches = cachesOf(original, opened, models);
  const whole = wholeAttentions(original, opened[0] as Model);
  const notes =
    whole.length === 0
      ? []
      : [
          `every rank computes the whole attention of layer${whole.length === 1 ? '' : 's'} ${whole.join(', ')}: Polygraphy did not cut it`,
        ];
  return { ranks, caches, collectives: [], style: 'trt', models, notes };
}

/** Caches of which a rank holds fewer heads than the original. */
function cachesOf(original: Model, ranks: readonly Model[], paths: readonly string[]): RankGroup['caches'] {
  const shapes = (model: Model): Map<string, readonly unknown[]> => {
    const { inputs, outputs, caches } = readSignature(model);
    const names = new Set(caches.flatMap(({ input, output }) => [input, output]));
    return new Map(
      [...inputs, ...outputs].flatMap(({ name, shape }) => (names.has(name) && shape ? [[name, shape] as const] : [])),
    );
  };
  const all = ranks.map(shapes);
  return [...shapes(original)].flatMap(([name, shape]) => {
    const own = all.map((each) => each.get(name));
    const [first] = own;
    if (!first || first.length !== shape.length) return [];
    const axis = shape.findIndex((dim, i) => typeof dim === 'number' && dim !== first[i]);
    if (axis < 0) return [];
    const [heads, size] = [shape[axis] as number, first[axis]];
    const fits = typeof size === 'number' && heads % size === 0 && ranks.length % (heads / size) === 0;
    if (!fits || own.some((each) => each?.[axis] !== size)) {
      throw apiErrors.ranks(paths[0] as string, `'${name}' is [${first}], which is no share of [${shape}]`);
    }
    return [{ name, axis, heads, size, pieces: heads / size }];
  });
}

/** Layers whose attention has the original's matrices, whole. */
function wholeAttentions(original: Model, rank: Model): number[] {
  return layersOf(original)
    .layers.filter((layer) =>
      branchesOf(layer).some(({ role, nodes }) => {
        if (role !== 'attention') return false;
        const matrices = [...nodes]
          .flatMap((node) => node.inputs)
          .filter((value) => value?.constant?.dims.length === 2);
        const isSame = (value: (typeof matrices)[number]): boolean =>
          value !== null && rank.graph.value(value.name)?.constant?.dims.join() === value.constant?.dims.join();
        return matrices.length > 0 && matrices.every(isSame);
      }),
    )
    .map(({ index }) => index);
}
