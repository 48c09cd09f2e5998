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
