/**
 * `onnx-fuse model_dir/ out_dir/`: a model with what lies around it. The model is fused; genai_config.json and config.json
 * are rewritten to fit; tokenizers, templates and whatever else the configs name are copied. The output folder appears
 * whole or not at all.
 */
import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { copyFile, mkdir, open, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import {
  commitFiles,
  Diagnostic,
  errors,
  type Model,
  openModel,
  reasonOf,
  removeTemporary,
  temporaryFor,
} from '../../ir/index.js';
import { factsOf, renameKv } from '../../passes/index.js';
import { JsonText, LONGEST_CONFIG } from '../basics/json-text.js';
import { readText, writeJson } from '../basics/small-file.js';
import { fuseFile } from '../fuse/fuse.js';
import type { FolderFacts, LeftFile, Report } from '../fuse/report.js';
import type { FuseRequest } from '../fuse/request.js';
import { readAdapter, writeAdapter } from './adapter.js';
import { type CacheMap, mapCaches } from './cache-map.js';
import { companionsOf } from './companions.js';
import { namingFor, rewriteGenaiConfig } from './genai-config.js';
import { type Architecture, describeArchitecture, rewriteHfConfig } from './hf-config.js';
import { isFolder } from './inside.js';
import { rewriteScales } from './kv-scales.js';
import { CONFIG, GENAI, MARKER, type ModelFolder, readJson, readModelFolder } from './model-folder.js';
import { readsTransformersJs, rewriteChunkCount } from './transformers-js.js';

/**
 * Fuses the model of `request.input`, a folder, into the folder `request.output`.
 * @throws Diagnostic like `fuseFile`, and OF_USAGE for folders that cannot be read or written.
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
    const dataNames = source.config && readsTransformersJs(source.config) ? ('underscore' as const) : undefined;
    const places = { input: join(source.path, source.model), output: target };
    const model = { ...request, kvNaming, kvCaches, dataNames, ...places };
    const report = await fuseFile(model);
    if (request.dryRun)
      return { ...report, folder: { path: output, kvNaming, rewritten: [], copied: [], left: [], notes: [] } };
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
  const fused = openModel(target);
  const caches = mapCaches(original, fused, factsOf(report, renameKv), kvNaming);
  const architecture = describeArchitecture(report, source.config, source.marker);
  const notes = source.genai ? rewriteGenaiConfig(source.genai, caches) : [];
  // A plain copy stays one.
  if (source.config && report.pipeline !== '') rewriteHfConfig(source.config, architecture, caches);
  const models = report.output.map((file) => relative(staging, file.path).split(sep).join('/'));
  if (source.config) notes.push(...rewriteChunkCount(source.config, source.model, models.length - 1));
  const { copied: companions, left } = companionsOf(source, original);
  const rewritten: string[] = [];
  const copied: string[] = [];
  const refused: LeftFile[] = [];
  for (const file of companions) {
    if (models.includes(file)) {
      throw errors.usage(file, 'another model needs this data file too', 'give the .onnx file itself');
    }
    const [from, to] = [join(source.path, file), join(staging, file)];
    await mkdir(dirname(to), { recursive: true });
    if (file.endsWith('.onnx_adapter')) {
      const { reason, gone } = await carryAdapter(from, to, original, fused);
      if (reason !== null) {
        refused.push({ file, reason });
        continue;
      }
      if (gone.length > 0) notes.push(`${file}: ${gone.length} of its parameters went with what was removed`);
      (gone.length > 0 ? rewritten : copied).push(file);
    } else {
      const json = file === GENAI ? source.genai : file === CONFIG ? source.config : scalesIn(source, file, caches);
      if (json?.isChanged) await writeFile(to, json.toString());
      else await copyFile(realpathSync(from), to);
      (json?.isChanged ? rewritten : copied).push(file);
    }
    await sync(to);
  }
  const files = [...models, ...rewritten, ...copied, MARKER].sort();
  await write(join(staging, MARKER), markerText(architecture, kvNaming, files));
  return { path: staging, kvNaming, rewritten, copied, left: [...refused, ...left], notes };
}

/** Writes an adapter for the fused model. `reason` says why there is none; `gone` are the parameters it lost. */
async function carryAdapter(
  from: string,
  to: string,
  original: Model,
  fused: Model,
): Promise<{ reason: string | null; gone: readonly string[] }> {
  const adapter = readAdapter(from);
  if (!adapter) return { reason: 'not an adapter that can be read', gone: [] };
  const isInput = (model: Model, name: string): boolean => model.graph.value(name)?.isInput ?? false;
  const stranger = adapter.parameters.find(({ name }) => !isInput(original, name));
  if (stranger) return { reason: `its '${stranger.name}' is no input of the model`, gone: [] };
  const gone = adapter.parameters.map(({ name }) => name).filter((name) => !isInput(fused, name));
  if (gone.length === adapter.parameters.length && gone.length > 0) {
    return { reason: 'all of its parameters went with what was removed', gone };
  }
  await writeAdapter(adapter, (name) => isInput(fused, name), to);
  return { reason: null, gone };
}

function markerText({ onnx_fuse, ...rest }: Architecture, kvNaming: string, files: readonly string[]): string {
  return `${JSON.stringify({ onnx_fuse: { ...onnx_fuse, kv_naming: kvNaming, files }, ...rest }, null, 2)}\n`;
}

/** Writes the architecture of `report` for a model that lies in a folder with or without a config.json. */
export async function writeBlockConfigs(file: string, report: Report, input: string): Promise<void> {
  const folder = isFolder(input) ? input : dirname(input);
  await writeJson(file, describeArchitecture(report, readJson(folder, CONFIG), readJson(folder, MARKER)));
}

/** A file of KV scales, rewritten; null for any other. */
function scalesIn({ path }: ModelFolder, file: string, caches: CacheMap): JsonText | null {
  if (!file.endsWith('.json') || statSync(join(path, file)).size > LONGEST_CONFIG) return null;
  const text = readText(join(path, file), errors.readFailed);
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
  // Links to folders are entries like any other: nothing is looked at through them.
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) =>
      relative(folder, join(entry.parentPath ?? entry.path, entry.name))
        .split(sep)
        .join('/'),
    )
    .sort();
}

function oursIn(file: string): Set<string> {
  if (!existsSync(file)) return new Set();
  const own = new JsonText(readText(file, errors.readFailed), file).get(['onnx_fuse', 'files']);
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

async function guard<T>(place: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    // Only what the system says no to is the user's; anything else is a bug and keeps its stack.
    const isSystem = !(error instanceof Diagnostic) && typeof (error as NodeJS.ErrnoException).syscall === 'string';
    throw isSystem ? errors.writeFailed(place, reasonOf(error)) : error;
  }
}
