/** What happens when FFNs leave the graph, whatever is put in their place. */
import type { Node, Value } from '../../ir/core.js';
import { type Blocks, type Branch, branchesOf, type Layer, linearIn, requireLayer } from '../analysis/layers/layer.js';
import { isIntact, statisticsOf, valueAt } from '../analysis/layers/residual-stream.js';
import { ABSENT, AskedLayers, type AskedOptions } from '../framework/asked-layers.js';
import type { PassContext } from '../framework/pass.js';
import type { Rewriter } from '../rewrite/rewriter.js';
import { type StandIn, takeOut } from './branch.js';

/** The branches that are the FFN of a layer: one, or, of a mixture of experts, several on one sum. */
export interface LayerFfn {
  /** Original number. */
  readonly index: number;
  readonly branches: readonly Branch[];
}

/** The FFNs of the layers `indices` that can go. Throws where one cannot, or says so with `keep-going`. */
export function removableFfns(
  indices: readonly number[],
  options: AskedOptions,
  original: Blocks,
  blocks: Blocks,
  refused: PassContext<unknown>['refused'],
): LayerFfn[] {
  const asked = new AskedLayers(options, 'FFN', refused);
  const found = new Map<number, readonly Branch[] | string>();
  const present = asked.check(indices, (index) => {
    const { layers } = blocks;
    const before = original.layers.find((layer) => layer.index === index);
    // A layer of which nothing but the attention was left is gone with it.
    const isGone = before !== undefined && !layers.some((layer) => layer.index === index);
    const own = isGone ? ABSENT : ffnsOf(requireLayer(layers, index), before?.attention != null);
    found.set(index, own);
    return typeof own === 'string' ? own : null;
  });
  return present.map((index) => ({ index, branches: found.get(index) as readonly Branch[] }));
}

/** Takes `ffns`, which `removableFfns` gave, out of the graph, and puts what `standIn` says in the place of each. */
export function takeOutFfns(
  { rewriter, blocks }: { readonly rewriter: Rewriter; readonly blocks: () => Blocks },
  ffns: readonly LayerFfn[],
  standIn: (ffn: LayerFfn, blocks: Blocks) => StandIn | null,
): void {
  let current = blocks();
  for (const { index, branches } of ffns) {
    // Where an earlier removal took an end of the stage, the branches are found again by the nodes that end them.
    const find = (branch: Branch): Branch => {
      if (isIntact(branch.stage)) return branch;
      current = blocks();
      const found = branchOf(branch.output, current);
      if (!found) throw new Error(`the FFN of layer ${index} is no branch any more`);
      return found;
    };
    let substitute = standIn({ index, branches: branches.map(find) }, current);
    for (const branch of branches) {
      const { stage, output } = find(branch);
      takeOut({ stage, output, nodes: [] }, current.stream, substitute, rewriter);
      substitute = null;
    }
  }
}

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
    const statistics = statisticsOf(stage.end);
    if (statistics) return statistics;
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
