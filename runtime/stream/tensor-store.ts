/** Tensors that are read again and again: in memory as long as they fit, the rest in a temporary file. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allocate, type HostTensor, type TensorData } from '../session/tensor.js';

type Place = { readonly tensor: HostTensor } | { readonly offset: number; readonly like: Omit<HostTensor, 'data'> };

export class TensorStore {
  #places = new Map<string, Place>();
  #held = 0;
  #end = 0;
  #folder: string | null = null;
  #fd: number | null = null;

  /** Holds at most `bytes` in memory. */
  constructor(readonly bytes: number) {}

  has(key: string): boolean {
    return this.#places.has(key);
  }

  put(key: string, tensor: HostTensor): void {
    const { data } = tensor;
    if (this.#held + data.byteLength <= this.bytes) {
      this.#held += data.byteLength;
      this.#places.set(key, { tensor });
      return;
    }
    if (this.#fd === null) {
      this.#folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-plan-'));
      this.#fd = openSync(join(this.#folder, 'streams'), 'w+');
    }
    const offset = this.#end;
    for (const [at, piece] of pieces(data)) writeSync(this.#fd, piece, 0, piece.length, offset + at);
    this.#end += data.byteLength;
    this.#places.set(key, { offset, like: { dtype: tensor.dtype, dims: tensor.dims } });
  }

  /** @throws RangeError for a key that was never put. */
  get(key: string): HostTensor {
    const place = this.#places.get(key);
    if (!place) throw new RangeError(`no tensor '${key}' is stored`);
    if ('tensor' in place) return place.tensor;
    const { dtype, dims } = place.like;
    const data = allocate(
      dtype,
      dims.reduce((a, b) => a * b, 1),
    );
    for (const [at, piece] of pieces(data)) readSync(this.#fd as number, piece, 0, piece.length, place.offset + at);
    return { dtype, dims, data };
  }

  /** Forgets everything and removes the file. */
  release(): void {
    this.#places.clear();
    if (this.#fd !== null) closeSync(this.#fd);
    if (this.#folder !== null) rmSync(this.#folder, { recursive: true, force: true });
    this.#fd = null;
    this.#folder = null;
  }
}

/** One read or write of the system takes at most 2 GiB. */
const PIECE_BYTES = 2 ** 30;

function* pieces(data: TensorData): Generator<[number, Uint8Array]> {
  for (let at = 0; at < data.byteLength; at += PIECE_BYTES) {
    yield [at, new Uint8Array(data.buffer, data.byteOffset + at, Math.min(PIECE_BYTES, data.byteLength - at))];
  }
}
