/** The kinds of options that passes take, with their text forms. */
import type { OptionSpec } from './pass.js';

export function integerOption(help: string, fallback: number, least = 0): OptionSpec<number> {
  return {
    help,
    fallback,
    parse: (text) => {
      const value = Number(text);
      if (!/^\d+$/.test(text) || value < least || !Number.isSafeInteger(value)) {
        throw new Error(`expected an integer of at least ${least}, found '${text}'`);
      }
      return value;
    },
    print: String,
  };
}

export function flagOption(help: string): OptionSpec<boolean> {
  return {
    help,
    fallback: false,
    parse: (text) => {
      if (text !== 'true' && text !== 'false') throw new Error(`expected true or false, found '${text}'`);
      return text === 'true';
    },
    print: String,
  };
}

export function choiceOption<const C extends string>(help: string, choices: readonly C[], fallback: C): OptionSpec<C> {
  return {
    help: `${help} (${choices.join(', ')})`,
    fallback,
    parse: (text) => {
      const found = choices.find((choice) => choice === text);
      if (!found) throw new Error(`expected one of ${choices.join(', ')}, found '${text}'`);
      return found;
    },
    print: (value) => value,
  };
}

/** Layer numbers, `24,26,51-52`; duplicates are dropped and the order is ascending. */
export function layersOption(help: string): OptionSpec<readonly number[]> {
  return { help, fallback: [], parse: parseLayers, print: printLayers };
}

/** Runs of layers, `42-50,53-69`: each item is one run. */
export function runsOption(help: string): OptionSpec<readonly (readonly number[])[]> {
  return {
    help,
    fallback: [],
    parse: (text) => {
      const runs = text.split(',').map((part) => parseLayers(part));
      const all = runs.flat();
      if (new Set(all).size !== all.length) throw new Error(`a layer is in two runs of '${text}'`);
      const short = runs.find((run) => run.length < 2);
      if (short) throw new Error(`a run needs two layers at least, found '${printLayers(short)}'`);
      return runs;
    },
    print: (runs) => runs.map(printLayers).join(','),
  };
}

const MOST_LAYERS = 100_000;

/** Parses `24,26,51-52,66-115`. Throws an Error on anything else. */
export function parseLayers(text: string): number[] {
  const layers = new Set<number>();
  for (const part of text.split(',')) {
    const match = /^\s*(\d+)(?:-(\d+))?\s*$/.exec(part);
    if (!match) throw new Error(`expected layer numbers like 4,6-9, found '${text}'`);
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (last < first) throw new Error(`the range ${part.trim()} runs backwards`);
    if (last >= MOST_LAYERS) throw new Error(`layer ${last} is beyond any model`);
    for (let layer = first; layer <= last; layer++) layers.add(layer);
  }
  return [...layers].sort((a, b) => a - b);
}

/** `4,6-9` for [4, 6, 7, 8, 9]. */
export function printLayers(layers: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < layers.length; ) {
    let j = i;
    while (layers[j + 1] === (layers[j] as number) + 1) j++;
    parts.push(i === j ? String(layers[i]) : `${layers[i]}-${layers[j]}`);
    i = j + 1;
  }
  return parts.join(',');
}
