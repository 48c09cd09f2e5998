/** Arguments by a specification, which yargs reads and explains. */
import yargs, { type Argv, type Options } from 'yargs';
import { nearest } from '../../api/settings/nearest.js';
import { errors } from '../../ir/diagnostic.js';
import { type ArgumentsOf, type CommandSpec, type FlagSpec, usageOf } from './spec.js';

/** Help does not depend on who reads it. */
const WIDTH = 110;

/** What every command understands. */
const COMMON_FLAGS: Readonly<Record<string, FlagSpec>> = {
  help: { type: 'boolean', describe: 'Show help' },
  version: { type: 'boolean', describe: 'Print the version' },
  config: { type: 'string', describe: 'Read flags from this file (.json, .mjs); those that are given here win' },
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
  } = parserOf(withoutFallbacks(spec), withFiles(spec, argv))
    .fail((message, error) => {
      // A YError is about the arguments, like a message without an error.
      if (error && error.name !== 'YError') throw error;
      throw errors.usage('', (message ?? error?.message ?? '').replace(/\s*\n\s*/g, ' '), see);
    })
    .parseSync();
  if (words[0] !== undefined) throw errors.usage('', `'${words[0]}' is one word too many`, see);
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
  return values as ArgumentsOf<S>;
}

/** What is not given must be told from what a config file says. */
function withoutFallbacks(spec: CommandSpec): CommandSpec {
  const flags = Object.entries(spec.flags).map(([name, { fallback: _, ...flag }]) => [name, flag]);
  return { ...spec, flags: Object.fromEntries(flags) };
}

/** `--json` alone is `--json=-`: what follows is its value only where it is a file of that kind. */
function withFiles({ flags }: CommandSpec, argv: readonly string[]): string[] {
  return argv.map((word, i) => {
    const ending = word.startsWith('--') ? flags[word.slice(2)]?.takesFile : undefined;
    const next = argv[i + 1];
    return ending === undefined || next === '-' || next?.endsWith(ending) ? word : `${word}=-`;
  });
}

/** The value of a flag. Throws OF_USAGE for one that there is not, with the one that was perhaps meant. */
function checked(name: string, value: unknown, { flags }: CommandSpec, see: string): unknown {
  const known = { ...COMMON_FLAGS, ...flags };
  const flag = Object.hasOwn(known, name) ? known[name] : undefined;
  const place = `${name.length > 1 ? '--' : '-'}${name}`;
  if (!flag) {
    const aliased = Object.values(flags).some(({ alias }) => alias === name);
    if (aliased) return value;
    const meant = nearest(name, Object.keys(flags));
    throw errors.usage(place, 'there is no such flag', meant === null ? see : `did you mean --${meant}?`);
  }
  const last = Array.isArray(value) && !flag.repeats ? value.at(-1) : value;
  if (flag.type === 'number' && Number.isNaN(last)) throw errors.usage(place, 'it is no number', 'write a number');
  return last;
}

/** The help of a command, and in that of the main one a list of all. */
export function helpOf(spec: CommandSpec, commands: readonly CommandSpec[]): Promise<string> {
  const parser = parserOf(spec, []);
  for (const each of commands) if (each.name !== '') parser.command(usageLine(each), each.summary);
  return parser.getHelp();
}

function usageLine({ name, words }: CommandSpec): string {
  return [name === '' ? '$0' : name, ...words.map(usageOf)].join(' ');
}

function parserOf(spec: CommandSpec, argv: readonly string[]): Argv {
  const { name, summary, words, flags } = spec;
  const isMain = name === '';
  const about = 'Fuses attention-free runs of feed-forward layers (FFNs) of an ONNX decoder into wide ones.';
  return yargs([...argv])
    .scriptName(isMain ? 'onnx-fuse' : `onnx-fuse ${name}`)
    .locale('en')
    .usage(
      isMain ? `$0 in.onnx out.onnx\n\n${about}` : ['$0', ...words.map(usageOf)].join(' ').concat(`\n\n${summary}`),
    )
    .parserConfiguration({ 'greedy-arrays': false, 'camel-case-expansion': false, 'parse-positional-numbers': false })
    .wrap(WIDTH)
    .help(false)
    .version(false)
    .exitProcess(false)
    .command(['$0', ...words.map(usageOf)].join(' '), isMain ? summary : (false as unknown as string), (command) => {
      for (const word of words) command.positional(word.name, { type: 'string', describe: word.describe });
      return command;
    })
    .options(Object.fromEntries(Object.entries({ ...COMMON_FLAGS, ...flags }).map(optionOf)));
}

function optionOf([name, flag]: readonly [string, FlagSpec]): [string, Options] {
  const { type, describe, choices, fallback, shownDefault, alias, repeats } = flag;
  const option: Options = {
    type,
    describe: shownDefault === undefined ? describe : `${describe} [${shownDefault}]`,
    ...(type === 'boolean' ? {} : { requiresArg: true }),
    ...(choices ? { choices } : {}),
    ...(fallback === undefined ? {} : { default: fallback }),
    ...(alias === undefined ? {} : { alias }),
    ...(repeats ? { array: true } : {}),
  };
  return [name, option];
}
