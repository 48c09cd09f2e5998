/** What lies around a model: which files come along, and why the others do not. */

import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { join, posix, relative, resolve, sep } from 'node:path';
import { allGraphs, type Model, modelSources, openModel } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import type { LeftFile } from '../fuse/report.js';
import { filesNamed } from './genai-config.js';
import { staysInside, whyNotRead } from './inside.js';
import { MARKER, type ModelFolder } from './model-folder.js';

/** What a runtime reads beside a model. Weights of other frameworks and other models stay where they are. */
const COMPANIONS = /\.(json|jsonl|txt|model|jinja|tiktoken|spm|bpe|vocab|md|py|onnx_adapter)$|^(licen[cs]e|notice)/i;
/** Index files list weights that are not copied. */
const INDEX = /\.index\.json$/;
const REASONS: readonly (readonly [RegExp, string])[] = [
  [/\.onnx$/i, 'a model that no config names'],
  [/\.onnx[._]data/i, 'data of a model that is not copied'],
  [/\.(safetensors|bin|pt|pth|h5|msgpack|gguf|ckpt)$|\.index\.json$/i, 'weights of another framework'],
];
/** Entries that are looked at when what stays is listed; a folder from which nothing comes along is one line. */
const MOST_ENTRIES = 10_000;

export interface Companions {
  /** Relative to the folder, with slashes, sorted. */
  readonly copied: readonly string[];
  /** Everything else that is there, the model and its data apart. */
  readonly left: readonly LeftFile[];
}

/** Chooses among the files of a folder: companions by name, what the configs name, and what the models need. */
export function companionsOf(source: ModelFolder, main: Model): Companions {
  const { path, roots, model, genai, config } = source;
  const copied = new Set<string>();
  const left = new Map<string, string>();
  const add = (name: string): void => {
    const file = posix.normalize(name.split(sep).join('/'));
    if (file === MARKER || file === posix.normalize(model) || copied.has(file) || left.has(file)) return;
    const why = whyNotRead(path, roots, file);
    if (why !== null) left.set(file, why);
    else {
      copied.add(file);
      if (file.endsWith('.onnx')) {
        const other = openModel(join(path, file));
        for (const each of [...dataOf(path, file, other), ...contextsOf(file, other)]) add(each);
      }
    }
  };
  for (const name of readdirSync(path)) {
    if (COMPANIONS.test(name) && !INDEX.test(name) && !isRealFolder(path, name)) add(name);
  }
  for (const name of [genai, config].flatMap((json) => (json ? filesNamed(json.value) : []))) {
    // A name that leads out is said to be left only when there is something.
    if (existsSync(resolve(path, name)) && !isRealFolder(path, name)) add(name);
  }
  for (const name of contextsOf(model, main)) add(name);
  const own = new Set([posix.normalize(model), MARKER, ...dataOf(path, model, main)]);
  for (const [file, reason] of strangersIn(source, (file) => copied.has(file) || own.has(file))) {
    if (!left.has(file)) left.set(file, reason);
  }
  return {
    copied: [...copied].sort(),
    left: [...left].map(([file, reason]) => ({ file, reason })).sort((a, b) => (a.file < b.file ? -1 : 1)),
  };
}

function isRealFolder(path: string, name: string): boolean {
  return lstatSync(resolve(path, name), { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** The data files of a model, relative to the folder. */
function dataOf(path: string, file: string, model: Model): string[] {
  const header = resolve(path, file);
  return modelSources(model)
    .map((source) => resolve(source.path))
    .filter((each) => each !== header)
    .map((each) => relative(resolve(path), each).split(sep).join('/'));
}

/** Files with what a compiler made for one device, which EPContext nodes name relative to their model. */
function contextsOf(file: string, model: Model): string[] {
  const found: string[] = [];
  for (const graph of allGraphs(model)) {
    for (const node of graph.nodes()) {
      if (node.opType !== 'EPContext' || (node.intAttribute('embed_mode') ?? 1) !== 0) continue;
      const name = node.stringAttribute('ep_cache_context');
      if (name === undefined || name === '') continue;
      found.push(staysInside(name) ? posix.join(posix.dirname(file.split(sep).join('/')), name) : name);
    }
  }
  return found;
}

/** Everything else below the folder, with the reason why it stays. Links are never gone into. */
function* strangersIn(source: ModelFolder, isKnown: (file: string) => boolean): Generator<readonly [string, string]> {
  const { path, roots } = source;
  let seen = 0;
  const within = function* (folder: string): Generator<string> {
    for (const entry of readdirSync(join(path, folder), { withFileTypes: true })) {
      if (++seen > MOST_ENTRIES) return;
      const file = posix.join(folder, entry.name);
      if (entry.isDirectory()) yield* within(file);
      else yield file;
    }
  };
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const files = entry.isDirectory() ? [...within(entry.name)] : [entry.name];
    if (entry.isDirectory() && !files.some(isKnown)) {
      const count = `${files.length}${seen > MOST_ENTRIES ? ' or more' : ''}`;
      yield [`${entry.name}/`, `${counted(files.length, 'file', { text: count })} that nothing names`];
      continue;
    }
    for (const file of files.filter((each) => !isKnown(each))) yield [file, reasonFor(path, roots, file)];
  }
}

function reasonFor(path: string, roots: readonly string[], file: string): string {
  const why = whyNotRead(path, roots, file);
  return why ?? REASONS.find(([pattern]) => pattern.test(file))?.[1] ?? 'nothing that is copied names it';
}
