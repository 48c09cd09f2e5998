/** Arguments by a specification: words and flags to values, or a usage error that says which word is wrong. */
import { parseArgs } from 'node:util';
import { nearest } from '../../api/settings/nearest.js';
import { errors } from '../../ir/diagnostic.js';
import type { ArgumentsOf, CommandSpec, FlagSpec } from './spec.js';

/** What every command understands. */
export const COMMON_FLAGS: Readonly<Record<string, FlagSpec>> = {
  help: { type: 'boolean', describe: 'Show help' },
  version: { type: 'boolean', describe: 'Print the version' },
};

type Value = string | number | boolean | readonly string[];
type Token = NonNullable<ReturnType<typeof parseArgs>['tokens']>[number];

/** What was asked for: help, the version, or the work itself. */
export type Parsed<S extends CommandSpec> =
  | { readonly kind: 'help' | 'version' }
  | { readonly kind: 'run'; readonly values: ArgumentsOf<S> };

/** Reads arguments. A flag that is given twice means its last value, unless it repeats. Throws OF_USAGE. */
export function parseArguments<S extends CommandSpec>(spec: S, argv: readonly string[]): Parsed<S> {
  const flags: Readonly<Record<string, FlagSpec>> = { ...COMMON_FLAGS, ...spec.flags };
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(
      Object.entries(flags).map(([name, { type, alias }]) => [
        name,
        { type: type === 'boolean' ? 'boolean' : 'string', ...(alias ? { short: alias } : {}) } as const,
      ]),
    ),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  // Who asks for help is told, whatever else is wrong.
  const asks = (name: string): boolean => tokens.some((token) => token.kind === 'option' && token.name === name);
  for (const kind of ['help', 'version'] as const) if (asks(kind)) return { kind };
  const values = new Map<string, Value>();
  const words: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value);
    else if (token.kind === 'option') take(token, flags, values, spec);
  }
  for (const [name, { fallback, needs }] of Object.entries(spec.flags)) {
    if (needs !== undefined && values.has(name) && !values.has(needs)) {
      throw errors.usage(`--${name}`, `it has no effect without --${needs}`, `add --${needs}, or leave it out`);
    }
    if (fallback !== undefined && !values.has(name)) values.set(name, fallback);
  }
  for (const [index, { name, isOptional }] of spec.words.entries()) {
    const word = words[index];
    if (word !== undefined) values.set(name, word);
    else if (!isOptional) throw errors.usage('', `<${name}> is missing`, seeHelp(spec));
  }
  const extra = words[spec.words.length];
  if (extra !== undefined) throw errors.usage('', `'${extra}' is one word too many`, seeHelp(spec));
  return { kind: 'run', values: Object.fromEntries(values) as ArgumentsOf<S> };
}

function take(
  token: Token & { kind: 'option' },
  flags: Readonly<Record<string, FlagSpec>>,
  values: Map<string, Value>,
  spec: CommandSpec,
): void {
  const { name, rawName } = token;
  const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
  if (!flag) {
    const positive = name.startsWith('no-') ? name.slice(3) : '';
    if (Object.hasOwn(flags, positive) && flags[positive]?.type === 'boolean' && token.value === undefined) {
      values.set(positive, false);
      return;
    }
    const meant = nearest(name, Object.keys(flags));
    const remedy = meant === null ? seeHelp(spec) : `did you mean --${meant}?`;
    throw errors.usage(rawName, 'there is no such flag', remedy);
  }
  const value = valueIn(token, flag);
  if (flag.repeats) values.set(name, [...((values.get(name) as readonly string[]) ?? []), value as string]);
  else values.set(name, value);
}

function valueIn({ rawName, value, inlineValue }: Token & { kind: 'option' }, flag: FlagSpec): Value {
  if (flag.type === 'boolean') {
    if (value === undefined || value === 'true') return true;
    if (value === 'false') return false;
    throw errors.usage(rawName, `it is '${value}', expected true or false`, `write ${rawName} alone, or leave it out`);
  }
  // A flag that follows is no value, but a number below zero is.
  if (value === undefined || (!inlineValue && /^-(?!$|\.?\d)/.test(value))) {
    throw errors.usage(rawName, 'it needs a value', `write ${rawName} ${flag.type === 'number' ? 'N' : 'VALUE'}`);
  }
  // -o=file
  const text = inlineValue && !rawName.startsWith('--') ? value.replace(/^=/, '') : value;
  if (flag.type === 'number') {
    const number = text.trim() === '' ? Number.NaN : Number(text);
    if (Number.isNaN(number)) throw errors.usage(rawName, `'${text}' is no number`, 'write a number');
    return number;
  }
  if (flag.choices && !flag.choices.includes(text)) {
    throw errors.usage(rawName, `it is '${text}', expected ${flag.choices.join(', ')}`, 'choose one of these');
  }
  return text;
}

function seeHelp({ name }: CommandSpec): string {
  return `see onnx-fuse ${name === '' ? '' : `${name} `}--help`;
}
