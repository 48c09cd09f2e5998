/**
 * A model whose header is large and whose weights are not: decomposed RMS norms and attention as TorchScript writes them,
 * with caches. 108 nodes and 12 tensors a layer: 464 layers are 50,000 nodes and 5,500 tensors.
 */
import { closeSync, ftruncateSync, openSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { buildDecoder, headerBytes } from '../decoder.js';

export interface HeaderFacts {
  readonly layers: number;
  readonly nodes: number;
  readonly tensors: number;
  readonly headerBytes: number;
}

/** Writes `path` and, with nothing but holes in it, `path`.data. */
export function makeHeader(path: string, layers: number): HeaderFacts {
  const { model, tensors, dataBytes } = buildDecoder({
    form: 'decomposed',
    dtype: 'float',
    hidden: 64,
    heads: 8,
    kvHeads: 4,
    headSize: 8,
    vocabulary: 256,
    layers: Array.from({ length: layers }, () => ({ attention: true, width: 128 })),
  });
  const file = openSync(`${path}.data`, 'w');
  ftruncateSync(file, dataBytes);
  closeSync(file);
  const bytes = headerBytes(model, `${basename(path)}.data`);
  writeFileSync(path, bytes);
  return { layers, nodes: model.graph.nodeCount, tensors: tensors.length, headerBytes: bytes.length };
}
