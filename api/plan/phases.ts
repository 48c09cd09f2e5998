/** The phases of one long piece of work, shown as one: how much of all is done, and what is left. */
import type { Talk } from '../basics/progress.js';

/** Parts of the whole are shown in this many steps. */
const STEPS = 1000;

export class Phases {
  readonly #total: number;

  /** `planned`: the phases in order, with what each is expected to take, in any unit. */
  constructor(
    readonly talk: Talk,
    /** What all of it is called. */
    readonly title: string,
    readonly planned: Readonly<Record<string, number>>,
  ) {
    this.#total = Math.max(
      1,
      Object.values(planned).reduce((sum, each) => sum + each, 0),
    );
  }

  /** This share of `phase` is done, and all of those before it. */
  at(phase: string, share: number, detail = ''): void {
    let before = 0;
    for (const [name, expected] of Object.entries(this.planned)) {
      if (name === phase) {
        const done = (before + expected * Math.min(1, share)) / this.#total;
        this.talk.progress(
          this.title,
          Math.round(STEPS * done),
          STEPS,
          undefined,
          detail ? `${phase}, ${detail}` : phase,
        );
        return;
      }
      before += expected;
    }
  }

  done(): void {
    this.talk.done();
  }
}
