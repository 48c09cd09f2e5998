/**
 * What was done, as data. A pass declares what kind of facts it has and how a person reads them; the manager collects the
 * facts under the id of the pass, and neither it nor a report looks into them. Whoever needs the facts of a certain pass
 * (a config file that must fit, say) imports that pass and asks `factsOf`.
 */
import { printLayers } from './options.js';
import type { Pass, Remark } from './pass.js';

/** A kind of facts. A fact is plain JSON: objects, arrays, texts, finite numbers, booleans and null. */
export interface FactSpec<F> {
  /** Lines for a person about everything that one run of the pass did; also asked when it did nothing. */
  describe(facts: readonly F[]): readonly string[];
  /** Labels of the layers that a fact settles: what passes before said about leaving them as they are is no longer true. */
  settles?(fact: F): readonly string[];
  /** What of a fact must be alike in both branches of a merged decoder: all of it by default. */
  comparable?(fact: F): unknown;
}

/** Declares the facts of a pass, as the `facts` of its record. */
export function factsAs<F>(spec: FactSpec<F>): FactSpec<F> {
  return spec;
}

/** Facts by the id of the pass that stated them: a part of what `runPipeline` returns and of every report. */
export type FactsByPass = Readonly<Record<string, readonly unknown[]>>;

/** What `pass` did, according to a result or a report. */
export function factsOf<S, F>(result: { readonly facts: FactsByPass }, pass: Pass<S, F>): readonly F[] {
  return (result.facts[pass.id] ?? []) as readonly F[];
}

/** True for what JSON gives back as it was. */
export function isPlainJson(value: unknown): boolean {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return true;
  if (typeof value === 'number') return Number.isFinite(value);
  if (Array.isArray(value)) return value.every(isPlainJson);
  if (typeof value !== 'object') return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return (prototype === Object.prototype || prototype === null) && Object.values(value).every(isPlainJson);
}

/** One run of a pass. */
interface Run {
  readonly pass: Pass;
  readonly facts: readonly unknown[];
  readonly statistics: Readonly<Record<string, number>>;
  readonly remarks: readonly Remark[];
}

/** What a run did, for a person: as the pass describes it, else its remarks and statistics. */
export function linesOf({ pass, facts, statistics, remarks }: Run): readonly string[] {
  if (pass.facts) return pass.facts.describe(facts);
  const passed = byMessage(remarks.filter(({ kind }) => kind === 'passed'));
  const counts = Object.entries(statistics).filter(([, count]) => count > 0);
  const totals = counts.map(([name, count]) => `${pass.statistics[name]}: ${count}`).join(', ');
  return [...passed, ...(totals ? [totals] : [])].map((line) => `${pass.id}: ${line}`);
}

/** Remarks as lines; layers of which the same is said share one. */
export function byMessage(remarks: readonly Pick<Remark, 'layer' | 'message'>[]): string[] {
  const layers = new Map<string, string[]>();
  for (const { layer, message } of remarks) {
    const labels = layers.get(message) ?? [];
    layers.set(message, layer === null ? labels : [...labels, layer]);
  }
  return [...layers].map(([message, labels]) => (labels.length > 0 ? `${layersText(labels)}: ${message}` : message));
}

/** `layer 7`, `layers 0-2, 7`: labels as ranges where they follow one another. A label may stand for several, "4-9". */
export function layersText(labels: readonly string[]): string {
  const areNumbers = labels.every((label) => /^\d+$/.test(label));
  const text = areNumbers ? printLayers(labels.map(Number)).replaceAll(',', ', ') : labels.join(', ');
  return `layer${labels.length > 1 ? 's' : ''} ${text}`;
}
