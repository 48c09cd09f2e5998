/**
 * FFN removal, as LLM-Drop (arXiv 2406.15786) and Puzzle do it:
 *
 *     r' = r + ffn(norm(r))     becomes     r' = r
 *
 * The branch goes with its norm and everything only it fed. A mixture of experts or a quantised FFN goes the same way:
 * what it computes does not matter, only that it is the layer's one branch beside the attention.
 */
import type { Node, Value } from '../../ir/core.js';
import { passErrors } from '../analysis/errors.js';
import { type Blocks, type Branch, branchesOf, type Layer, requireLayer } from '../analysis/layers/layer.js';
import { branchesInto, isIntact, valueAt } from '../analysis/layers/residual-stream.js';
import { factsAs } from '../framework/facts.js';
import { layersOption, printLayers } from '../framework/options.js';
import { definePass } from '../framework/pass.js';
import { isSumUpTo } from '../rewrite/rewriter.js';

/** An FFN that went; the number is the original one. */
export interface RemovedFfn {
  readonly layer: number;
}

export const removeFfn = definePass({
  id: 'remove-ffn',
  scope: 'decoder',
  summary: 'remove the FFN branches of chosen layers with their norms',
  effect: 'changes-function',
  options: { layers: layersOption('layers whose FFN goes, original numbers: 4,6-9') },
  statistics: { removed: 'FFN branches removed' },
  facts: factsAs<RemovedFfn>({
    describe: (removed) =>
      removed.length > 0 ? [`FFN removed from layers ${printLayers(removed.map(({ layer }) => layer))}`] : [],
  }),
  run({ options, rewriter, original, blocks, passed, missed, count, fact }) {
    if (options.layers.length === 0) return;
    // All checks come before the first change.
    const wanted = options.layers.map((index) => ({ index, branches: ffnsOf(index, blocks(), original) }));
    let { stream } = blocks();
    for (const { index, branches } of wanted) {
      if (branches.length === 0) missed('it has no FFN to remove', index);
      for (const branch of branches) {
        const { output } = branch;
        // Where an earlier removal took an end of the stage, the branch is found again by the node that ends it.
        const isSame = isIntact(branch.stage);
        if (!isSame) stream = blocks().stream;
        const found = isSame ? branch : branchOf(output, blocks());
        if (!found) throw new Error(`the FFN of layer ${index} is no branch any more`);
        const { stage } = found;
        rewriter.dropTerm(output, isSumUpTo(stage.end, stage.start, stream.position));
        rewriter.eraseProducer(output);
        if ('opType' in stage.start) rewriter.tidySkipNorm(stage.start, branchesInto(stream, stage.start));
        count('removed');
      }
      if (branches.length === 0) continue;
      fact({ layer: index });
      passed('its FFN was removed', index);
    }
  },
});

/** The branches of a layer that are its FFN; none when it has none. Throws when they cannot be told or cannot go. */
function ffnsOf(index: number, { layers }: Blocks, original: Blocks): readonly Branch[] {
  // A layer of which nothing but the attention was left is gone with it.
  const isGone = original.layers.some((layer) => layer.index === index);
  if (isGone && !layers.some((candidate) => candidate.index === index)) return [];
  const layer = requireLayer(layers, index);
  const branches = layer.ffn ? [layer.ffn] : othersOf(layer, original);
  for (const { stage } of branches) {
    const [end, start] = [valueAt(stage.end), valueAt(stage.start)];
    if (end?.isGraphOutput && (start?.isGraphOutput || start?.isInput)) {
      const why = `its result '${end.name}' is a graph output, and so is the value that would replace it`;
      throw passErrors.cannotRemove(index, 'FFN', why);
    }
  }
  return branches;
}

/** Branches that are no plain FFN count as one beside an attention, or when they are known to be one. */
function othersOf(layer: Layer, original: Blocks): readonly Branch[] {
  const others = layer.others.filter((branch) => !branch.mixesTokens);
  if (others.length === 0) return [];
  const hadAttention = original.layers.some(({ index, attention }) => attention && index === layer.index);
  const known = others.every((branch) => branch.recognised !== null);
  if (hadAttention || known) return others;
  throw passErrors.cannotRemove(layer.index, 'FFN', `it is not known to be an FFN: ${others[0]?.reason}`);
}

function branchOf(output: Value, { layers }: Blocks): Branch | null {
  const producer: Node | null = output.producer;
  for (const layer of layers) {
    for (const branch of branchesOf(layer)) {
      if (branch.output === output || (producer && branch.output.producer === producer)) return branch;
    }
  }
  return null;
}
