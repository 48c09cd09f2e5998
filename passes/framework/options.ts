/**
 * The kinds of options that passes take. A value is data from the flag that gave it to the pass that reads it; text exists
 * only where people write or read pipelines, and `parse(print(value))` is the value.
 */
import type { OptionSpec } from './pass.js';

/** An option of which `check` tells good values from bad, and `read` makes a value of text. */
function option<T>(spec: {
  readonly help: string;
  readonly fallback: T;
  readonly check: (value: unknown) => T;
  readonly read: (text: string) => unknown;
  readonly print: (value: T) => string;
}): OptionSpec<T> {
  const { help, fallback, check, read, print } = spec;
  return { help, fallback, check, parse: (text) => check(read(text)), print };
}

/** What an error message shows of a bad value. */
function shown(value: unknown): string {
  return typeof value === 'string' ? `'${value}'` : (JSON.stringify(value) ?? String(value));
}

/** A whole number of at least `least`. */
export function integerOption(help: string, fallback: number, least = 0): OptionSpec<number> {
  return option({
    help,
    fallback,
    check: (value) => {
      if (Number.isSafeInteger(value) && (value as number) >= least) return value as number;
      throw new Error(`expected an integer of at least ${least}, found ${shown(value)}`);
    },
    read: (text) => (/^\d+$/.test(text) ? Number(text) : text),
    print: String,
  });
}

/** True or false. */
export function flagOption(help: string): OptionSpec<boolean> {
  return option({
    help,
    fallback: false,
    check: (value) => {
      if (typeof value === 'boolean') return value;
      throw new Error(`expected true or false, found ${shown(value)}`);
    },
    read: (text) => (text === 'true' || text === 'false' ? text === 'true' : text),
    print: String,
  });
}

/** One of `choices`. */
export function choiceOption<const C extends string>(help: string, choices: readonly C[], fallback: C): OptionSpec<C> {
  return option({
    help: `${help} (${choices.join(', ')})`,
    fallback,
    check: (value) => {
      const found = choices.find((choice) => choice === value);
      if (found !== undefined) return found;
      throw new Error(`expected one of ${choices.join(', ')}, found ${shown(value)}`);
    },
    read: (text) => text,
    print: (value) => value,
  });
}

/** Layer numbers, written `24,26,51-52`; duplicates are dropped and the order is ascending. */
export function layersOption(help: string): OptionSpec<readonly number[]> {
  return option({ help, fallback: [], check: checkLayers, read: parseLayers, print: printLayers });
}

/** Runs of layers, written `42-50,53-69`, see `parseRuns`. */
export function runsOption(help: string): OptionSpec<readonly (readonly number[])[]> {
  return option({ help, fallback: [], check: checkRuns, read: parseRuns, print: printRuns });
}

/**
 * The path of a file; empty for none. In pipelines, where blanks part options and braces end them, such characters and the
 * per cent sign are written as in addresses of the web: `my%20maps.onnx-fuse-fit`.
 */
export function pathOption(help: string): OptionSpec<string> {
  const spec = option({
    help,
    fallback: '',
    check: (value) => {
      if (typeof value === 'string' && !value.includes('\0')) return value;
      throw new Error(`expected a path, found ${shown(value)}`);
    },
    read: (text) => {
      try {
        return text.replace(/(?:%[0-9a-f]{2})+|%/gi, decodeURIComponent);
      } catch {
        throw new Error(`expected a path with % written as %25, found '${text}'`);
      }
    },
    print: (value) => value.replace(UNPRINTED, encodeURIComponent),
  });
  return { ...spec, isFile: true };
}

/** What ends a word in the text of a pipeline, or would be read as another character. */
const UNPRINTED = /[\s{}%\p{Cc}]/gu;

const MOST_LAYERS = 100_000;
/** How an empty list is written: a flag can so take away what a config file says. */
const NONE = 'none';

/** Layer numbers in their one form: ascending, none twice. Throws an Error with one line on anything else. */
export function checkLayers(value: unknown): number[] {
  if (!Array.isArray(value)) throw new Error(`expected a list of layer numbers, found ${shown(value)}`);
  for (const layer of value) {
    if (!Number.isSafeInteger(layer) || layer < 0) throw new Error(`expected layer numbers, found ${shown(layer)}`);
    if (layer >= MOST_LAYERS) throw new Error(`layer ${layer} is beyond any model`);
  }
  return [...new Set(value as number[])].sort((a, b) => a - b);
}

/** Runs in their one form: each of two layers or more, ascending, no layer in two of them. Throws like `checkLayers`. */
export function checkRuns(value: unknown): number[][] {
  if (!Array.isArray(value)) throw new Error(`expected a list of runs, found ${shown(value)}`);
  const runs = value.map(checkLayers);
  const seen = new Set<number>();
  for (const run of runs) {
    if (run.length < 2) throw new Error(`a run needs two layers at least, found '${printRun(run)}'`);
    for (const layer of run) {
      if (seen.has(layer)) throw new Error(`layer ${layer} is in two runs`);
      seen.add(layer);
    }
  }
  return runs;
}

/** Parses `24,26,51-52,66-115`; `none` is the empty list. Throws an Error with one line on anything else. */
export function parseLayers(text: string): number[] {
  return text.trim() === NONE ? [] : checkLayers(text.split(',').flatMap((part) => rangeOf(part, text, '4,6-9')));
}

/** `4,6-9` for [4, 6, 7, 8, 9], `none` for no layers. The layers are ascending. */
export function printLayers(layers: readonly number[]): string {
  return layers.length > 0 ? ranges(layers).join(',') : NONE;
}

/**
 * Parses runs. Each item is one run, `42-50,53-69`; where the model's layer numbers have a gap, `+` goes on behind it:
 * `2-3+5-6` is the one run of the layers 2, 3, 5 and 6. `none` is no run. Throws an Error with one line on anything else.
 */
export function parseRuns(text: string): number[][] {
  if (text.trim() === NONE) return [];
  const runs = text.split(',');
  return checkRuns(runs.map((run) => run.split('+').flatMap((part) => rangeOf(part, text, '4-9,12-13+15'))));
}

/** `2-3+5-6,8-9` for [[2, 3, 5, 6], [8, 9]], `none` for no run. Each run is ascending. */
export function printRuns(runs: readonly (readonly number[])[]): string {
  return runs.length > 0 ? runs.map(printRun).join(',') : NONE;
}

/** One run, as `printRuns` writes it. */
export function printRun(layers: readonly number[]): string {
  return ranges(layers).join('+');
}

/** The layers of `4` or `6-9`, a part of `text`. */
function rangeOf(part: string, text: string, example: string): number[] {
  const match = /^\s*(\d+)(?:-(\d+))?\s*$/.exec(part);
  if (!match) throw new Error(`expected layer numbers like ${example}, found '${text}'`);
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  if (last < first) throw new Error(`the range ${part.trim()} runs backwards`);
  if (last >= MOST_LAYERS) throw new Error(`layer ${last} is beyond any model`);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** The number of the layer with this label: `4` of `4-9`, a layer that others were fused into. */
export function layerOfLabel(label: string): number {
  return parseLayers(label)[0] as number;
}

/** Neighbours joined to ranges: `4`, `6-9`. */
function ranges(layers: readonly number[]): string[] {
  const parts: string[] = [];
  for (let i = 0; i < layers.length; ) {
    let j = i;
    while (layers[j + 1] === (layers[j] as number) + 1) j++;
    parts.push(i === j ? String(layers[i]) : `${layers[i]}-${layers[j]}`);
    i = j + 1;
  }
  return parts;
}
