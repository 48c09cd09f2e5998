/** Deterministic pseudo-random numbers: the same everywhere, for the same seed and place. */

/** 32 well mixed bits of two numbers. */
export function mix(a: number, b: number): number {
  let h = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A number of text, to seed by a name. */
export function hashOf(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** Standard normal value number `index` of the stream `seed`. */
export function normal(seed: number, index: number): number {
  const radius = Math.sqrt(-2 * Math.log((mix(seed, 2 * index) + 1) / 2 ** 32));
  return radius * Math.cos((2 * Math.PI * mix(seed, 2 * index + 1)) / 2 ** 32);
}

/** `batch` rows of `count` token ids below `vocabulary`. Row b and position p depend on nothing but the seed, b and p. */
export function randomTokens(seed: number, batch: number, count: number, vocabulary: number): number[][] {
  return Array.from({ length: batch }, (_, b) =>
    Array.from({ length: count }, (_, p) => mix(mix(seed, b + 1), p) % vocabulary),
  );
}

/** The values in an order that depends on nothing but the seed. */
export function shuffled<T>(values: readonly T[], seed: number): T[] {
  const result = [...values];
  for (let i = result.length - 1; i > 0; i--) {
    const j = mix(seed, i) % (i + 1);
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}
