/** Writes the decoders of decoder.ts to disk, with weights that are all there. */

import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { Float16Array } from '@petamoriken/float16';
import { hashOf, mix } from '../../runtime/run/random.js';
import { buildDecoder, type DecoderSpec, headerBytes, type Placed } from './decoder.js';

export interface MadeDecoder {
  readonly path: string;
  readonly headerBytes: number;
  readonly dataBytes: number;
  readonly nodes: number;
  readonly parameters: number;
}

/** Values to choose from. Drawing each one anew takes longer than everything that is measured with them. */
const BLOCK = 2 ** 20;

/** Writes `path` and `path`.data, float or float16: weights in [-0.03, 0.03), norms around 1. Deterministic. */
export function writeDecoder(path: string, spec: DecoderSpec): MadeDecoder {
  const { model, tensors, dataBytes } = buildDecoder(spec);
  const values = Float32Array.from({ length: BLOCK }, (_, i) => 0.03 * (mix(7, i) / 2 ** 31 - 1));
  const gammas = values.map((value) => 1 + 8 * value);
  const isHalf = spec.dtype === 'float16';
  const [plain, around1] = [values, gammas].map(
    (floats) => new Uint8Array((isHalf ? Float16Array.from(floats) : floats).buffer),
  ) as [Uint8Array, Uint8Array];
  const file = openSync(`${path}.data`, 'w');
  for (const tensor of tensors) writeTensor(file, tensor, tensor.name.includes('norm') ? around1 : plain);
  closeSync(file);
  const header = headerBytes(model, `${basename(path)}.data`);
  writeFileSync(path, header);
  const parameters = tensors.reduce((sum, { byteLength }) => sum + byteLength / (isHalf ? 2 : 4), 0);
  return { path, headerBytes: header.length, dataBytes, nodes: model.graph.nodeCount, parameters };
}

function writeTensor(file: number, { name, offset, byteLength }: Placed, block: Uint8Array): void {
  // Every tensor begins elsewhere in the block, so that no two are alike.
  let from = (hashOf(name) % BLOCK) * (block.length / BLOCK);
  for (let done = 0; done < byteLength; from = 0) {
    const count = Math.min(byteLength - done, block.length - from);
    writeSync(file, block, from, count, offset + done);
    done += count;
  }
}
