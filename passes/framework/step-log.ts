/** What one run of a pass on one graph says: facts, remarks and counts, in the order in which they came. */
import { isPlainJson } from './facts.js';
import type { Pass, Remark } from './pass.js';

export class StepLog {
  readonly remarks: Remark[] = [];
  readonly facts: unknown[] = [];
  readonly statistics: Record<string, number> = {};
  /** Remarks about what is left, and the layers that facts settle, in order. */
  readonly #words: (Remark | { readonly settled: readonly string[] })[] = [];

  constructor(readonly pass: Pass) {
    for (const name of Object.keys(pass.statistics)) this.statistics[name] = 0;
  }

  remark(kind: Remark['kind'], message: string, layer?: string | number): void {
    const label = layer === undefined ? null : String(layer);
    const remark: Remark = { kind, pass: this.pass.id, layer: label, message };
    this.remarks.push(remark);
    if (kind === 'missed') this.#words.push(remark);
  }

  count(name: string, by: number): void {
    const count = this.statistics[name];
    if (count === undefined) throw new RangeError(`pass ${this.pass.id} declares no statistic '${name}'`);
    this.statistics[name] = count + by;
  }

  fact(fact: unknown): void {
    const { id, facts } = this.pass;
    if (!facts) throw new RangeError(`pass ${id} declares no facts`);
    if (!isPlainJson(fact)) throw new RangeError(`pass ${id} states a fact that JSON cannot hold`);
    this.facts.push(fact);
    if (facts.settles) this.#words.push({ settled: facts.settles(fact) });
  }

  /** The facts as a text that is the same for decoders to which the same was done. */
  comparable(): string {
    const { facts } = this.pass;
    return JSON.stringify(this.facts.map((fact) => (facts?.comparable ? facts.comparable(fact) : fact)));
  }

  /** Brings reasons why something is left up to date: the last word on a layer counts, and of no layer every one. */
  settle(left: Map<string, Remark>): void {
    for (const word of this.#words) {
      if ('settled' in word) for (const label of word.settled) left.delete(label);
      else left.set(word.layer ?? `${word.pass}: ${word.message}`, word);
    }
  }
}
