/** Who made a file, and how, in the file itself: metadata_props that onnxruntime hands to whoever asks. */
import { statSync } from 'node:fs';
import type { Model } from '../../ir/index.js';
import { printPipeline, type Step } from '../../passes/index.js';
import { packageVersion } from '../basics/package-version.js';
import { fileFact } from './file-fact.js';

/** The version that wrote the file last. */
export const VERSION_KEY = 'onnx-fuse.version';
/** The pipelines of all runs that changed the model, the first one first. */
export const PIPELINE_KEY = 'onnx-fuse.pipeline';
/** Stands between the pipelines of two runs; no pipeline contains it. */
const NEXT_RUN = '; ';

/**
 * The text of a pipeline as it is kept: files that it reads by what is in them, `map=sha256:4f1c...`. A path differs from run to
 * run and says where somebody works.
 */
export async function keptPipeline(steps: readonly Step[]): Promise<string> {
  const kept = steps.map(async ({ pass, options }): Promise<Step> => {
    const entries = Object.entries(options).map(async ([name, value]) => {
      if (typeof value !== 'string' || value === '' || !pass.options[name]?.isFile) return [name, value];
      const { sha256 } = await fileFact(value, statSync(value).size, true);
      return [name, `sha256:${sha256}`];
    });
    return { pass, options: Object.fromEntries(await Promise.all(entries)) };
  });
  return printPipeline(await Promise.all(kept));
}

/** Says in the model that onnx-fuse ran a pipeline on it, given as it is kept: the version replaces an earlier one, the pipeline comes after earlier ones. */
export async function stampProvenance(model: Model, pipeline: string): Promise<void> {
  const earlier = model.metadata.filter(([key]) => key === PIPELINE_KEY).map(([, text]) => text);
  const stamps: [string, string][] = [
    [VERSION_KEY, await packageVersion()],
    [PIPELINE_KEY, [...earlier, pipeline].join(NEXT_RUN)],
  ];
  const others = model.metadata.filter(([key]) => key !== VERSION_KEY && key !== PIPELINE_KEY);
  model.metadata = [...others, ...stamps];
}
