/**
 * FFN removal, as LLM-Drop (arXiv 2406.15786) and Puzzle do it:
 *
 *     r' = r + ffn(norm(r))     becomes     r' = r
 *
 * The branch goes with its norm and everything only it fed. A mixture of experts or a quantised FFN goes the same way:
 * what it computes does not matter, only that it is the layer's one branch beside the attention.
 */
import { ASKED_OPTIONS } from '../framework/asked-layers.js';
import { factsAs, layersText } from '../framework/facts.js';
import { layersOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';
import { removableFfns, takeOutFfns } from '../removal/ffn.js';

/** An FFN that went; the number is the original one. */
export interface RemovedFfn {
  readonly layer: number;
}

export const removeFfn = definePass({
  id: 'remove-ffn',
  scope: 'decoder',
  summary: 'remove the FFN branches of chosen layers with their norms',
  effect: 'changes-function',
  options: { layers: layersOption('layers whose FFN goes, original numbers: 4,6-9'), ...ASKED_OPTIONS },
  statistics: { removed: 'FFN branches removed' },
  facts: factsAs<RemovedFfn>({
    describe: (removed) =>
      removed.length > 0 ? [`FFN removed from ${layersText(removed.map(({ layer }) => String(layer)))}`] : [],
  }),
  run(context) {
    const { options, original, blocks, passed, refused, count, fact } = context;
    if (options.layers.length === 0) return;
    // All checks come before the first change.
    const ffns = removableFfns(options.layers, options, original, blocks(), refused);
    takeOutFfns(context, ffns, () => null);
    for (const { index, branches } of ffns) {
      fact({ layer: index });
      passed('its FFN was removed', index);
      count('removed', branches.length);
    }
  },
});
