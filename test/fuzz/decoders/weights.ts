/** The numbers of a decoder, by name: the same for the graph and for what it should compute. */
import { hashOf } from '../../../runtime/run/random.js';
import { Random } from '../random.js';
import type { DecoderSpec, Format } from './spec.js';

/** A matrix of integers with scales, and what it stands for. */
export interface Quantised {
  /** [out, in] for blocks, [in, out] for integers. */
  readonly levels: Int32Array;
  readonly scales: Float64Array;
  readonly zeros: Float64Array | null;
  /** [in, out]. */
  readonly dense: Float64Array;
}

export class Weights {
  readonly #seed: number;
  readonly #coarse: boolean;
  readonly #made = new Map<string, Float64Array>();
  readonly #stored = new Map<string, Quantised>();
  constructor({ seed, coarse }: Pick<DecoderSpec, 'seed' | 'coarse'>) {
    this.#seed = seed;
    this.#coarse = coarse;
  }

  #random(name: string): Random {
    return new Random((hashOf(name) ^ this.#seed) >>> 0);
  }

  #filled(kind: string, name: string, size: number, one: (random: Random) => number): Float64Array {
    const key = `${kind} ${name} ${size}`;
    const random = this.#random(name);
    const made = this.#made.get(key) ?? Float64Array.from({ length: size }, () => one(random));
    this.#made.set(key, made);
    return made;
  }

  /** [rows, columns], about 1 / sqrt(rows) each. */
  matrix(name: string, rows: number, columns: number, scale = 1): Float64Array {
    const size = 2 ** Math.round(Math.log2(scale / Math.sqrt(rows)));
    const coarse = (random: Random): number => (random.between(-48, 48) / 32) * size;
    const fine = (random: Random): number => Math.fround((random.normal() * scale) / Math.sqrt(rows));
    return this.#filled('matrix', name, rows * columns, this.#coarse ? coarse : fine);
  }

  /** Scales of a norm: powers of two where nothing is to be rounded. */
  gamma(name: string, size: number): Float64Array {
    const coarse = (random: Random): number => random.pick([0.5, 1, 2]);
    return this.#filled('gamma', name, size, this.#coarse ? coarse : (random) => Math.fround(1 + random.normal() / 4));
  }

  /** Shifts and biases. */
  shift(name: string, size: number): Float64Array {
    const coarse = (random: Random): number => random.between(-8, 8) / 16;
    return this.#filled('shift', name, size, this.#coarse ? coarse : (random) => Math.fround(random.normal() / 4));
  }

  scalar(name: string): number {
    return this.#random(name).pick([0.5, 0.75, 1.25, 1.5]);
  }

  quantised(name: string, rows: number, columns: number, format: Exclude<Format, { kind: 'dense' }>): Quantised {
    const key = `${name} ${rows} ${columns}`;
    const make = (): Quantised =>
      format.kind === 'blocks'
        ? this.#blocks(name, rows, columns, format)
        : this.#integers(name, rows, columns, format);
    const made = this.#stored.get(key) ?? make();
    this.#stored.set(key, made);
    return made;
  }

  #blocks(name: string, rows: number, columns: number, { bits, block, zeros }: Format & { kind: 'blocks' }): Quantised {
    const random = this.#random(name);
    const count = Math.ceil(rows / block);
    const [most, middle] = [2 ** bits - 1, 2 ** (bits - 1)];
    const unit = 2 ** Math.round(Math.log2(2 / (middle * Math.sqrt(rows))));
    const levels = Int32Array.from({ length: columns * count * block }, () => random.between(0, most));
    const one = (): number =>
      this.#coarse ? random.pick([0.5, 1, 1.5]) * unit : Math.fround((0.5 + random.below(1000) / 1000) * unit);
    const scales = Float64Array.from({ length: columns * count }, one);
    const zero = (): number => (zeros === 'packed' ? random.between(0, most) : middle + random.between(-4, 4) / 2);
    const points = zeros === 'none' ? null : Float64Array.from({ length: columns * count }, zero);
    const dense = new Float64Array(rows * columns);
    for (let n = 0; n < columns; n++) {
      for (let k = 0; k < rows; k++) {
        const at = n * count + Math.floor(k / block);
        const level = levels[n * count * block + k] as number;
        dense[k * columns + n] = (level - (points ? (points[at] as number) : middle)) * (scales[at] as number);
      }
    }
    return { levels, scales, zeros: points, dense };
  }

  #integers(
    name: string,
    rows: number,
    columns: number,
    { scales: way, zeros }: Format & { kind: 'integers' },
  ): Quantised {
    const random = this.#random(name);
    const unit = 2 ** Math.round(Math.log2(1 / (64 * Math.sqrt(rows))));
    const blocks = Math.ceil(rows / 16);
    const count = way === 'tensor' ? 1 : way === 'column' ? columns : blocks * columns;
    const levels = Int32Array.from({ length: rows * columns }, () => random.between(-100, 100));
    const scales = Float64Array.from({ length: count }, () => random.pick([0.5, 1, 1.5]) * unit);
    const points = zeros ? Float64Array.from({ length: count }, () => random.between(-20, 20)) : null;
    const dense = Float64Array.from(levels, (level, i) => {
      const [k, n] = [Math.floor(i / columns), i % columns];
      const at = way === 'tensor' ? 0 : way === 'column' ? n : Math.floor(k / 16) * columns + n;
      return (level - (points ? (points[at] as number) : 0)) * (scales[at] as number);
    });
    return { levels, scales, zeros: points, dense };
  }
}
