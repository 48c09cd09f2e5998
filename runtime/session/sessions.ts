/** Sessions that are opened when they are first needed, and released together, or earlier where memory has no room for all of them. */
import { runtimeErrors } from './errors.js';
import { availableMemory, OVERHEAD } from './memory.js';
import { type ModelLocation, openSession, placeOf, type Session, type SessionOptions } from './session.js';

/** A model, and the bytes of its weights; without them no room is made for it. */
export type SizedLocation = ModelLocation & { readonly weightBytes?: number };

interface Entry {
  readonly session: Promise<Session>;
  users: number;
}

export class Sessions {
  /** In the order in which they were used last. */
  readonly #open = new Map<string, Entry>();

  /** `memory`: the bytes that can be had. */
  constructor(
    readonly options: SessionOptions = {},
    readonly memory: () => number = availableMemory,
  ) {}

  /**
   * What `body` makes of the session of this name; `make` gives its model when it is not open.
   * @throws Diagnostic OF_RUNTIME, OF_NO_RUNTIME, OF_MEMORY.
   */
  async use<T>(name: string, make: () => SizedLocation, body: (session: Session) => Promise<T>): Promise<T> {
    const entry = this.#open.get(name) ?? { session: this.#openOne(make()), users: 0 };
    this.#open.delete(name);
    this.#open.set(name, entry);
    entry.users++;
    try {
      return await body(await entry.session);
    } finally {
      entry.users--;
    }
  }

  async #openOne(model: SizedLocation): Promise<Session> {
    const { weightBytes = 0 } = model;
    if (weightBytes > 0) {
      // onnxruntime lays weights out anew beside those that it reads.
      const need = 2 * weightBytes + OVERHEAD;
      for (const [name, entry] of this.#open) {
        if (this.memory() >= need) break;
        if (entry.users > 0) continue;
        this.#open.delete(name);
        await released(entry);
      }
      const have = this.memory();
      if (have < weightBytes) throw runtimeErrors.memory(placeOf(model), need, have);
    }
    return openSession(model, this.options);
  }

  async release(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const entry of open) await released(entry);
  }
}

/** One that did not open has nothing to release. */
async function released({ session }: Entry): Promise<void> {
  await (await session.catch(() => null))?.release();
}
