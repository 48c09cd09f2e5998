/** Whether renumbering caches leaves the function of a model as it was, its caches carried on from step to step. */
import { dirname } from 'node:path';
import * as assert from 'uvu/assert';
import { type Model, openModel, referenceBytes } from '../../../ir/index.js';
import { factsOf, layersOf, parsePipeline, registry, renameKv, runPipeline } from '../../../passes/index.js';
import { type Candidate, verifyPair } from '../../../runtime/index.js';

/** Runs a pipeline and tells which caches it renamed. */
export function renamedBy(model: Model, pipeline: string): readonly { from: string; to: string }[] {
  return factsOf(runPipeline(model, parsePipeline(pipeline, registry)), renameKv);
}

function located(model: Model, folder: string): Candidate {
  return { model, location: { bytes: referenceBytes(model, folder), folder } };
}

/** Without and with renaming, both run: bit for bit the same under the old names. */
export async function assertSameFunction(path: string): Promise<void> {
  const folder = dirname(path);
  const layers = layersOf(openModel(path)).layers;
  const layer = layers.find(({ attention }) => attention && !attention.attention.blocked)?.index;
  const [plain, compact] = [openModel(path), openModel(path)];
  renamedBy(plain, `remove-attention{layers=${layer}}`);
  const renamed = renamedBy(compact, `remove-attention{layers=${layer}},rename-kv{naming=compact}`);
  assert.ok(renamed.length > 0, 'nothing was renamed');
  const names = new Map(renamed.map(({ from, to }) => [to, from]));
  const comparison = await verifyPair(located(plain, folder), located(compact, folder), { renamed: names });
  assert.is(comparison.worst.absolute, 0);
  assert.equal([comparison.onlyReference, comparison.onlyCandidate], [[], []]);
  assert.equal(comparison.cached, [true, true], 'the caches were not carried on');
}
