/** One plan done in several ways: the ablations of FFN Fusion (arXiv 2503.18908), on any model. */
import { openModel, referenceOf } from '../../ir/index.js';
import { fuseSteps, runPipeline } from '../../passes/index.js';
import {
  ForcedScorer,
  gateFeeds,
  gateModel,
  measureQuality,
  NO_CHANGE,
  openGated,
  openSession,
  readSignature,
  type Scorer,
  type TokenBatch,
} from '../../runtime/index.js';
import type { Talk } from '../basics/progress.js';
import { runsAfter } from './candidates.js';
import { GatedText } from './gated.js';
import { type Ablation, fuseOptionsOf, type LayerChoice, type PlanOptions, type Quality } from './plan-file.js';
import type { Sequences } from './texts.js';

/** Quality of runs that read one norm, that of their last FFN, on the rewritten graph, in memory. */
async function measureRewritten(
  path: string,
  choice: LayerChoice,
  batches: readonly TokenBatch[],
  reference: Scorer,
): Promise<Quality> {
  const model = openModel(path);
  runPipeline(model, fuseSteps({ ...fuseOptionsOf(choice, null), norm: 'last' }));
  const session = await openSession(referenceOf(model));
  try {
    const scorer = new ForcedScorer(session, readSignature(model));
    return (await measureQuality(batches, reference, (batch) => scorer.scores(batch))).quality;
  } finally {
    await session.release();
  }
}

/** The ablations of arXiv 2503.18908 on the attentions that a plan takes out, without any maps, on all of the text. */
export async function measureAblations(
  model: string,
  sequences: Sequences,
  options: PlanOptions,
  chosen: LayerChoice,
  talk: Talk,
): Promise<Ablation[]> {
  const gated = await GatedText.open(model, sequences);
  try {
    return await ablationsOf(gated, options, chosen, talk);
  } finally {
    talk.done();
    await gated.release();
  }
}

async function ablationsOf(
  gated: GatedText,
  options: PlanOptions,
  chosen: LayerChoice,
  talk: Talk,
): Promise<Ablation[]> {
  const { path: model, reference, batches } = gated;
  const measure = (choice: LayerChoice): Promise<Quality> => gated.quality(choice);
  const removeAttention = [...chosen.removeAttention, ...chosen.linearizeAttention].sort((a, b) => a - b);
  const removal: LayerChoice = { ...NO_CHANGE, removeAttention };
  const runsWith = (keepLast: number): LayerChoice['runs'] =>
    runsAfter(model, removeAttention, { keepLast, lead: options.lead });
  const result: Ablation[] = [];
  const add = async (name: string, work: () => Promise<Quality>): Promise<void> => {
    talk.progress('measuring ablations', result.length, 6);
    result.push({ name, quality: await work() });
  };
  const [kept, whole] = [runsWith(1), runsWith(0)];
  await add('attentions removed, FFNs in order', () => measure(removal));
  if (kept.length > 0) {
    await add('fused, the last FFN of each run kept apart', () => measure({ ...removal, runs: kept }));
    await add('the same with one norm, that of the last', () =>
      measureRewritten(model, { ...removal, runs: kept }, batches, reference),
    );
    await add('FFNs of the same runs in reverse order', () =>
      measureReversed(model, removal, kept, batches, reference),
    );
    await add('FFNs of the same runs removed', () => measure({ ...removal, removeFfn: kept.flat() }));
  }
  if (whole.length > 0) await add('fused, the last FFN too', () => measure({ ...removal, runs: whole }));
  return result;
}

/** FFNs of the runs one after another in reverse order, on an instrumented graph of their own. */
async function measureReversed(
  path: string,
  removal: LayerChoice,
  runs: LayerChoice['runs'],
  batches: readonly TokenBatch[],
  reference: Scorer,
): Promise<Quality> {
  const gated = gateModel(path, { removeAttention: removal.removeAttention, runs });
  const session = await openGated(gated);
  try {
    const scorer = new ForcedScorer(session, gated.signature);
    const feeds = gateFeeds(gated.plan, NO_CHANGE);
    return (await measureQuality(batches, reference, (batch) => scorer.scores(batch, feeds))).quality;
  } finally {
    await session.release();
  }
}
