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
  const content = await read(file);
  const { presets = {}, plugins = [], ...rest } = record(content, file);
  const own = flagsOf(rest, file, ['presets', 'plugins']);
  const named = new Map<string, FlagValues>();
  for (const [name, flags] of Object.entries(record(presets, `${file}, presets`))) {
    const place = `${file}, preset ${name}`;
    named.set(name, flagsOf(record(flags, place), place));
  }
  if (!Array.isArray(plugins) || !plugins.every((each) => typeof each === 'string')) {
    throw apiErrors.config(`${file}, plugins`, 'expected a list of paths', 'write "plugins": ["./my-pass.mjs"]');
  }
  const chosen = preset === undefined ? {} : named.get(preset);
  if (!chosen)
    throw apiErrors.config(file, `it has no preset '${preset}'`, suggestion(preset ?? '', [...named.keys()]));
  return { flags: mergeFlags(own, chosen), plugins: plugins.map((each) => resolve(dirname(file), each)) };
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

function record(value: unknown, place: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw apiErrors.config(place, `expected an object, found ${shown(value)}`, 'write flags as keys, without the dashes');
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
  const { type, choices } = flag;
  if (type === 'layers' || type === 'runs') return listOf(flag, value, place);
  const text = type === 'string' ? textOf(value) : value;
  if (typeof text !== type || (type === 'number' && !Number.isFinite(text))) {
    throw apiErrors.config(place, `expected a ${type}, found ${shown(value)}`, `write a ${type}`);
  }
  if (choices && !choices.includes(text as string)) {
    throw apiErrors.config(place, `expected one of ${choices.join(', ')}, found '${text}'`, 'choose one of them');
  }
  return text;
}

/** Texts that are lists may be written as lists. */
function textOf(value: unknown): unknown {
  const isWord = (each: unknown): boolean => typeof each === 'string' || typeof each === 'number';
  if (Array.isArray(value) && value.every(isWord)) return value.join(',');
  return typeof value === 'number' ? String(value) : value;
}

function shown(value: unknown): string {
  return value === undefined ? 'nothing' : (JSON.stringify(value) ?? String(value));
}
