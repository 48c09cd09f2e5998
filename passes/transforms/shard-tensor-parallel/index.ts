/**
 * One rank's model of a tensor-parallel group (Megatron-LM, arXiv 1909.08053; the words are Hugging Face's):
 *
 *     q, k, v, gate, up   colwise: a rank's heads or channels      o, down   rowwise, then one all-reduce over the ranks
 *
 * For weights [in, out] and rank r of two, SwiGLU before and after:
 *
 *     (silu(x Wg) * (x Wu)) Wd    ->    all_reduce( (silu(x Wg[:, r]) * (x Wu[:, r])) Wd[r, :] )
 *
 * The ranks' sum is the branch's result up to rounding. What follows the last projection (bias, factor, norm) is computed
 * once, after the sum; norms, residual stream and embedding are replicated. Head counts, reshaped sizes and KV caches are
 * a rank's share; ranks that are more than the key-value heads hold some of them together. Packed projections are cut part
 * by part. Weights are slices of the same expressions: nothing is read here.
 *
 * Branches of one sum (attention and FFN in parallel, FFNs made parallel) share one all-reduce (`shared-sum.ts`).
 *
 * One matrix in the place of a branch is cut by rows where it shares its sum with an FFN that is cut: every rank has what it
 * reads, and its partial sum joins the FFN's. Two matrices of low rank are cut like gate and down. Alone on its sum either is
 * replicated.
 *
 * The output projection to the vocabulary is cut by columns and gathered (`lm-head=gather`), or replicated.
 *
 * What it will not find, and leaves replicated, which is right but no faster: experts, norms across all heads (OLMo 2),
 * heads that do not divide among the ranks, quantisation blocks across the heads of two ranks, attentions whose keys other
 * layers read.
 */

import type { Graph, Value } from '../../../ir/core.js';
import { errors } from '../../../ir/diagnostic.js';
import { counted } from '../../../ir/visible.js';
import { cutBranch } from '../../analysis/heads/cut/branch.js';
import { liveValues } from '../../analysis/layers/fixed-layers.js';
import { type Branch, branchesOf, type FfnBranch, slotOf } from '../../analysis/layers/layer.js';
import type { Stage } from '../../analysis/layers/residual-stream.js';
import { SHARD_PREFIX, shardName } from '../../analysis/layers/weight-names.js';
import { standardOpset } from '../../analysis/opset.js';
import { attempt, Refusal } from '../../analysis/refusal.js';
import { factsAs } from '../../framework/facts.js';
import { choiceOption, flagOption, integerOption, layersOption } from '../../framework/options.js';
import { definePass } from '../../framework/pass.js';
import { COLLECTIVES, type Collective, CollectiveWriter } from './collectives.js';
import { LinearShare } from './linear-share.js';
import { Sharder } from './sharder.js';
import { type PartialSum, sumOverRanks } from './shared-sum.js';
import { cutVocabulary, vocabularyProjection } from './vocabulary.js';

export { COLLECTIVES, type Collective, type CollectiveStyle } from './collectives.js';

/** A rank's model of a tensor-parallel group. */
export interface ShardFacts {
  readonly ranks: number;
  readonly rank: number;
  /** What was done with each branch, in the order of layers. */
  readonly branches: readonly CutFact[];
  /** KV caches that are cut: graph inputs and outputs, with all heads, a rank's heads and how many different pieces. */
  readonly caches: readonly {
    readonly name: string;
    readonly axis: number;
    readonly heads: number;
    readonly size: number;
    readonly pieces: number;
  }[];
  /** In the order in which they run. */
  readonly collectives: readonly Collective[];
  /** Why the projection to the vocabulary is replicated; null where it is cut. */
  readonly vocabularyReason: string | null;
}

/** What became of one attention or FFN. */
export interface CutFact {
  readonly layer: string;
  readonly role: 'attention' | 'ffn';
  /** Why it is replicated; null where it is cut. */
  readonly reason: string | null;
  /** Channels of zeros that all ranks together have beyond the original's. */
  readonly padding: number;
  readonly heads: number | null;
  readonly kvHeads: number | null;
}

export const shardTensorParallel = definePass({
  id: 'shard-tensor-parallel',
  summary: 'cut heads, FFN channels and vocabulary over ranks, and make the model of one of them',
  effect: 'reassociates',
  options: {
    ranks: integerOption('how many ranks there are', 2, 2),
    rank: integerOption('whose model is made, from 0', 0),
    collectives: choiceOption('who runs the collectives', COLLECTIVES, 'ort'),
    'lm-head': choiceOption('the projection to the vocabulary', ['gather', 'replicate'], 'gather'),
    refuse: flagOption('leave FFNs replicated whose width does not divide, instead of filling up with zeros'),
    'replicate-attention': layersOption('layers whose attention every rank computes whole'),
    'replicate-ffn': layersOption('layers whose FFN every rank computes whole'),
  },
  statistics: {
    attention: 'attentions cut',
    ffn: 'FFNs cut',
    replicated: 'branches that every rank computes whole',
    collectives: 'collectives for each token',
  },
  facts: factsAs<ShardFacts>({
    describe: (made) =>
      made.map(({ rank, ranks, branches }) => {
        const cut = branches.filter(({ reason }) => reason === null).length;
        return `the model of rank ${rank} of ${ranks}: ${cut} of ${branches.length} attentions and FFNs are cut`;
      }),
  }),
  run({ model, graph, options, rewriter, blocks, passed, missed, count, fact }) {
    const { ranks, rank } = options;
    if (rank >= ranks)
      throw errors.usage('rank', `there is no rank ${rank} of ${ranks}`, `choose of 0 to ${ranks - 1}`);
    const { stream, layers, reason } = blocks();
    if ([...graph.values].some(({ name }) => name.startsWith(SHARD_PREFIX))) {
      missed('the model is a rank of a group already');
      return;
    }
    if (reason !== null || stream.graph !== graph) {
      missed(`nothing is cut: ${reason ?? 'the decoder lies inside an If, where ranks cannot be kept in step'}`);
      return;
    }
    const opset = standardOpset(model);
    const writer = new CollectiveWriter(model, graph, options.collectives, ranks);
    const live = liveValues(graph);
    const sharders: Sharder[] = [];
    const branches: CutFact[] = [];
    const hosts = new Map<Stage, { readonly branch: FfnBranch; readonly sharder: Sharder }>();
    // Linears come last: they join what is cut beside them.
    const isLinear = (branch: Branch): boolean => branch.role === 'linear';
    const all = layers.flatMap((layer) => branchesOf(layer).map((branch) => ({ layer, branch })));
    for (const linears of [false, true]) {
      for (const { layer, branch } of all.filter((each) => isLinear(each.branch) === linears)) {
        const role = slotOf(branch);
        const fact = { layer: layer.label, role, padding: 0, heads: null, kvHeads: null } as const;
        const sharder = attempt(() => {
          if (options[`replicate-${role}`].includes(layer.index)) throw new Refusal('this was asked for');
          if (!live.has(branch.output)) throw new Refusal('no output depends on it');
          const host = hosts.get(branch.stage);
          if (branch.role === 'linear') {
            const name = `${shardName(layer.label, role)}.linear`;
            const share = new LinearShare(branch, host?.branch ?? null, { rank, ranks }, name);
            host?.sharder.beside.push(share);
            return share;
          }
          const cut = cutBranch(branch, layer.label, stream, opset, { ranks, pads: !options.refuse });
          const other = sharders.find((each) => each.cut.last.node === cut.last.node);
          if (other) throw new Refusal(`it is computed in layer ${other.cut.label}, and cut there`);
          return new Sharder(cut, branch, rewriter, { rank, ranks }, opset);
        });
        if (sharder instanceof Refusal) {
          branches.push({ ...fact, reason: sharder.message });
          missed(`its ${NAMES[role]} is replicated: ${sharder.message}`, layer.label);
          count('replicated');
          continue;
        }
        if (sharder instanceof LinearShare) {
          branches.push({ ...fact, reason: null });
          passed(
            `the linear in the place of its ${NAMES[role]} is cut, and adds to the all-reduce beside it`,
            layer.label,
          );
          count(role);
          continue;
        }
        if (branch.role === 'ffn') hosts.set(branch.stage, { branch, sharder });
        sharders.push(sharder);
        const { padding, heads, kvHeads } = sharder.cut;
        branches.push({ ...fact, reason: null, padding, heads, kvHeads });
      }
    }
    const places = new Map(layers.map(({ label }, i) => [label, i]));
    branches.sort((a, b) => (places.get(a.layer) ?? 0) - (places.get(b.layer) ?? 0));
    const head = attempt(() => {
      if (options['lm-head'] !== 'gather') throw new Refusal('this was asked for');
      return vocabularyProjection(graph, layers);
    });
    const caches: ShardFacts['caches'][number][] = [];
    const partials: PartialSum[] = [];
    for (const sharder of sharders) {
      const { cut } = sharder;
      partials.push(sharder.apply(stream));
      for (const { value, spread } of cut.caches) {
        const [piece] = spread.cuts ?? [];
        const [heads] = spread.parts[0] ?? [];
        if (piece && heads !== undefined) caches.push({ name: value.name, axis: spread.axis, heads, ...piece });
      }
      const width = cut.input.parts.map(([size = 0]) => size).join('+');
      const what =
        cut.role === 'attention' ? `attention of ${counted(cut.heads ?? 0, 'head')}` : `FFN of ${width} channels`;
      const padded = cut.padding > 0 ? `, with ${counted(cut.padding, 'channel')} of zeros` : '';
      passed(`its ${what} is cut over ${ranks} ranks${padded}`, cut.label);
      count(cut.role);
    }
    for (const { place, beside } of sumOverRanks(partials, writer, rewriter, stream, opset)) {
      passed(`what the ranks have of ${place} is summed with ${beside}, in one all-reduce`);
    }
    const gathered = attempt(() => {
      if (head instanceof Refusal) throw head;
      return cutVocabulary(head, { rank, ranks }, stream, writer, rewriter);
    });
    const why = gathered instanceof Refusal ? gathered.message : null;
    keepNames(graph, new Map(sharders.flatMap(({ renamed }) => [...renamed])));
    if (why !== null) missed(`the projection to the vocabulary is replicated: ${why}`);
    count('collectives', writer.made.length);
    fact({ ranks, rank, branches, caches, collectives: writer.made, vocabularyReason: why });
  },
});

const NAMES = { attention: 'attention', ffn: 'FFN' } as const;

/** A share takes the name of the weight it is cut from, where nothing needs that weight any more. */
function keepNames(graph: Graph, wanted: ReadonlyMap<Value, string>): void {
  const names = new Map([...wanted].filter(([, name]) => graph.value(name) === undefined));
  const isOnce = (name: string): boolean => [...names.values()].filter((each) => each === name).length === 1;
  const unique = new Map([...names].filter(([, name]) => isOnce(name)));
  if (unique.size > 0) graph.renameValues(unique);
}
