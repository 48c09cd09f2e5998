/** Files of fitted maps, as a fit would write them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Graph, Model, Tensor } from '../../ir/core.js';
import { referenceBytes } from '../../ir/disk/model.js';
import type { DataType } from '../../ir/type.js';
import { inlineWeight } from '../../ir/weight.js';
import { hashOf, normal } from '../../runtime/run/random.js';

/** A tensor of a fit file. */
export interface FitTensor {
  readonly dims: readonly number[];
  readonly data: ArrayLike<number>;
  readonly dtype?: DataType;
}

/** Writes `tensors` as a fit file; gives its path. */
export function writeFit(path: string, tensors: Readonly<Record<string, FitTensor>>): string {
  const graph = new Graph();
  graph.name = 'fit';
  for (const [name, { dims, data, dtype = 'float' }] of Object.entries(tensors)) {
    const Elements = dtype === 'double' ? Float64Array : dtype === 'uint8' ? Uint8Array : Float32Array;
    const bytes = new Uint8Array(Elements.from(data).buffer);
    graph.addInitializer(name, new Tensor(name, dtype, dims, inlineWeight(bytes, dtype, dims)));
  }
  writeFileSync(path, referenceBytes(new Model(10, [{ domain: '', version: 17 }], graph), '.'));
  return path;
}

/** Seeded numbers, small against a stream of ones. */
export function fitTensor(name: string, ...dims: readonly number[]): FitTensor {
  const count = dims.reduce((product, dim) => product * dim, 1);
  return { dims, data: Float32Array.from({ length: count }, (_, i) => 0.25 * normal(hashOf(name), i)) };
}

/** Tensors of these names: `attention.3.weight` is [hidden, hidden], a bias is [hidden], `left` and `right` are of rank 2. */
export function fitTensors(hidden: number, ...names: readonly string[]): Record<string, FitTensor> {
  const dimsOf = (name: string): readonly number[] => {
    if (name.endsWith('.bias')) return [hidden];
    return name.endsWith('.left') ? [hidden, 2] : name.endsWith('.right') ? [2, hidden] : [hidden, hidden];
  };
  return Object.fromEntries(names.map((name) => [name, fitTensor(name, ...dimsOf(name))]));
}

let folder: string | null = null;

/**
 * The path of `maps-4`, maps for a stream of four channels: the attention of layer 0 and 1 and the FFN of layer 0 have a
 * matrix and a bias, the attention of layer 2 and the FFN of layer 1 a bias alone, those of layer 3 and 2 a matrix alone.
 * The file lies in a folder that goes with the process.
 */
export function fitPath(name: string): string {
  const hidden = Number(/^maps-(\d+)$/.exec(name)?.[1]);
  if (!hidden) return name;
  if (!folder) {
    const made = mkdtempSync(join(tmpdir(), 'onnx-fuse-maps-'));
    process.once('exit', () => rmSync(made, { recursive: true, force: true }));
    folder = made;
  }
  const attention = ['0.weight', '0.bias', '1.weight', '1.bias', '2.bias', '3.weight'].map(
    (part) => `attention.${part}`,
  );
  const ffn = ['0.weight', '0.bias', '1.bias', '2.weight'].map((part) => `ffn.${part}`);
  return writeFit(join(folder, name), fitTensors(hidden, ...attention, ...ffn));
}
