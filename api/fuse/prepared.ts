/** Models made for a check only, in a form that onnxruntime can load. */
import { join } from 'node:path';
import { type Model, openModel, referenceOf, stageModel } from '../../ir/index.js';
import { type Candidate, computedWeightBytes } from '../../runtime/index.js';

/** A model to run that goes away afterwards. */
export interface Prepared extends Candidate {
  discard(): Promise<void>;
}

/** Up to this many bytes of computed weights are held in memory; more are written to a temporary file. */
const IN_MEMORY = 64 * 2 ** 20;

/**
 * Makes a model loadable. Weights that lie in files are used where they lie; those that are
 * expressions are computed: in memory when they are small, else into a temporary folder inside `folder`, in bounded
 * memory. @throws Diagnostic OF_WRITE, OF_READ, OF_WEIGHT_OVERFLOW.
 */
export async function prepare(model: Model, folder: string, inMemory: number = IN_MEMORY): Promise<Prepared> {
  if (computedWeightBytes(model) <= inMemory) {
    return { location: referenceOf(model), model, discard: async () => {} };
  }
  const staged = await stageModel(model, join(folder, 'check.onnx'), { external: true });
  return { location: staged.headerPath, model: openModel(staged.headerPath), discard: () => staged.discard() };
}
