/** Seeded choices: the same seed makes the same case on every machine. */
import { mix, normal } from '../../runtime/run/random.js';

export class Random {
  #count = 0;
  constructor(readonly seed: number) {}

  /** 32 random bits. */
  bits(): number {
    return mix(this.seed, this.#count++);
  }
  /** An integer in [0, count). */
  below(count: number): number {
    return Math.floor((this.bits() / 2 ** 32) * count);
  }
  /** An integer in [least, most]. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }
  chance(probability: number): boolean {
    return this.bits() / 2 ** 32 < probability;
  }
  /** One of the values; throws when there is none. */
  pick<T>(values: readonly T[]): T {
    if (values.length === 0) throw new RangeError('nothing to pick from');
    return values[this.below(values.length)] as T;
  }
  /** One of the values by weight. */
  weighted<T>(choices: readonly (readonly [value: T, weight: number])[]): T {
    let at = this.below(choices.reduce((sum, [, weight]) => sum + weight, 0));
    for (const [value, weight] of choices) {
      if (at < weight) return value;
      at -= weight;
    }
    throw new RangeError('no choice has a weight');
  }
  /** Those of the values that chance takes, in their order. */
  subset<T>(values: readonly T[], probability: number): T[] {
    return values.filter(() => this.chance(probability));
  }
  /** A standard normal number. */
  normal(): number {
    return normal(this.bits(), 0);
  }
}

/** The seed of case `index` of a run. */
export function seedOf(run: number, index: number): number {
  return mix(mix(run, 0x5eed), index);
}
