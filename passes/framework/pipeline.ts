/**
 * Pipelines are text and round-trip: `remove-attention{layers=4-9},parallelize-ffn{keep-last=1 lead=true},concat-ffn`.
 * Steps are separated by commas, options by spaces; the empty text is the empty pipeline.
 */
import { errors, reasonOf } from '../../ir/diagnostic.js';
import { suggestion } from './nearest.js';
import type { OptionSpec, OptionValues, Pass } from './pass.js';

/** A pass and the options that it was given. */
export interface Step {
  readonly pass: Pass;
  /** Only options that were given, in the order in which they are printed. */
  readonly options: Readonly<Record<string, unknown>>;
}

type AnySpec = OptionSpec<unknown>;

/**
 * A step made from data: `step(removeAttention, { layers: [4, 5] })`. Options that are undefined were not given.
 * @throws Diagnostic OF_USAGE for a value that the option does not take.
 */
export function step<S>(
  pass: Pass<S>,
  options: { readonly [K in keyof S]?: OptionValues<S>[K] | undefined } = {},
): Step {
  const plain = pass as unknown as Pass;
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return {
    pass: plain,
    options: Object.fromEntries(
      given.map(([name, value]) => [name, optionValue(plain, name, (spec) => spec.check?.(value) ?? value)]),
    ),
  };
}

/** Parses pipeline text against a registry. Throws OF_USAGE with the place on anything wrong. */
export function parsePipeline(text: string, registry: ReadonlyMap<string, Pass>): Step[] {
  const steps: Step[] = [];
  const pattern = /\s*([a-z0-9-]+)\s*(?:\{([^{}]*)\})?\s*(,|$)/y;
  if (text.trim() === '') return steps;
  for (;;) {
    const at = pattern.lastIndex;
    const match = pattern.exec(text);
    if (!match) {
      const rest = text.slice(at, at + 30);
      throw errors.usage('pipeline', `expected a pass at '${rest}'`, 'write pass{option=value},pass,...');
    }
    steps.push(parseStep(match[1] as string, match[2] ?? '', registry));
    if (match[3] === '') return steps;
  }
}

function parseStep(id: string, body: string, registry: ReadonlyMap<string, Pass>): Step {
  const pass = registry.get(id);
  if (!pass) throw errors.usage('pipeline', `no pass is called '${id}'`, suggestion(id, [...registry.keys()]));
  const options: Record<string, unknown> = {};
  for (const word of body.split(/\s+/).filter(Boolean)) {
    const equals = word.indexOf('=');
    const name = equals < 0 ? word : word.slice(0, equals);
    options[name] = parseOption(pass, name, equals < 0 ? 'true' : word.slice(equals + 1));
  }
  return { pass, options };
}

/** Parses one option of a pass. Throws OF_USAGE. */
export function parseOption(pass: Pass, name: string, text: string): unknown {
  return optionValue(pass, name, (spec) => spec.parse(text));
}

/** What `read` makes of an option; what it throws is about the user's value. */
function optionValue(pass: Pass, name: string, read: (spec: AnySpec) => unknown): unknown {
  const specs = pass.options as unknown as Readonly<Record<string, AnySpec>>;
  const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
  if (!spec) {
    throw errors.usage(`pass ${pass.id}`, `it has no option '${name}'`, suggestion(name, Object.keys(specs)));
  }
  try {
    return read(spec);
  } catch (error) {
    throw errors.usage(`pass ${pass.id}, option '${name}'`, reasonOf(error), spec.help);
  }
}

/** The text of a pipeline; `parsePipeline` of it gives the same steps. */
export function printPipeline(steps: readonly Step[]): string {
  return steps
    .map(({ pass, options }) => {
      const specs = pass.options as unknown as Readonly<Record<string, AnySpec>>;
      const words = Object.entries(options).map(([name, value]) => `${name}=${specs[name]?.print(value)}`);
      return words.length > 0 ? `${pass.id}{${words.join(' ')}}` : pass.id;
    })
    .join(',');
}

/** The options a step runs with: given ones over the defaults. */
export function optionsOf(step: Step): Record<string, unknown> {
  const specs = step.pass.options as unknown as Readonly<Record<string, AnySpec>>;
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(specs)) values[name] = step.options[name] ?? spec.fallback;
  return values;
}
