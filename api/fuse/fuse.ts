/** A model file into another: open, transform, write aside, check, commit, report. */
import { errors, modelSources, openModel } from '../../ir/index.js';
import { concatAttention, concatFfn, factsOf } from '../../passes/index.js';
import { apiErrors } from '../basics/errors.js';
import { silent } from '../basics/progress.js';
import { figuresOf } from './figures.js';
import { keptPipeline, stampProvenance } from './provenance.js';
import { type Report, reportOf, unchecked } from './report.js';
import { type FuseRequest, stepsOf } from './request.js';
import { Stopwatch } from './stopwatch.js';
import { type Transformed, transform } from './transform.js';
import { type Written, writeChecked } from './write.js';

/**
 * Fuses a model file into another. Nothing appears at the output unless everything succeeded.
 * @throws Diagnostic for everything a user can mend.
 */
export async function fuseFile(request: FuseRequest): Promise<Report> {
  if (request.shareWeights && request.external === false) {
    const why =
      'weights that are shared lie in files beside the model, and all were asked to be in it (option external)';
    throw errors.usage('option share-weights', why, 'keep one of the two');
  }
  const watch = new Stopwatch(request.talk ?? silent);
  const steps = stepsOf(request);
  const original = await watch.time('read', () => openModel(request.input));
  const sources = modelSources(original);
  const before = figuresOf(original, request.device);
  const isDefault = request.pipeline === undefined;
  const made = await watch.time('transform', () => transform(request.input, original, steps, isDefault));
  if (request.requireFusion && !isFused(made)) throw apiErrors.nothingFused(whyNothing(made));
  const pipeline = await keptPipeline(made.steps);
  // An unchanged copy is the same to the byte.
  if (made.result.changed) await stampProvenance(made.model, pipeline);
  const written = request.dryRun ? NOT_WRITTEN : await writeChecked(request, made, watch);
  const after = figuresOf(made.model, request.device);
  return reportOf({ request, sources, before, after, made, pipeline, written, watch });
}

const NOT_WRITTEN: Written = {
  files: [],
  bytesRead: 0,
  bytesWritten: 0,
  shared: [],
  checks: unchecked('a dry run writes nothing that could be checked'),
};

function isFused({ result }: Transformed): boolean {
  return factsOf(result, concatFfn).length + factsOf(result, concatAttention).length > 0;
}

function whyNothing({ left, before }: Transformed): string {
  const named = left.filter(({ layer }) => layer !== null);
  // That other layers have their attentions yet says least.
  const first = named.find(({ message }) => !message.startsWith('its attention stays')) ?? named[0] ?? left[0];
  if (first) return first.layer === null ? first.message : `layer ${first.layer}: ${first.message}`;
  return before?.reason ?? 'the pipeline fuses nothing';
}
