/** Measurements of a plan in the making, kept in a file, so that an interrupted run does not make them again. */
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { resumable } from '../../ir/disk/temporaries.js';
import { apiErrors } from '../basics/errors.js';
import { jsonOf, readJson, replaceFile } from '../basics/small-file.js';

/** Changes with what is kept: what another version kept is measured again. Version 1 kept Infinity as null. */
const FORMAT = 2;

/** Measurements of a plan that was not finished, so that the next run does not repeat them. */
export class PlanProgress {
  readonly #key: string;
  #known: Record<string, unknown> = {};

  /** What was measured under the same `circumstances` is in the file; anything else in it is forgotten. */
  constructor(
    readonly path: string,
    circumstances: object,
  ) {
    this.#key = createHash('sha256')
      .update(JSON.stringify([FORMAT, circumstances]))
      .digest('hex');
    try {
      const found = readJson(path, (place, why) => apiErrors.plan(place, why, '')) as {
        key?: string;
        known?: Record<string, unknown>;
      };
      if (found.key === this.#key && found.known) this.#known = found.known;
    } catch {
      // There is none, or it is broken: everything is measured anew.
    }
  }

  /** How many measurements are known. */
  get size(): number {
    return Object.keys(this.#known).length;
  }

  /** What was measured under this name, or what `measure` gives, which is kept. Throws OF_WRITE. */
  async once<T>(name: string, measure: () => Promise<T>): Promise<T> {
    if (Object.hasOwn(this.#known, name)) return this.#known[name] as T;
    const made = await measure();
    this.#known[name] = made;
    replaceFile(this.path, jsonOf({ key: this.#key, known: this.#known }));
    resumable.add(this.path);
    return made;
  }

  /** The plan is made: the file goes. */
  remove(): void {
    rmSync(this.path, { force: true });
    resumable.delete(this.path);
  }
}
