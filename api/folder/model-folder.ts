/** Folders with a model: which file it is. One function answers that for every command. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { errors } from '../../ir/index.js';
import { apiErrors } from '../basics/errors.js';
import { JsonText } from '../basics/json-text.js';
import { readText } from '../basics/small-file.js';
import { fileNames, genaiModelFile } from './genai-config.js';
import { isFolder, rootsOf, staysInside, whyNotRead } from './inside.js';

export const GENAI = 'genai_config.json';
export const CONFIG = 'config.json';
/** Written into every output folder: what was done, and which files are ours. */
export const MARKER = 'onnx-fuse.json';

/** A folder that holds a model. */
export interface ModelFolder {
  readonly path: string;
  /** Real folders in which its files may lie. */
  readonly roots: readonly string[];
  /** The model to fuse, relative to the folder. */
  readonly model: string;
  readonly genai: JsonText | null;
  readonly config: JsonText | null;
  /** What we wrote into it, when it is an output of ours. */
  readonly marker: JsonText | null;
}

/**
 * Finds the model of a folder.
 * @throws Diagnostic OF_USAGE when it holds none, or several and nothing says which; OF_LEAVES_FOLDER.
 */
export function readModelFolder(path: string): ModelFolder {
  const [roots, genai] = [rootsOf(path), readJson(path, GENAI)];
  const model = modelIn(path, roots, genai);
  return { path, roots, model, genai, config: readJson(path, CONFIG), marker: readJson(path, MARKER) };
}

/** The model that a path means: itself, or the one of the folder that it is. @throws Diagnostic as `readModelFolder`. */
export function modelFile(path: string): string {
  return isFolder(path) ? join(path, modelIn(path, rootsOf(path), readJson(path, GENAI))) : path;
}

function modelIn(path: string, roots: readonly string[], genai: JsonText | null): string {
  if (genai) checkNames(path, roots, genai);
  const model = genai ? genaiModelFile(genai) : onlyModel(path);
  const why = whyNotRead(path, roots, model);
  if (why !== null && existsSync(join(path, model))) throw apiErrors.leavesFolder(path, model, why);
  return model;
}

/** Every file that the config names is written again under that name, so all of them are looked at. */
function checkNames(path: string, roots: readonly string[], genai: JsonText): void {
  for (const name of fileNames(genai.value)) {
    const why = whyNotRead(path, roots, name);
    if (!staysInside(name) || (why !== null && existsSync(join(path, name)))) {
      throw apiErrors.leavesFolder(genai.file, name, why ?? '');
    }
  }
}

function onlyModel(path: string): string {
  for (const name of ['model.onnx', 'onnx/model.onnx']) if (existsSync(join(path, name))) return name;
  const models = readdirSync(path).filter((name) => name.endsWith('.onnx'));
  const [model, second] = models.sort();
  if (model !== undefined && second === undefined) return model;
  const why =
    model === undefined
      ? 'holds no .onnx file'
      : `holds ${models.length} models: ${models.slice(0, 4).join(', ')}${models.length > 4 ? ', ...' : ''}`;
  throw errors.usage(path, why, 'give the .onnx file itself');
}

/** A JSON file of a folder; null when there is none. */
export function readJson(folder: string, name: string): JsonText | null {
  const file = join(folder, name);
  if (!existsSync(file)) return null;
  const why = whyNotRead(folder, rootsOf(folder), name);
  if (why !== null) throw apiErrors.leavesFolder(folder, name, why);
  return new JsonText(
    readText(file, (place, reason) => errors.usage(place, reason, 'it is no config of a model')),
    file,
  );
}
