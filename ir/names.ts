/** The one place that hands out names: nothing is ever overwritten, in no graph of the model. */
export class Names {
  readonly #taken = new Set<string>();

  claim(name: string): void {
    this.#taken.add(name);
  }

  has(name: string): boolean {
    return this.#taken.has(name);
  }

  /** `base` when it is free, else `base_1`, `base_2`, ...; the result is claimed. */
  fresh(base: string): string {
    let name = base;
    for (let i = 1; this.#taken.has(name); i++) name = `${base}_${i}`;
    this.#taken.add(name);
    return name;
  }
}
