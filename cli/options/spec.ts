/** What a command takes, as data: the parser, the help and the types of its arguments all come from it. */
import type { FlagGroup } from '../../api/settings/flag-groups.js';

/** One flag. A command that finds none of it given gets the fallback, if there is one. */
export interface FlagSpec {
  readonly type: 'string' | 'number' | 'boolean';
  readonly describe: string;
  readonly choices?: readonly string[];
  readonly fallback?: string | number | boolean;
  /** What help says of a default that is not ours to fill in. */
  readonly shownDefault?: string;
  /** One letter that means the same. */
  readonly alias?: string;
  /** The heading in help. */
  readonly group?: FlagGroup;
  /** A flag without which this one has no effect. */
  readonly needs?: string;
  /** Its value is a file whose name ends so; without one, or with `-`, it is standard output. */
  readonly takesFile?: string;
  /** May be given several times; its value is a list. */
  readonly repeats?: true;
}

/** A word without dashes: the model, the output. */
export interface WordSpec {
  readonly name: string;
  readonly describe: string;
  readonly isOptional?: true;
}

/** A command. The main one has no name. */
export interface CommandSpec {
  readonly name: string;
  readonly summary: string;
  readonly words: readonly WordSpec[];
  readonly flags: Readonly<Record<string, FlagSpec>>;
  readonly examples?: readonly Example[];
  /** Flags of which one at least must be given, and what is said where none is. */
  readonly needsOneOf?: { readonly flags: readonly string[]; readonly why: string; readonly remedy: string };
}

/** A command line to copy, and what it does. */
export interface Example {
  readonly about: string;
  /** Without the name of the program. */
  readonly line: string;
}

type ValueOf<F extends FlagSpec> = F extends { readonly repeats: true }
  ? readonly string[]
  : F extends { readonly choices: readonly (infer Choice)[] }
    ? Choice
    : F extends { readonly type: 'number' }
      ? number
      : F extends { readonly type: 'boolean' }
        ? boolean
        : string;

type FlagsOf<S extends CommandSpec> = {
  readonly [Name in keyof S['flags']]: S['flags'][Name] extends { readonly fallback: string | number | boolean }
    ? ValueOf<S['flags'][Name]>
    : ValueOf<S['flags'][Name]> | undefined;
};

type WordsOf<S extends CommandSpec> = {
  readonly [Word in S['words'][number] as Word['name']]: Word extends { readonly isOptional: true }
    ? string | undefined
    : string;
};

/** What a command is given: the values of its words and flags by name. */
export type ArgumentsOf<S extends CommandSpec> = FlagsOf<S> & WordsOf<S>;

/** The same specification, with the types of all its names and choices. */
export function commandSpec<const S extends CommandSpec>(spec: S): S {
  return spec;
}

/** How a word is written in usage: `<model>`, `[output]`. */
export function usageOf({ name, isOptional }: WordSpec): string {
  return isOptional ? `[${name}]` : `<${name}>`;
}
