/** Sessions that are opened when they are first needed, and released together. */
import { type ModelLocation, openSession, type Session, type SessionOptions } from './session.js';

export class Sessions {
  readonly #open = new Map<string, Promise<Session>>();

  constructor(readonly options: SessionOptions = {}) {}

  /** The session of this name; `make` gives its model the first time. @throws Diagnostic OF_RUNTIME, OF_NO_RUNTIME. */
  get(name: string, make: () => ModelLocation): Promise<Session> {
    let session = this.#open.get(name);
    if (!session) {
      session = openSession(make(), this.options);
      this.#open.set(name, session);
    }
    return session;
  }

  async release(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const session of open) await (await session.catch(() => null))?.release();
  }
}
