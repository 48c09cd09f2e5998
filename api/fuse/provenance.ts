/** Who made a file, and how, in the file itself: metadata_props that onnxruntime hands to whoever asks. */
import type { Model } from '../../ir/index.js';
import { printPipeline, type Step } from '../../passes/index.js';
import { packageVersion } from '../basics/package-version.js';

/** The version that wrote the file last. */
export const VERSION_KEY = 'onnx-fuse.version';
/** The pipelines of all runs that changed the model, the first one first. */
export const PIPELINE_KEY = 'onnx-fuse.pipeline';
/** Stands between the pipelines of two runs; no pipeline contains it. */
const NEXT_RUN = '; ';

/** Says in the model that onnx-fuse ran `steps` on it: the version replaces an earlier one, the pipeline comes after earlier ones. */
export async function stampProvenance(model: Model, steps: readonly Step[]): Promise<void> {
  const earlier = model.metadata.filter(([key]) => key === PIPELINE_KEY).map(([, pipeline]) => pipeline);
  const stamps: [string, string][] = [
    [VERSION_KEY, await packageVersion()],
    [PIPELINE_KEY, [...earlier, printPipeline(steps)].join(NEXT_RUN)],
  ];
  const others = model.metadata.filter(([key]) => key !== VERSION_KEY && key !== PIPELINE_KEY);
  model.metadata = [...others, ...stamps];
}
