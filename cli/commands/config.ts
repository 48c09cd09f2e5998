/** Flags of a command in a config file: of one command (`--config`), or with their words in a list (`onnx-fuse run`). */
import { apiErrors } from '../../api/basics/errors.js';
import { readConfig, valueIn } from '../../api/settings/config.js';
import { suggestion } from '../../passes/framework/nearest.js';
import { complete } from '../options/parse.js';
import type { ArgumentsOf, CommandSpec, FlagSpec } from '../options/spec.js';

type Entries = Readonly<Record<string, unknown>>;

/** The file that `--config` names; undefined where there is none, or where the command reads its config itself. */
export function configIn({ flags }: CommandSpec, argv: readonly string[]): string | undefined {
  if (Object.hasOwn(flags, 'config')) return undefined;
  const files = argv.map((word, i) => (word === '--config' ? argv[i + 1] : /^--config=(.*)$/s.exec(word)?.[1]));
  return files.filter((file) => file !== undefined).at(-1);
}

/** The flags in a config file, by name. @throws Diagnostic OF_NO_SUCH_FILE, OF_CONFIG. */
export async function configuredFlags(path: string, spec: CommandSpec): Promise<Entries> {
  return valuesIn(await readConfig(path), { ...spec, words: [] }, path);
}

/** The arguments that an entry of a list gives a command. @throws Diagnostic OF_CONFIG, OF_USAGE. */
export function argumentsIn<S extends CommandSpec>(entries: Entries, spec: S, place: string): ArgumentsOf<S> {
  const values = valuesIn(entries, spec, place);
  const missing = spec.words.find(({ name, isOptional }) => !isOptional && values[name] === undefined);
  if (missing) {
    const { name, describe } = missing;
    throw apiErrors.config(place, `'${name}' is missing`, `add "${name}": ${describe.toLowerCase()}`);
  }
  return complete(spec, values);
}

/** Entries as values of words and flags. A key that is neither is refused by name. @throws Diagnostic OF_CONFIG. */
function valuesIn(entries: Entries, { words, flags }: CommandSpec, place: string): Entries {
  const names = [...words.map(({ name }) => name), ...Object.keys(flags)];
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(entries)) {
    if (!names.includes(key)) throw apiErrors.config(place, `there is no key '${key}'`, suggestion(key, names));
    const flag: Pick<FlagSpec, 'type' | 'choices' | 'repeats'> = flags[key] ?? { type: 'string' };
    const each = `${place}, ${key}`;
    if (flag.repeats) values[key] = (Array.isArray(value) ? value : [value]).map((item) => valueIn(item, flag, each));
    else values[key] = valueIn(value, flag, each);
  }
  return values;
}
