/**
 * FFN removal, as LLM-Drop (arXiv 2406.15786) and Puzzle do it:
 *
 *     r' = r + ffn(norm(r))     becomes     r' = r
 *
 * The branch goes with its norm and everything only it fed. A mixture of experts or a quantised FFN goes the same way:
 * what it computes does not matter, only that it is the layer's one branch beside the attention.
 */
import type { Node, Value } from '../../ir/core.js';
import { type Blocks, type Branch, branchesOf, type Layer, linearIn, requireLayer } from '../analysis/layers/layer.js';
import { branchesInto, isIntact, valueAt } from '../analysis/layers/residual-stream.js';
import { ABSENT, ASKED_OPTIONS, AskedLayers } from '../framework/asked-layers.js';
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
  options: { layers: layersOption('layers whose FFN goes, original numbers: 4,6-9'), ...ASKED_OPTIONS },
  statistics: { removed: 'FFN branches removed' },
  facts: factsAs<RemovedFfn>({
    describe: (removed) =>
      removed.length > 0 ? [`FFN removed from layers ${printLayers(removed.map(({ layer }) => layer))}`] : [],
  }),
  run({ options, rewriter, original, blocks, passed, refused, count, fact }) {
    if (options.layers.length === 0) return;
    // All checks come before the first change.
    const asked = new AskedLayers(options, 'FFN', refused);
    const found = new Map<number, readonly Branch[] | string>();
    const present = asked.check(options.layers, (index) => {
      const { layers } = blocks();
      const before = original.layers.find((layer) => layer.index === index);
      // A layer of which nothing but the attention was left is gone with it.
      const isGone = before !== undefined && !layers.some((layer) => layer.index === index);
      const own = isGone ? ABSENT : ffnsOf(requireLayer(layers, index), before?.attention != null);
      found.set(index, own);
      return typeof own === 'string' ? own : null;
    });
    let { stream } = blocks();
    for (const index of present) {
      const branches = found.get(index) as readonly Branch[];
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
      fact({ layer: index });
      passed('its FFN was removed', index);
    }
  },
});

/** The branches of a layer that are its FFN, or why they cannot go. */
function ffnsOf(layer: Layer, hadAttention: boolean): readonly Branch[] | string {
  // A shared expert is read as an FFN beside the others.
  const others = layer.others.filter((branch) => !branch.mixesTokens);
  const branches = [...(layer.ffn ? [layer.ffn] : []), ...others];
  if (branches.length === 0) {
    if (layer.unread) return `it was not recognised: ${layer.unread}`;
    return linearIn(layer, 'ffn') ? 'a linear stands in its place' : ABSENT;
  }
  // Branches that are no plain FFN count as one beside an attention, or when they are known to be one.
  const isKnown = layer.ffn || hadAttention || others.every(({ recognised }) => recognised !== null);
  if (!isKnown) return `it is not known to be an FFN: ${others[0]?.reason}`;
  for (const { stage } of branches) {
    const [end, start] = [valueAt(stage.end), valueAt(stage.start)];
    if (end?.isGraphOutput && (start?.isGraphOutput || start?.isInput)) {
      return `its result '${end.name}' is a graph output, and so is the value that would replace it`;
    }
  }
  return branches;
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
