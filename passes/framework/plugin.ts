/**
 * Passes that users bring. They are checked before they are believed, and wrapped, so that what they throw is reported
 * as theirs. What they do to the graph is checked by the manager like everything else.
 */
import { Diagnostic } from '../../ir/diagnostic.js';
import { passErrors } from '../analysis/errors.js';
import { EFFECTS } from './effect.js';
import type { FactSpec } from './facts.js';
import type { Effect, OptionSpec, Pass } from './pass.js';

/** Any pass, whatever its options: what `definePass` returns. */
export interface AnyPass {
  readonly id: string;
  readonly summary: string;
  readonly effect: Effect;
  readonly scope?: 'decoder';
  readonly isPreparation?: boolean;
  readonly isAuxiliary?: boolean;
  readonly options: object;
  readonly statistics: Readonly<Record<string, string>>;
  readonly facts?: object;
  run(context: never): void;
}

/** What a pipeline can say. */
const NAME = /^[a-z][a-z0-9-]*$/;

/**
 * The registry `base` and these passes. `place` is where they come from, for messages.
 * @throws Diagnostic OF_PLUGIN for a record that is no pass, or an id that is taken.
 */
export function extendRegistry(
  base: ReadonlyMap<string, Pass>,
  passes: readonly unknown[],
  place: string,
): ReadonlyMap<string, Pass> {
  const all = new Map(base);
  for (const [index, value] of passes.entries()) {
    const pass = checkedPass(value, index, place);
    if (all.has(pass.id)) {
      throw passErrors.plugin(place, `a pass called '${pass.id}' exists already`, 'give the pass another id');
    }
    all.set(pass.id, guarded(pass));
  }
  return all;
}

function checkedPass(value: unknown, index: number, place: string): Pass {
  const fail = (where: string, why: string): never => {
    throw passErrors.plugin([place, where].filter(Boolean).join(', '), why, 'see definePass of onnx-fuse/passes');
  };
  if (!isRecord(value)) return fail(`passes[${index}]`, `expected what definePass returns, found ${kindOf(value)}`);
  const { id, summary, effect, scope, isPreparation, isAuxiliary, options, statistics, facts, run } = value;
  if (typeof id !== 'string' || !NAME.test(id)) {
    const found = typeof id === 'string' ? `'${id}'` : kindOf(id);
    return fail(`passes[${index}]`, `expected an id in lower case with hyphens, found ${found}`);
  }
  const where = `pass ${id}`;
  if (typeof summary !== 'string' || summary.trim() === '' || summary.includes('\n')) {
    fail(where, 'expected a summary of one line');
  }
  checkEffect(effect, where, fail);
  if (scope !== undefined && scope !== 'decoder') {
    fail(where, `expected a scope of decoder, or none, found ${JSON.stringify(scope)}`);
  }
  for (const [name, flag] of Object.entries({ isPreparation, isAuxiliary })) {
    if (flag !== undefined && typeof flag !== 'boolean') {
      fail(where, `expected ${name} to be true or false, found ${kindOf(flag)}`);
    }
  }
  // The reference of the algebra check runs preparations too, so that it would not see what else they do.
  if (isPreparation && effect !== 'exact') fail(where, `a preparation is exact, found ${effect}`);
  if (typeof run !== 'function') fail(where, `expected run to be a function, found ${kindOf(run)}`);
  if (!isRecord(options)) fail(where, `expected options to be a record, {} for none, found ${kindOf(options)}`);
  for (const [name, spec] of Object.entries(options as object)) checkOption(name, spec, where, fail);
  if (!isRecord(statistics)) {
    fail(where, `expected statistics to be a record, {} for none, found ${kindOf(statistics)}`);
  }
  for (const [name, counts] of Object.entries(statistics as object)) {
    if (typeof counts !== 'string') fail(where, `expected statistic '${name}' to say in words what it counts`);
  }
  if (facts !== undefined) checkFacts(facts, where, fail);
  return value as unknown as Pass;
}

type Fail = (place: string, why: string) => never;

function checkEffect(effect: unknown, place: string, fail: Fail): void {
  if (EFFECTS.some((each) => each === effect)) return;
  fail(place, `expected an effect of ${EFFECTS.join(', ')}, found ${JSON.stringify(effect)}`);
}

function checkFacts(facts: unknown, place: string, fail: Fail): void {
  if (!isRecord(facts)) fail(place, `expected facts to be what factsAs returns, found ${kindOf(facts)}`);
  const spec = facts as Readonly<Record<string, unknown>>;
  if (typeof spec['describe'] !== 'function') fail(`${place}, facts`, 'expected describe to be a function');
  for (const part of ['settles', 'comparable']) {
    if (spec[part] !== undefined && typeof spec[part] !== 'function') {
      fail(`${place}, facts`, `expected ${part} to be a function, or to be left out`);
    }
  }
}

function checkOption(name: string, value: unknown, place: string, fail: Fail): void {
  const where = `${place}, option ${name}`;
  if (!NAME.test(name)) fail(where, 'expected a name in lower case with hyphens');
  if (!isRecord(value)) fail(where, `expected what integerOption and the like return, found ${kindOf(value)}`);
  const spec = value as Readonly<Record<string, unknown>>;
  if (typeof spec['help'] !== 'string') fail(where, 'expected help to be a text');
  if (!('fallback' in spec)) fail(where, 'expected a fallback');
  for (const part of ['parse', 'print']) {
    if (typeof spec[part] !== 'function') fail(where, `expected ${part} to be a function`);
  }
  if (spec['effect'] !== undefined) checkEffect(spec['effect'], where, fail);
}

/** The same pass, with everything it throws named as its own. */
function guarded(pass: Pass): Pass {
  const options: Record<string, OptionSpec<unknown>> = {};
  for (const [name, spec] of Object.entries(pass.options as Readonly<Record<string, OptionSpec<unknown>>>)) {
    // What parse throws is about the user's text, and the pipeline reports it so.
    options[name] = {
      help: spec.help,
      fallback: spec.fallback,
      ...(spec.effect ? { effect: spec.effect } : {}),
      parse: (text) => spec.parse(text),
      print: (value) => blame(pass, () => spec.print(value)),
      ...(spec.check ? { check: (value: unknown) => spec.check?.(value) } : {}),
    };
  }
  const { id, summary, effect, statistics, scope, isPreparation, isAuxiliary } = pass;
  const run: Pass['run'] = (context) => {
    const result: unknown = blame(pass, () => pass.run(context));
    if (!isRecord(result) || typeof result['then'] !== 'function') return;
    Promise.resolve(result as unknown as PromiseLike<unknown>).catch(() => {});
    throw passErrors.pluginFailed(id, new Error('a promise, but passes are synchronous'));
  };
  return {
    id,
    summary,
    effect,
    ...(scope ? { scope } : {}),
    ...(isPreparation ? { isPreparation } : {}),
    ...(isAuxiliary ? { isAuxiliary } : {}),
    options: options as unknown as Pass['options'],
    statistics,
    ...(pass.facts ? { facts: guardedFacts(pass, pass.facts) } : {}),
    run,
  };
}

/** The same facts; what they are said to be must be texts, because they are printed. */
function guardedFacts(pass: Pass, facts: FactSpec<unknown>): FactSpec<unknown> {
  const texts = (part: string, given: unknown): readonly string[] => {
    if (Array.isArray(given) && given.every((each) => typeof each === 'string')) return given;
    throw passErrors.pluginFailed(pass.id, new Error(`${part} gave ${kindOf(given)}, but it gives an array of texts`));
  };
  const { settles, comparable } = facts;
  return {
    describe: (all) =>
      texts(
        'describe',
        blame(pass, () => facts.describe(all)),
      ),
    ...(settles
      ? {
          settles: (fact) =>
            texts(
              'settles',
              blame(pass, () => settles(fact)),
            ),
        }
      : {}),
    ...(comparable ? { comparable: (fact) => blame(pass, () => comparable(fact)) } : {}),
  };
}

function blame<T>(pass: Pass, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof Diagnostic) throw error;
    throw passErrors.pluginFailed(pass.id, error);
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`.replace('a object', 'an object');
}
