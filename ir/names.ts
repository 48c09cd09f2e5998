/** The one place that hands out names: nothing is ever overwritten, in no graph of the model. */
export class Names {
  readonly #taken = new Set<string>();
  /** The first suffix that may still be free, by base: names are never given back. */
  readonly #next = new Map<string, number>();

  claim(name: string): void {
    this.#taken.add(name);
  }

  has(name: string): boolean {
    return this.#taken.has(name);
  }

  /** `base` when it is free, else `base_1`, `base_2`, ...; the result is claimed. */
  fresh(base: string): string {
    let name = base;
    if (this.#taken.has(base)) {
      let i = this.#next.get(base) ?? 1;
      for (name = `${base}_${i}`; this.#taken.has(name); name = `${base}_${i}`) i++;
      this.#next.set(base, i + 1);
    }
    this.#taken.add(name);
    return name;
  }
}

/** The long name of the default domain: files may spell it so, the core never does. */
export const LONG_DEFAULT_DOMAIN = 'ai.onnx';

/** A domain by the one name that the core has for it: the default domain is ''. */
export function canonicalDomain(domain: string): string {
  return domain === LONG_DEFAULT_DOMAIN ? '' : domain;
}
