/** Maps for a list of layers that somebody chose: fitted on text, judged on text that nothing was fitted on. */
import { errors, openModel } from '../../ir/index.js';
import { type FuseOptions, layersOf, requireLayer, selectedLayers } from '../../passes/index.js';
import { checkEnds, cutPieces, type SessionOptions } from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import type { Talk } from '../basics/progress.js';
import type { RecoveryFact } from '../fuse/recovery-fact.js';
import { runsAfter } from './candidates.js';
import { mapFacts, saveFits } from './fit-file.js';
import { checkRank, type MapForm } from './map-form.js';
import { Measurement } from './measurement.js';
import { choiceOf, type DraftMove, draftMoves, findMove, fuseMove, type PlanMove, walkOf, walkWith } from './moves.js';
import { Phases } from './phases.js';
import { fuseOptionsOf } from './plan-file.js';
import { type PlanTextRequest, positionsOf, readPlanTexts } from './texts.js';

/** What is to be recovered, and on what text. */
export interface FitRequest extends PlanTextRequest {
  readonly model: string;
  /** The removals and runs that were asked for. */
  readonly fuse: FuseOptions;
  readonly session: SessionOptions;
  /** How maps are stored. */
  readonly form: MapForm;
  /** Where the maps are written. */
  readonly fitFile: string;
  readonly talk: Talk;
}

/** Costs that tell nothing: what is done was decided already. */
const NO_COSTS = { attention: () => 0, ffn: () => 0, linear: 0, fusion: () => 0 };

/**
 * Fits maps in the place of the attentions and FFNs that `fuse` removes, and writes them to `fitFile`. FFNs are fused as
 * they would be without maps. Returns what makes the recovered model, over the options in `fuse`, and the figures.
 * @throws Diagnostic OF_NO_SUCH_LAYER, OF_CANNOT_REMOVE, OF_CANNOT_RECOVER, OF_TOKEN_DATA and those of the runtime.
 */
export async function fitMaps(
  request: FitRequest,
): Promise<{ readonly options: FuseOptions; readonly recovery: RecoveryFact }> {
  const { model, fuse, form, talk } = request;
  const original = openModel(model);
  const { layers } = layersOf(original);
  const listOf = (selection: FuseOptions['removeAttention']) => (selection ? selectedLayers(selection) : []);
  const [attention, ffn] = [listOf(fuse.removeAttention), listOf(fuse.removeFfn)];
  if (fuse.parallelizeBlocks && fuse.parallelizeBlocks.length > 0) {
    const why = 'maps are fitted on layers one after another, not on blocks that are made parallel';
    throw errors.usage('option recover', why, 'leave option parallelize-blocks out, or do it in a second run');
  }
  if (attention.length + ffn.length === 0) {
    const why = 'no layer loses anything in whose place a map could stand';
    throw errors.usage(
      'option recover',
      why,
      'name layers (option remove-attention), or make a plan, which chooses them',
    );
  }
  for (const layer of [...attention, ...ffn]) requireLayer(layers, layer);
  const runs = fuse.fuse === false ? [] : runsAfter(model, attention, fuse);
  checkRank(form, () => cutPieces(model).hidden);
  const texts = await readPlanTexts(model, original, request, true);
  await checkEnds(model, original);
  const measurement = await Measurement.open(model, texts, request.session, form);
  const { work } = measurement;
  const phases = new Phases(talk, 'recovering', {
    'running the original': work.fit + work.search,
    'fitting maps': work.fit + work.search,
    'checking them': 3 * work.check,
  });
  try {
    const { pieces } = measurement.model;
    const drafts = draftMoves(pieces, layers, NO_COSTS, true);
    const moves = [
      ...attention.map((layer) => mapOf(drafts, 'attention', layer)),
      ...ffn.map((layer) => mapOf(drafts, 'ffn', layer)),
      ...runs.map((run) => fuseMove(run, NO_COSTS)),
    ];
    await measurement.prepare((done, total) => phases.at('running the original', done / total));
    phases.at('fitting maps', 0);
    const fits = await measurement.finalFits(moves);
    phases.at('checking them', 0);
    const recovered = await measurement.checked(walkWith(moves, pieces, fits));
    const removed = await measurement.checked(walkOf(moves, pieces, () => 'remove'));
    const fit = await saveFits(request.fitFile, fits, pieces);
    const choice = choiceOf(moves, pieces, fits);
    return {
      options: fuseOptionsOf(choice, fit ? request.fitFile : null),
      recovery: {
        fitted: { source: texts.source, positions: positionsOf([...texts.fit, ...texts.search]) },
        source: texts.heldOut ?? `the end of ${texts.source}`,
        maps: mapFacts(fits, pieces),
        removed,
        recovered,
      },
    };
  } finally {
    phases.done();
    await measurement.release();
  }
}

/** @throws Diagnostic OF_CANNOT_RECOVER. */
function mapOf(drafts: readonly DraftMove[], part: 'attention' | 'ffn', layer: number): PlanMove {
  const move = findMove(drafts, layer, `map ${part}`);
  if (move) return move;
  throw apiErrors.cannotRecover(layer, part === 'ffn' ? 'FFN' : 'attention');
}
