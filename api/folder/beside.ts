/**
 * `onnx-fuse model_dir/ model_dir/fused.onnx --share-weights`: a second model in the folder of the first, which shares its
 * weights. What is there is left alone, so the configs that fit the second one get names of their own beside it.
 */
import { dirname, join, resolve } from 'node:path';
import { errors, openModel } from '../../ir/index.js';
import { factsOf, renameKv } from '../../passes/index.js';
import { writeWhole } from '../basics/small-file.js';
import { fuseFile } from '../fuse/fuse.js';
import type { Report } from '../fuse/report.js';
import type { FuseRequest } from '../fuse/request.js';
import { mapCaches } from './cache-map.js';
import { namingFor, rewriteGenaiConfig } from './genai-config.js';
import { GENAI, readModelFolder } from './model-folder.js';

/**
 * Fuses the model of `request.input`, a folder, into the file `request.output` beside it.
 * @throws Diagnostic like `fuseFile`, and OF_USAGE for an output that does not lie there.
 */
export async function fuseBeside(request: FuseRequest): Promise<Report> {
  const source = readModelFolder(request.input);
  const model = join(source.path, source.model);
  const { output } = request;
  if (!output.endsWith('.onnx') || dirname(resolve(output)) !== dirname(resolve(model))) {
    const remedy = `write to ${join(dirname(model), 'fused.onnx')}, say`;
    throw errors.usage(output, 'weights can be shared only with a file beside the model', remedy);
  }
  const kvNaming = source.genai ? namingFor(source.genai, request.kvNaming) : (request.kvNaming ?? 'preserve');
  const kvCaches = request.kvCaches ?? (source.genai ? 'separate' : undefined);
  const report = await fuseFile({ ...request, kvNaming, kvCaches, input: model, output });
  const { path } = source;
  const facts = { path, kvNaming, rewritten: [], copied: [], left: [], notes: [] };
  if (request.dryRun || !source.genai) return { ...report, folder: facts };
  const caches = mapCaches(openModel(model), openModel(output), factsOf(report, renameKv), kvNaming);
  const notes = rewriteGenaiConfig(source.genai, caches);
  source.genai.set(['model', 'decoder', 'filename'], output.slice(dirname(output).length).replace(/^[\\/]/, ''));
  const config = output.replace(/\.onnx$/, `.${GENAI}`);
  await writeWhole(config, source.genai.toString());
  notes.push(`onnxruntime-genai: config = Config(folder); config.overlay(text of ${config}); Model(config)`);
  return { ...report, folder: { ...facts, rewritten: [config], notes } };
}
