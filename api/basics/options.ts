/** Options of the library, checked where they come in: who writes JavaScript has no compiler that does. */
import { errors } from '../../ir/index.js';
import { suggestion } from '../../passes/framework/nearest.js';
import { OPTION_TYPES } from './option-types.js';

/** Options of one function: their names, with a `?` where they may be left out, and their types. */
type Options = Readonly<Record<string, string>>;

/** What an object of options is called in the types: `FusionRequest`. */
export type OptionsName = keyof typeof OPTION_TYPES;

/**
 * Holds an object of options to its type.
 * @throws Diagnostic OF_USAGE for an option that there is not, one that is missing, and a value of another type.
 */
export function checkOptions(name: OptionsName, options: unknown): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw errors.usage('', `expected an object of options, found ${shown(options)}`, `give a ${name} (docs/api.md)`);
  }
  const known: Options = OPTION_TYPES[name];
  const names = Object.keys(known).map((key) => key.replace('?', ''));
  const given = new Map(Object.entries(options));
  for (const [key, value] of given) {
    if (value === undefined || names.includes(key)) continue;
    throw errors.usage(key, 'there is no such option', suggestion(key, names));
  }
  for (const [key, type] of Object.entries(known)) {
    const [option, isOptional] = [key.replace('?', ''), key.endsWith('?')];
    const value = given.get(option);
    if (value !== undefined || !isOptional) checkType(option, value, type);
  }
}

/** Holds a value to a type, as option-types.ts writes types. @throws Diagnostic OF_USAGE at `place`. */
export function checkType(place: string, value: unknown, type: string): void {
  if (type.split(' | ').some((each) => isOf(value, each))) return;
  const found = value === undefined ? 'nothing' : shown(value);
  throw errors.usage(place, `expected ${type}, found ${found}`, 'docs/api.md says what it means');
}

/** Whether a value is of a type that is no choice of several. */
function isOf(value: unknown, type: string): boolean {
  if (type.endsWith('[]')) return Array.isArray(value) && value.every((each) => isOf(each, type.slice(0, -2)));
  if (type === 'null') return value === null;
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  if (type === 'number') return typeof value === 'number' && !Number.isNaN(value);
  if (type === 'string' || type === 'boolean' || type === 'function') return typeof value === type;
  return value === JSON.parse(type);
}

/** A value for an error, in JavaScript's words. */
function shown(value: unknown): string {
  if (typeof value === 'string') return value.length > 40 ? `a text of ${value.length} letters` : JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.slice(0, 8).map(shown).join(', ')}${value.length > 8 ? ', ...' : ''}]`;
  if (typeof value === 'object' && value !== null) return 'an object';
  return typeof value === 'function' ? 'a function' : String(value);
}
