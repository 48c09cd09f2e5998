/**
 * What happens when a layer that was asked for has nothing to remove, or nothing that can go: an error, one for all such
 * layers, or, where going on was asked for, a remark about each.
 */
import { Diagnostic } from '../../ir/diagnostic.js';
import { passErrors } from '../analysis/errors.js';
import { choiceOption, flagOption } from './options.js';
import type { PassContext } from './pass.js';

/** Options of passes that are told layers by number. */
export const ASKED_OPTIONS = {
  'keep-going': flagOption('say what cannot be done for a layer, and go on with the rest'),
  absent: choiceOption(
    'what has gone already, of a list that was made for the whole model',
    ['refuse', 'skip'],
    'refuse',
  ),
} as const;

export interface AskedOptions {
  readonly 'keep-going': boolean;
  readonly absent: 'refuse' | 'skip';
}

/** The reason why a part cannot be removed that was never there, or has gone already. */
export const ABSENT = 'it has none';

export class AskedLayers {
  constructor(
    readonly options: AskedOptions,
    readonly part: 'attention' | 'FFN',
    readonly refused: PassContext<unknown>['refused'],
  ) {}

  /**
   * The layers among `indices` that have the part. `find` says why one has not, or null, or throws OF_NO_SUCH_LAYER.
   * Throws that or OF_CANNOT_REMOVE.
   */
  check(indices: readonly number[], find: (index: number) => string | null): number[] {
    const present: number[] = [];
    const lacking: { index: number; reason: string }[] = [];
    for (const index of indices) {
      try {
        const absent = find(index);
        if (absent === null) present.push(index);
        else if (absent === ABSENT && this.options.absent === 'skip')
          this.refused(`its ${this.part} is not removed: ${absent}`, index);
        else lacking.push({ index, reason: absent });
      } catch (error) {
        if (!(error instanceof Diagnostic)) throw error;
        if (this.options.absent === 'skip') this.refused(error.text, index);
        else if (this.options['keep-going']) this.refused(error.text, index);
        else throw error;
      }
    }
    this.refuse(lacking);
    return present;
  }

  /** Says why layers are left, or throws OF_CANNOT_REMOVE, which names them all. Nothing for none. */
  refuse(layers: readonly { readonly index: number; readonly reason: string }[]): void {
    const [first, ...others] = layers;
    if (!first) return;
    if (!this.options['keep-going']) {
      const numbers = others.map(({ index }) => index);
      throw passErrors.cannotRemove(first.index, this.part, first.reason, numbers);
    }
    for (const { index, reason } of layers) this.refused(`its ${this.part} cannot be removed: ${reason}`, index);
  }
}

/** True when `check` throws nothing. What it throws is the reason that `refused` is told, with `keepGoing`, or an error. */
export function isPossible(check: () => unknown, keepGoing: boolean, refused: (reason: string) => void): boolean {
  try {
    check();
    return true;
  } catch (error) {
    if (!keepGoing || !(error instanceof Diagnostic)) throw error;
    refused(error.place ? `${error.place}: ${error.text}` : error.text);
    return false;
  }
}
