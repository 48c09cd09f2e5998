/**
 * `onnx-fuse model_dir/ out_dir/`: a model with what lies around it. The model is fused; genai_config.json and config.json
 * are rewritten to fit; tokenizers, templates and whatever else the configs name are copied. The output folder appears
 * whole or not at all.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { copyFile, mkdir, open, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import {
  commitFiles,
  Diagnostic,
  errors,
  modelSources,
  openModel,
  reasonOf,
  removeTemporary,
  temporaryFor,
} from '../../ir/index.js';
import { factsOf, renameKv } from '../../passes/index.js';
import { JsonText } from '../basics/json-text.js';
import { fuse } from '../fuse/fuse.js';
import type { FolderFacts, Report } from '../fuse/report.js';
import type { FuseRequest } from '../fuse/request.js';
import { type CacheMap, mapCaches } from './cache-map.js';
import { filesNamed, genaiModelFile, namingFor, rewriteGenaiConfig } from './genai-config.js';
import { type Architecture, describeArchitecture, rewriteHfConfig } from './hf-config.js';
import { rewriteScales } from './kv-scales.js';

const GENAI = 'genai_config.json';
const CONFIG = 'config.json';
/** Written into every output folder: what was done, and which files are ours. */
const MARKER = 'onnx-fuse.json';

/** What a runtime reads beside a model. Weights of other frameworks and other models stay where they are. */
const COMPANIONS = /\.(json|jsonl|txt|model|jinja|tiktoken|spm|bpe|vocab|md|py)$|^(licen[cs]e|notice)/i;

/** A folder that holds a model. */
export interface ModelFolder {
  readonly path: string;
  /** The model to fuse, relative to the folder. */
  readonly model: string;
  readonly genai: JsonText | null;
  readonly config: JsonText | null;
  /** What we wrote into it, when it is an output of ours. */
  readonly marker: JsonText | null;
}

/** True when there is a folder at `path`. */
export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Finds the model of a folder. Throws OF_USAGE when it holds none, or several and nothing says which. */
export function readModelFolder(path: string): ModelFolder {
  const json = (name: string): JsonText | null => readJson(path, name);
  const genai = json(GENAI);
  return {
    path,
    model: genai ? genaiModelFile(genai) : onlyModel(path),
    genai,
    config: json(CONFIG),
    marker: json(MARKER),
  };
}

function onlyModel(path: string): string {
  for (const name of ['model.onnx', 'onnx/model.onnx']) if (existsSync(join(path, name))) return name;
  const models = readdirSync(path).filter((name) => name.endsWith('.onnx'));
  const [model, second] = models.sort();
  if (model !== undefined && second === undefined) return model;
  const why =
    model === undefined
      ? 'it holds no .onnx file'
      : `it holds ${models.length} models: ${models.slice(0, 4).join(', ')}`;
  throw errors.usage(path, why, 'give the .onnx file itself');
}

/**
 * Fuses the model of `request.input`, a folder, into the folder `request.output`.
 * @throws Diagnostic like `fuse`, and OF_USAGE for folders that cannot be read or written.
 */
export async function fuseFolder(request: FuseRequest): Promise<Report> {
  const source = readModelFolder(request.input);
  const output = resolve(request.output);
  checkPaths(request.input, output);
  const kvNaming = source.genai ? namingFor(source.genai, request.kvNaming) : (request.kvNaming ?? 'preserve');
  const staging = temporaryFor(output);
  const content = join(staging, basename(output));
  const target = join(content, source.model);
  try {
    if (!request.dryRun) await guard(output, () => mkdir(dirname(target), { recursive: true }));
    // genai allocates all caches alike: attentions that became one keep a cache per member there.
    const kvCaches = request.kvCaches ?? (source.genai ? 'separate' : undefined);
    const model = { ...request, kvNaming, kvCaches, input: join(source.path, source.model), output: target };
    const report = await fuse(model);
    if (request.dryRun) return { ...report, folder: { path: output, kvNaming, rewritten: [], copied: [], notes: [] } };
    // A pipeline of the user's own renames, or not, whatever the default would be.
    const own = report.pipeline.includes('rename-kv{naming=compact}') ? 'compact' : 'preserve';
    const naming = request.pipeline === undefined ? kvNaming : own;
    const folder = await guard(output, () => complete(source, content, target, report, naming));
    await commitFiles(staging, output, [basename(output)]);
    const files = report.output.map((file) => ({ ...file, path: join(output, relative(content, file.path)) }));
    return { ...report, output: files, folder: { ...folder, path: output } };
  } finally {
    await removeTemporary(staging);
  }
}

/** Writes everything beside the model into the staged folder. */
async function complete(
  source: ModelFolder,
  staging: string,
  target: string,
  report: Report,
  kvNaming: FolderFacts['kvNaming'],
): Promise<FolderFacts> {
  const original = openModel(join(source.path, source.model));
  const caches = mapCaches(original, openModel(target), factsOf(report, renameKv), kvNaming);
  const architecture = describeArchitecture(report, source.config, source.marker);
  const notes = source.genai ? rewriteGenaiConfig(source.genai, caches) : [];
  // A plain copy stays one.
  if (source.config && report.pipeline !== '') rewriteHfConfig(source.config, architecture, caches);
  const models = report.output.map((file) => relative(staging, file.path));
  const rewritten: string[] = [];
  const copied: string[] = [];
  for (const file of companionsOf(source)) {
    if (models.includes(file)) {
      throw errors.usage(file, 'another model needs this data file too', 'give the .onnx file itself');
    }
    const json = file === GENAI ? source.genai : file === CONFIG ? source.config : scalesIn(source, file, caches);
    const to = join(staging, file);
    await mkdir(dirname(to), { recursive: true });
    if (json?.isChanged) await writeFile(to, json.toString());
    else await copyFile(join(source.path, file), to);
    await sync(to);
    (json?.isChanged ? rewritten : copied).push(file);
  }
  const files = [...models, ...rewritten, ...copied, MARKER].map((file) => file.split(sep).join('/')).sort();
  await write(join(staging, MARKER), markerText(architecture, kvNaming, files));
  return { path: staging, kvNaming, rewritten, copied, notes };
}

function markerText({ onnx_fuse, ...rest }: Architecture, kvNaming: string, files: readonly string[]): string {
  return `${JSON.stringify({ onnx_fuse: { ...onnx_fuse, kv_naming: kvNaming, files }, ...rest }, null, 2)}\n`;
}

/** Writes the architecture of `report` for a model that lies in a folder with or without a config.json. */
export async function writeBlockConfigs(file: string, report: Report, input: string): Promise<void> {
  const folder = isFolder(input) ? input : dirname(input);
  const architecture = describeArchitecture(report, readJson(folder, CONFIG), readJson(folder, MARKER));
  await guard(file, () => write(file, `${JSON.stringify(architecture, null, 2)}\n`));
}

/** Files to copy, relative to the folder, in order: companions by name, and what the configs name. */
function companionsOf({ path, model, genai, config }: ModelFolder): string[] {
  const isFile = (file: string): boolean => statSync(join(path, file), { throwIfNoEntry: false })?.isFile() ?? false;
  const isInside = (file: string): boolean => !relative(path, resolve(path, file)).startsWith('..');
  const named = [genai, config]
    .flatMap((json) => (json ? filesNamed(json.value) : []))
    .filter((file) => isInside(file) && isFile(file) && resolve(path, file) !== resolve(path, model))
    .flatMap((file) => (file.endsWith('.onnx') ? [file, ...dataOf(path, file)] : [file]));
  // Index files list weights that are not copied.
  const beside = readdirSync(path).filter(
    (name) => COMPANIONS.test(name) && !name.endsWith('.index.json') && isFile(name),
  );
  return [...new Set([...beside, ...named])].filter((file) => file !== MARKER).sort();
}

/** The data files of a model, relative to the folder. */
function dataOf(path: string, model: string): string[] {
  const header = resolve(path, model);
  return modelSources(openModel(header))
    .map((source) => resolve(source.path))
    .filter((file) => file !== header)
    .map((file) => relative(resolve(path), file));
}

/** A file of KV scales, rewritten; null for any other. */
function scalesIn({ path }: ModelFolder, file: string, caches: CacheMap): JsonText | null {
  if (!file.endsWith('.json')) return null;
  const text = readText(join(path, file));
  if (!text.includes('"k_scales"')) return null;
  const json = new JsonText(text, join(path, file));
  rewriteScales(json, caches);
  return json;
}

/** The output is a new folder, an empty one, or one that holds nothing but what onnx-fuse wrote. */
export function checkPaths(input: string, output: string, marker = MARKER): void {
  const [from, to] = [realpathSync(input), existsSync(output) ? realpathSync(output) : output];
  const isWithin = (inner: string, outer: string): boolean => inner === outer || inner.startsWith(outer + sep);
  if (isWithin(to, from) || isWithin(from, to)) throw errors.outputIsInput(output, `the folder ${input} or lie in it`);
  const parent = dirname(output);
  if (!isFolder(parent)) throw errors.usage(parent, 'the output folder does not exist', 'create it first');
  if (!existsSync(output)) return;
  if (!isFolder(output)) throw errors.usage(output, 'the output is a file, not a folder', 'give the path of a folder');
  const ours = oursIn(join(output, marker));
  const stranger = filesIn(output).find((file) => !ours.has(file));
  if (stranger === undefined) return;
  throw errors.usage(output, `the folder holds ${stranger}, which onnx-fuse did not write`, 'choose another folder');
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => !isFolder(join(folder, file)))
    .map((file) => file.split(sep).join('/'))
    .sort();
}

function oursIn(file: string): Set<string> {
  if (!existsSync(file)) return new Set();
  const own = new JsonText(readText(file), file).get(['onnx_fuse', 'files']);
  return new Set(Array.isArray(own) ? own.filter((item): item is string => typeof item === 'string') : []);
}

async function write(file: string, text: string): Promise<void> {
  await writeFile(file, text);
  await sync(file);
}

async function sync(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  await handle.sync().finally(() => handle.close());
}

function readJson(folder: string, name: string): JsonText | null {
  const file = join(folder, name);
  return existsSync(file) ? new JsonText(readText(file), file) : null;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw errors.readFailed(file, reasonOf(error));
  }
}

async function guard<T>(place: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    // Only what the system says no to is the user's; anything else is a bug and keeps its stack.
    const isSystem = !(error instanceof Diagnostic) && typeof (error as NodeJS.ErrnoException).syscall === 'string';
    throw isSystem ? errors.writeFailed(place, reasonOf(error)) : error;
  }
}
