/** Arguments by a specification, which yargs reads and explains. */
import yargs, { type Argv, type Options } from 'yargs';
import { errors } from '../../ir/diagnostic.js';
import { nearest } from '../../passes/framework/nearest.js';
import { type ArgumentsOf, type CommandSpec, type FlagSpec, usageOf } from './spec.js';

/** What every command understands. */
export const COMMON_FLAGS: Readonly<Record<string, FlagSpec>> = {
  help: { type: 'boolean', alias: 'h', group: 'General', describe: 'Show help' },
  version: { type: 'boolean', alias: 'v', group: 'General', describe: 'Print the version' },
  config: {
    type: 'string',
    group: 'General',
    describe: 'Read flags from this file (.json, .mjs); those that are given here win',
  },
};

/**
 * Reads arguments. A flag that is given twice means its last value, unless it repeats. `configured` is what a config file
 * says, which holds where the arguments say nothing. Throws OF_USAGE.
 */
export function parseArguments<S extends CommandSpec>(
  spec: S,
  argv: readonly string[],
  configured: Readonly<Record<string, unknown>> = {},
): ArgumentsOf<S> {
  const see = `see onnx-fuse ${spec.name === '' ? '' : `${spec.name} `}--help`;
  const {
    $0,
    _: words,
    ...given
  } = parserOf(withoutFallbacks(spec), withFiles(spec, argv), readOption)
    .fail((message, error) => {
      // A YError is about the arguments, like a message without an error.
      if (error && error.name !== 'YError') throw error;
      throw usageError(message ?? error?.message ?? '', spec, see);
    })
    .parseSync();
  if (words[0] !== undefined) {
    // Perhaps it was to be the file of the flag before it.
    const flag = argv[argv.indexOf(String(words[0])) - 1]?.replace(/^--/, '') ?? '';
    const ending = spec.flags[flag]?.takesFile;
    const remedy = ending === undefined ? see : `a file of --${flag} has a name that ends in ${ending}`;
    throw errors.usage('', `'${words[0]}' is one word too many`, remedy);
  }
  const values: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    if (spec.words.some((word) => word.name === name)) values[name] = value;
    else values[name] = checked(name, value, spec, see);
  }
  return complete(spec, { ...configured, ...values });
}

/** Values with the fallbacks of those that are missing. Throws OF_USAGE where one has no effect without another. */
export function complete<S extends CommandSpec>(spec: S, given: Readonly<Record<string, unknown>>): ArgumentsOf<S> {
  const values = { ...given };
  for (const [name, { fallback, needs }] of Object.entries(spec.flags)) {
    if (needs !== undefined && values[name] !== undefined && values[needs] === undefined)
      throw errors.usage(`--${name}`, `it has no effect without --${needs}`, `add --${needs}, or leave it out`);
    if (values[name] === undefined && fallback !== undefined) values[name] = fallback;
  }
  const { needsOneOf: needed } = spec;
  if (needed?.flags.every((name) => values[name] === undefined))
    throw errors.usage(`--${needed.flags[0]}`, needed.why, needed.remedy);
  return values as ArgumentsOf<S>;
}

/** What is not given must be told from what a config file says. */
function withoutFallbacks(spec: CommandSpec): CommandSpec {
  const flags = Object.entries(spec.flags).map(([name, { fallback: _, ...flag }]) => [name, flag]);
  return { ...spec, flags: Object.fromEntries(flags) };
}

/** What yargs finds wrong, in our words where they say more. */
function usageError(message: string, { words }: CommandSpec, see: string): Error {
  const bare = /^Not enough arguments following: (.+)$/.exec(message)?.[1];
  if (bare !== undefined) return errors.usage(placeOf(bare), 'its value is missing', see);
  const found = /^Not enough non-option arguments: got (\d+)/.exec(message)?.[1];
  const missing = words[Number(found)];
  if (missing) {
    const { name, describe } = missing;
    return errors.usage(`<${name}>`, `it is missing: ${describe.charAt(0).toLowerCase()}${describe.slice(1)}`, see);
  }
  return errors.usage('', message.replace(/\s*\n\s*/g, ' '), see);
}

/** `--json` alone is `--json=-`: what follows is its value only where it is a file of that kind. */
function withFiles({ flags }: CommandSpec, argv: readonly string[]): string[] {
  return argv.map((word, i) => {
    const ending = word.startsWith('--') ? flags[word.slice(2)]?.takesFile : undefined;
    const next = argv[i + 1];
    return ending === undefined || next === '-' || next?.endsWith(ending) ? word : `${word}=-`;
  });
}

function placeOf(name: string): string {
  return `${name.length > 1 ? '--' : '-'}${name}`;
}

/** The value of a flag. Throws OF_USAGE for one that there is not, with the one that was perhaps meant. */
function checked(name: string, value: unknown, { flags }: CommandSpec, see: string): unknown {
  const known = { ...COMMON_FLAGS, ...flags };
  const flag = Object.hasOwn(known, name) ? known[name] : undefined;
  if (!flag) {
    if (Object.values({ ...flags, ...COMMON_FLAGS }).some(({ alias }) => alias === name)) return value;
    const no = value === false ? 'no-' : '';
    const meant = name.length > 1 ? nearest(name, Object.keys({ ...flags, ...COMMON_FLAGS })) : null;
    throw errors.usage(
      placeOf(no + name),
      'there is no such flag',
      meant === null ? see : `did you mean --${no}${meant}?`,
    );
  }
  const last = Array.isArray(value) && !flag.repeats ? value.at(-1) : value;
  if (typeof last !== 'string') return last;
  const { type, choices } = flag;
  if (choices && !choices.includes(last)) {
    const meant = nearest(last, choices);
    const why = `expected ${choices.join(', ').replace(/, ([^,]*)$/, ' or $1')}, found '${last}'`;
    throw errors.usage(placeOf(name), why, meant === null ? 'choose one of them' : `did you mean ${meant}?`);
  }
  return type === 'number' ? numberOf(name, last) : last;
}

function numberOf(name: string, text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isFinite(value)) return value;
  throw errors.usage(placeOf(name), `expected a number, found '${text}'`, 'write a number');
}

/** How usage names a command: `inspect <model>`. */
export function usageLine({ name, words }: CommandSpec): string {
  return [name === '' ? '$0' : name, ...words.map(usageOf)].join(' ');
}

/** yargs for a command, whose flags are told as `optionOf` does. */
export function parserOf(spec: CommandSpec, argv: readonly string[], optionOf: (flag: FlagSpec) => Options): Argv {
  const { name, summary, words, flags } = spec;
  const isMain = name === '';
  return (
    yargs([...argv])
      .scriptName(isMain ? 'onnx-fuse' : `onnx-fuse ${name}`)
      .locale('en')
      .parserConfiguration({
        'greedy-arrays': false,
        'camel-case-expansion': false,
        'parse-positional-numbers': false,
        'boolean-negation': true,
      })
      // Headings come in the order in which they are first named.
      .group([], 'Positionals:')
      .help(false)
      .version(false)
      .exitProcess(false)
      .command(['$0', ...words.map(usageOf)].join(' '), isMain ? summary : (false as unknown as string), (command) => {
        for (const word of words) command.positional(word.name, { type: 'string', describe: word.describe });
        return command;
      })
      .options(
        Object.fromEntries(Object.entries({ ...flags, ...COMMON_FLAGS }).map(([each, flag]) => [each, optionOf(flag)])),
      )
  );
}

/** A flag as it is read: numbers and choices as they were written, so that an error can say what was found. */
function readOption({ type, fallback, alias, repeats }: FlagSpec): Options {
  return {
    type: type === 'boolean' ? 'boolean' : 'string',
    ...(type === 'boolean' ? {} : { requiresArg: true }),
    ...(fallback === undefined ? {} : { default: fallback }),
    ...(alias === undefined ? {} : { alias }),
    ...(repeats ? { array: true } : {}),
  };
}
