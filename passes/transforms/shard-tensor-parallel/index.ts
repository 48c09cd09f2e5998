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
 * One matrix in the place of a branch is cut by rows where it shares its sum with an FFN that is cut: every rank has what it
 * reads, and its partial sum joins the FFN's. Alone on its sum it is replicated.
 *
 * The output projection to the vocabulary is cut by columns and gathered (`lm-head=gather`), or replicated.
 *
 * What it will not find, and leaves replicated, which is right but no faster: experts, norms across all heads (OLMo 2),
 * heads that do not divide among the ranks, quantisation blocks across the heads of two ranks, attentions whose keys other
 * layers read.
 */

import type { Graph, Node, Value } from '../../../ir/core.js';
import { errors } from '../../../ir/diagnostic.js';
import type { Weight } from '../../../ir/weight.js';
import { type CutBranch, cutBranch } from '../../analysis/heads/cut/branch.js';
import { pieceOf, type Rank, shareOfMatrix, shareOfWeight } from '../../analysis/heads/cut/shares.js';
import type { HeadEdit } from '../../analysis/heads/edits.js';
import { type Branch, branchesOf, type FfnBranch, slotOf } from '../../analysis/layers/layer.js';
import type { ResidualStream, Stage } from '../../analysis/layers/residual-stream.js';
import { SHARD_PREFIX, shardName } from '../../analysis/layers/weight-names.js';
import type { Linear } from '../../analysis/matrices/linear.js';
import type { Matrix } from '../../analysis/matrices/stored-matrices.js';
import { filled, vectorOf } from '../../analysis/matrices/vectors.js';
import { standardOpset } from '../../analysis/opset.js';
import { attempt, Refusal } from '../../analysis/refusal.js';
import { factsAs } from '../../framework/facts.js';
import { choiceOption, flagOption, integerOption, layersOption } from '../../framework/options.js';
import { definePass } from '../../framework/pass.js';
import { eraseUnreadReaders } from '../../rewrite/readers.js';
import type { Rewriter } from '../../rewrite/rewriter.js';
import { resize, SizePatcher } from '../../rewrite/size-patcher.js';
import { COLLECTIVES, type Collective, CollectiveWriter } from './collectives.js';
import { LinearShare } from './linear-share.js';
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
          return new Sharder(cut, rewriter, { rank, ranks }, opset);
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
    for (const sharder of sharders) {
      const { cut } = sharder;
      sharder.apply(writer, stream);
      for (const { value, spread } of cut.caches) {
        const [piece] = spread.cuts ?? [];
        const [heads] = spread.parts[0] ?? [];
        if (piece && heads !== undefined) caches.push({ name: value.name, axis: spread.axis, heads, ...piece });
      }
      const width = cut.input.parts.map(([size = 0]) => size).join('+');
      const what = cut.role === 'attention' ? `attention of ${cut.heads} heads` : `FFN of ${width} channels`;
      const padded = cut.padding > 0 ? `, with ${cut.padding} channels of zeros` : '';
      passed(`its ${what} is cut over ${ranks} ranks${padded}`, cut.label);
      count(cut.role);
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

/** The names of a node's operands that are initializers; null for the others. */
function weightNames(node: Node): (string | null)[] {
  return node.inputs.map((value) => (value?.initializer ? value.name : null));
}

/** A share takes the name of the weight it is cut from, where nothing needs that weight any more. */
function keepNames(graph: Graph, wanted: ReadonlyMap<Value, string>): void {
  const names = new Map([...wanted].filter(([, name]) => graph.value(name) === undefined));
  const isOnce = (name: string): boolean => [...names.values()].filter((each) => each === name).length === 1;
  const unique = new Map([...names].filter(([, name]) => isOnce(name)));
  if (unique.size > 0) graph.renameValues(unique);
}

interface Share {
  readonly matrix: Matrix;
  readonly bias: Weight | null;
}

/**
 * The share of one rank, made for all of them: where one rank's cannot be, as where only the last one would be filled up
 * with zeros, no rank cuts, or those that do would wait for it for ever.
 */
function shareFor<T>(own: Rank, share: (rank: Rank) => T): T {
  const all = Array.from({ length: own.ranks }, (_, rank) => share({ ...own, rank }));
  return all[own.rank] as T;
}

/** What a rank holds of one branch: everything is made before anything is changed. */
class Sharder {
  readonly #prefix: string;
  readonly #sizes: SizePatcher;
  readonly #inputs: readonly Share[];
  readonly #output: Matrix;
  readonly #constants = new Map<HeadEdit, Weight>();
  /** Shares -> the names that the whole weights had. */
  readonly renamed = new Map<Value, string>();

  /** Linears that join its all-reduce. */
  readonly beside: LinearShare[] = [];

  /** Throws Refusal where a weight cannot be cut. */
  constructor(
    readonly cut: CutBranch,
    readonly rewriter: Rewriter,
    readonly rank: Rank,
    readonly opset: number,
  ) {
    const { region, last, input, label, role } = cut;
    this.#prefix = shardName(label, role);
    this.#sizes = new SizePatcher(rewriter, region.dimensions, this.#prefix);
    this.#inputs = region.linears.map(({ linears, ...portions }) => {
      const [linear] = linears as [Linear];
      const { matrix, bias, outWidth } = linear;
      return {
        matrix: shareFor(rank, (each) => shareOfMatrix(matrix, 'out', portions, each)),
        bias: bias && shareOfWeight(vectorOf(bias.weight, outWidth), 0, portions, rank),
      };
    });
    this.#output = shareFor(rank, (each) => shareOfMatrix(last.matrix, 'in', input, each));
    for (const edit of region.edits) {
      if (edit.kind !== 'constant') continue;
      this.#constants.set(edit, shareOfWeight(edit.weights[0] as Weight, edit.axis, edit, rank));
    }
  }

  apply(writer: CollectiveWriter, stream: ResidualStream): void {
    const { types } = stream;
    const { region, last, label, role } = this.cut;
    const { rewriter } = this;
    for (const value of region.spreads.keys()) eraseUnreadReaders(value, rewriter);
    for (const edit of region.edits) this.#edit(edit);
    for (const [i, { linears }] of region.linears.entries()) {
      const [linear] = linears as [Linear];
      const { matrix, bias } = this.#inputs[i] as Share;
      const spread = region.spreads.get(linear.output);
      const names = weightNames(linear.node);
      const result = rewriter.installLinear(linear, matrix, bias, this.#name(`input_${i}`));
      if (linear.isPlain) this.#noteNames(linear.node, names);
      if (spread && result !== linear.output) resize(result, spread);
    }
    for (const [value, spread] of region.spreads) if (!value.producer?.isRemoved) resize(value, spread);
    const names = weightNames(last.node);
    this.#output.install(last.node, rewriter, this.#name('output.weight'));
    this.#noteNames(last.node, names);
    const own = last.node.output(0) as Value;
    const partial = this.beside.reduce((at, share) => share.join(at, stream, rewriter, this.opset), own);
    const dtype = types.get(own) ?? last.matrix.dtype;
    const place = `layer ${label} ${role}`;
    const bias = this.#takeBias(last);
    const sum = writer.allReduce(partial, dtype, last.outWidth, place, `${this.#prefix}.all_reduce`);
    for (const each of [bias, ...this.beside.map((share) => share.bias)]) if (each) this.#addBias(sum, each);
  }

  #noteNames(node: Node, names: readonly (string | null)[]): void {
    for (const [index, name] of names.entries()) {
      const value = node.input(index);
      if (name !== null && value?.initializer && value.name !== name) this.renamed.set(value, name);
    }
  }

  #name(part: string): string {
    return `${this.#prefix}.${part}`;
  }

  #edit(edit: HeadEdit): void {
    const { node } = edit;
    const { rewriter } = this;
    switch (edit.kind) {
      case 'attribute':
        node.setAttribute(edit.name, edit.attribute);
        return;
      case 'element': {
        const old = node.input(edit.index) as Value;
        rewriter.replaceOperand(node, edit.index, this.#sizes.withElement(old, edit.position, edit.value));
        return;
      }
      case 'constant': {
        const share = this.#constants.get(edit) as Weight;
        rewriter.replaceOperand(node, edit.index, rewriter.addWeight(this.#name('constant'), share));
        return;
      }
      case 'sliced': {
        const start = pieceOf(edit.cut, this.rank) * edit.cut.size;
        const old = node.input(edit.index) as Value;
        const share = this.#name('share');
        const made = rewriter.addSlice(node, old, edit.axis, start, start + edit.cut.size, share, this.opset);
        node.setInput(edit.index, made);
        return;
      }
      default:
        throw new RangeError(`one branch alone has no edit of kind ${edit.kind}`);
    }
  }

  /** The bias inside the last projection is added once, after the sum. */
  #takeBias({ node, bias }: Linear): Weight | null {
    if (!bias) return null;
    // Gemm cannot do without it before opset 11.
    if (node.op === 'Gemm' && this.opset < 11) {
      const zeros = filled(bias.weight, 0);
      this.rewriter.replaceOperand(node, bias.index, this.rewriter.addWeight(this.#name('output.no_bias'), zeros));
      return bias.weight;
    }
    const old = node.input(bias.index);
    node.truncateInputs(bias.index);
    this.rewriter.eraseProducer(old);
    return bias.weight;
  }

  #addBias(sum: Value, bias: Weight): void {
    const readers = sum.uses;
    const { graph } = this.rewriter;
    const operand = this.rewriter.addWeight(this.#name('output.bias'), bias);
    const spec = { opType: 'Add', name: this.#name('output/bias'), inputs: [sum, operand] };
    const outputs = [{ name: this.#name('output.biased'), type: sum.type }];
    const at = sum.producer
      ? { after: sum.producer }
      : { before: this.rewriter.earliest(readers.map(({ node }) => node)) };
    const added = graph.addNode({ ...spec, outputs }, at).output(0) as Value;
    for (const { node, index } of readers) node.setInput(index, added);
  }
}
