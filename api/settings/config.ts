/**
 * Config files: the flags as keys, named sets of them, and plugins.
 *
 *     { "remove-attention": "4-9", "keep-last": 0, "plugins": ["./my-pass.mjs"],
 *       "presets": { "quick": { "verify": false } } }
 *
 * They are read only when the command line names them: a stray file must not change what a command does.
 */
import { dirname, extname, resolve } from 'node:path';
import { suggestion } from '../../passes/framework/nearest.js';
import { apiErrors } from '../basics/errors.js';
import { readJson } from '../basics/small-file.js';
import { conflictIn, type FlagValues, listOf, mergeFlags } from './flag-values.js';
import { type Flag, FUSE_FLAGS } from './flags.js';
import { importModule } from './plugin.js';

/**
 * A list may be written as one: `[4, 5, 6]` for `"4-6"`, `[[2, 3, 5]]` for the run `"2-3+5"`, `["concat-ffn", "drop-dead"]`
 * for `"concat-ffn,drop-dead"`.
 */
type Written<T> = string extends T
  ? T | number | readonly (string | number)[]
  : T extends readonly unknown[]
    ? string | number | readonly (string | number | readonly number[])[]
    : T;

/** The flags as they are written in a config file. */
export type ConfigFlags = { readonly [K in keyof FlagValues]?: Written<NonNullable<FlagValues[K]>> };

/** What a config file holds: the `config` that an .mjs file exports, or the object of a .json file. */
export interface Config extends ConfigFlags {
  /** Sets of flags, of which the command line chooses one; they win over the flags beside them. */
  readonly presets?: Readonly<Record<string, ConfigFlags>>;
  /** Modules with passes, relative to the config file. */
  readonly plugins?: readonly string[];
}

/** A config file, checked. */
export interface LoadedConfig {
  readonly flags: FlagValues;
  /** Absolute paths. */
  readonly plugins: readonly string[];
}

const EXTENSIONS = ['.json', '.mjs', '.js', '.mts', '.ts'];

/**
 * Reads a config file and applies one of its presets.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_CONFIG.
 */
export async function loadConfig(path: string, preset?: string): Promise<LoadedConfig> {
  const file = resolve(path);
  const { presets = {}, plugins = [], ...rest } = await readConfig(path);
  const own = flagsOf(rest, file, ['presets', 'plugins']);
  const named = new Map<string, FlagValues>();
  for (const [name, flags] of Object.entries(recordIn(presets, `${file}, presets`))) {
    const place = `${file}, preset ${name}`;
    named.set(name, flagsOf(recordIn(flags, place), place));
  }
  if (!Array.isArray(plugins) || !plugins.every((each) => typeof each === 'string')) {
    throw apiErrors.config(`${file}, plugins`, 'expected a list of paths', 'write "plugins": ["./my-pass.mjs"]');
  }
  const chosen = preset === undefined ? {} : named.get(preset);
  if (!chosen)
    throw apiErrors.config(file, `it has no preset '${preset}'`, suggestion(preset ?? '', [...named.keys()]));
  return { flags: mergeFlags(own, chosen), plugins: plugins.map((each) => resolve(dirname(file), each)) };
}

/**
 * What a config file holds, whatever its keys: the object of a .json file, or the `config` that a module exports. `$schema`,
 * by which editors know what may stand in it, is left out.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_CONFIG.
 */
export async function readConfig(path: string): Promise<Readonly<Record<string, unknown>>> {
  const file = resolve(path);
  const { $schema: _, ...content } = recordIn(await read(file), file);
  return content;
}

async function read(file: string): Promise<unknown> {
  const extension = extname(file);
  if (!EXTENSIONS.includes(extension)) {
    throw apiErrors.config(
      file,
      'its name is not that of a config file',
      'write it as .json, or as .mjs that exports config',
    );
  }
  if (extension === '.json') return readJson(file, apiErrors.config);
  const module = await importModule(file, apiErrors.config);
  const content = module['config'] ?? module['default'];
  if (content === undefined)
    throw apiErrors.config(file, 'it exports no config', 'write export const config = { ... }');
  return content;
}

/** A value that must be an object. @throws Diagnostic OF_CONFIG. */
export function recordIn(value: unknown, place: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw apiErrors.config(place, `expected an object, found ${shown(value)}`, 'write an object: { "key": value }');
}

function flagsOf(
  entries: Readonly<Record<string, unknown>>,
  place: string,
  further: readonly string[] = [],
): FlagValues {
  const flags: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(entries)) {
    const flag = Object.hasOwn(FUSE_FLAGS, key) ? (FUSE_FLAGS as Readonly<Record<string, Flag>>)[key] : undefined;
    if (!flag) {
      throw apiErrors.config(
        place,
        `there is no key '${key}'`,
        suggestion(key, [...Object.keys(FUSE_FLAGS), ...further]),
      );
    }
    flags[key] = flagValue(value, flag, `${place}, ${key}`);
  }
  const conflict = conflictIn(flags);
  if (conflict) {
    throw apiErrors.config(place, `'${conflict.flag}' has no effect beside '${conflict.beside}'`, conflict.remedy);
  }
  return flags;
}

function flagValue(value: unknown, flag: Flag, place: string): unknown {
  const { type } = flag;
  if (type === 'layers' || type === 'runs' || type === 'paths') return listOf(flag, value, place);
  return valueIn(value, { ...flag, type }, place);
}

/** What a flag of any command may say. */
export interface ValueSpec {
  readonly type: 'string' | 'number' | 'boolean';
  readonly choices?: readonly string[];
}

/** The value of a flag as a config file has it. @throws Diagnostic OF_CONFIG for one of another type, or that is no choice. */
export function valueIn(value: unknown, { type, choices }: ValueSpec, place: string): unknown {
  const text = type === 'string' ? textOf(value) : value;
  if (typeof text !== type || (type === 'number' && !Number.isFinite(text))) {
    throw apiErrors.config(place, `expected a ${type}, found ${shown(value)}`, `write a ${type}`);
  }
  if (choices && !choices.includes(text as string)) {
    throw apiErrors.config(place, `expected one of ${choices.join(', ')}, found '${text}'`, 'choose one of them');
  }
  return text;
}

/** Texts that are lists may be written as lists, and lists of runs as lists of those. */
function textOf(value: unknown): unknown {
  const isWord = (each: unknown): boolean => typeof each === 'string' || typeof each === 'number';
  const isRun = (each: unknown): boolean => Array.isArray(each) && each.every(isWord);
  if (Array.isArray(value) && value.every((each) => isWord(each) || isRun(each)))
    return value.map((each) => (Array.isArray(each) ? each.join('+') : each)).join(',');
  return typeof value === 'number' ? String(value) : value;
}

function shown(value: unknown): string {
  return value === undefined ? 'nothing' : (JSON.stringify(value) ?? String(value));
}
