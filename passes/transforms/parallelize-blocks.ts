/**
 * Makes whole blocks, attention and FFN, parallel (arXiv 2503.18908, last section; arXiv 2502.02790; method.md, 1.7, 4).
 * Blocks k with attention a_k behind norm n_k and FFN f_k behind norm m_k are, one after another,
 *
 *     q_k = r_k + a_k(n_k(r_k));    r_(k+1) = q_k + f_k(m_k(q_k))
 *
 * There are two ways to let a window of them read one input r. `form=two-stage`, the default:
 *
 *     q = r + sum_k a_k(n_k(r));    result = q + sum_k f_k(m_k(q))
 *
 * All attentions read r, and all FFNs read q, what the attentions give together. Attentions that read one value merge
 * (concat-attention), and so do the FFNs (concat-ffn): a window becomes one block of its members' summed widths.
 *
 * `form=literal`, the sum of what the blocks add to the stream when each is run on r:
 *
 *     result = r + sum_k (block_k(r) - r) = r + sum_k (a_k(n_k(r)) + f_k(m_k(r + a_k(n_k(r)))))
 *
 * Here every FFN reads an input of its own, r + a_k(...), and every a_k is needed by itself: the blocks can run at the
 * same time, but nothing merges. Blocks whose attention and FFN read one norm (GPT-J, Phi-2) are the same in both forms.
 *
 * Both change the function; method.md has the published damage (of the literal form). KV caches stay as they are: each
 * attention keeps its own, with other contents.
 */
import type { Node, Use, Value } from '../../ir/core.js';
import { passErrors } from '../analysis/errors.js';
import { streamReads } from '../analysis/layers/layer.js';
import {
  biasOperand,
  branchesInto,
  isShapeQuery,
  type ResidualStream,
  startAs,
  valueAt,
} from '../analysis/layers/residual-stream.js';
import { type LayerSum, planWindow, type Window } from '../analysis/plans/block-windows.js';
import type { FusedRun } from '../analysis/plans/fused-run.js';
import { isPossible } from '../framework/asked-layers.js';
import { factsAs, layersText } from '../framework/facts.js';
import { choiceOption, flagOption, printLayers, printRun, runsOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';
import type { Rewriter } from '../rewrite/rewriter.js';

/** Whole blocks that read one input. */
export interface ParallelBlocks {
  readonly layers: readonly string[];
  readonly form: 'two-stage' | 'literal';
  /** Their FFNs, where these read one input too, as two or more of the two-stage form do. */
  readonly ffns: FusedRun | null;
}

export const parallelizeBlocks = definePass({
  id: 'parallelize-blocks',
  summary: 'let whole blocks, attention and FFN, of a window read one input',
  effect: 'changes-function',
  scope: 'decoder',
  options: {
    windows: runsOption('windows of whole layers, original layer numbers: 38-41,45-48'),
    form: choiceOption('what the FFNs of a window read', ['two-stage', 'literal'], 'two-stage'),
    'keep-going': flagOption('say which windows cannot be made parallel, and go on with the rest'),
  },
  statistics: { windows: 'windows made parallel', blocks: 'blocks in them' },
  facts: factsAs<ParallelBlocks>({
    describe: (windows) =>
      windows.map(({ layers, form }) => {
        const what = form === 'literal' ? 'read one input, each FFN after its own attention' : 'became parallel';
        return `the blocks of ${layersText(layers)} ${what}`;
      }),
  }),
  run({ options, rewriter, blocks, passed, refused, count, fact }) {
    // All checks come before the first change.
    const windows = options.windows.filter((window) => {
      const check = (): void => {
        const plan = planWindow(blocks(), window);
        if (options.form === 'literal') checkLiteral(plan);
        else checkTwoStage(plan, blocks().stream);
      };
      return isPossible(check, options['keep-going'], (reason) => refused(reason, printRun(window)));
    });
    for (const indices of windows) {
      const window = planWindow(blocks(), indices);
      const { stream } = blocks();
      if (options.form === 'literal') makeLiteral(window, stream, rewriter);
      else makeTwoStage(window, stream, rewriter);
      const labels = window.layers.map((layer) => layer.label);
      const ffns = ffnRun(window);
      const areParallel = options.form === 'two-stage' && ffns.layers.length > 1;
      fact({ layers: labels, form: options.form, ffns: areParallel ? ffns : null });
      const how =
        options.form === 'literal'
          ? 'read one input, each FFN after its own attention; in this form nothing is merged'
          : window.ffns.length > 0
            ? 'read one input, their FFNs the sum of their attentions'
            : 'read one input';
      passed(`the blocks of layers ${printLayers(indices)} ${how}`, labels[0]);
      count('windows');
      count('blocks', labels.length);
    }
  },
});

function ffnRun({ layers }: Window): FusedRun {
  const members = layers.filter((layer) => layer.ffn !== null);
  const widths = members.map((layer) => layer.ffn?.ffn.width ?? 0);
  return {
    layers: members.map((layer) => layer.label),
    widths,
    fusedWidth: widths.reduce((sum, width) => sum + width, 0),
  };
}

function checkTwoStage({ mixers, ffns, parts }: Window, stream: ResidualStream): void {
  const last = parts.at(-1) as LayerSum;
  if (ffns.length > 0 && last !== ffns.at(-1)) {
    throw passErrors.cannotFuse(last.layer.label, 'the last layer of a window needs an FFN');
  }
  const later = new Set(
    ffns.flatMap(({ branches, root }) => [root.node, ...branches.flatMap(({ nodes }) => [...nodes])]),
  );
  for (const part of mixers) {
    const value = dependency(part, later, stream);
    if (value) {
      throw passErrors.cannotFuse(
        part.layer.label,
        `its attention needs '${value.name}', which an FFN of the window gives`,
      );
    }
  }
}

/** A result of `later` nodes that a part needs by another way than the residual stream, a size for example. */
function dependency(part: LayerSum, later: ReadonlySet<Node>, stream: ResidualStream): Value | null {
  const rewired = readsOf(part, stream);
  const seen = new Set<Node>();
  const open = part.branches.flatMap(({ nodes }) => [...nodes]);
  for (let node = open.pop(); node; node = open.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    for (const [index, value] of node.inputs.entries()) {
      const producer = value?.producer;
      if (!producer) continue;
      // What a skip norm gives besides its sum and the norm of it, its mean for example, stays where it is.
      if (producer === part.stage.start && [producer.outputs[0], valueAt(producer)].includes(value)) continue;
      const at = node;
      if (rewired.some((place) => place.node === at && place.index === index)) continue;
      if (later.has(producer)) return value;
      open.push(producer);
    }
  }
  return null;
}

function checkLiteral({ parts }: Window): void {
  for (const { layer, stage } of parts) {
    const [start, end] = [valueAt(stage.start)?.producer, stage.end];
    if (start?.op === 'Reshape')
      throw passErrors.cannotFuse(layer.label, 'its residual stream is flattened (form=two-stage)');
    if ('opType' in end && end.input(biasOperand(end))) {
      throw passErrors.cannotFuse(layer.label, 'its skip norm adds a bias (form=two-stage)');
    }
  }
}

/** An edge that is to be changed: operand `index` of `node` will read `value`. */
interface Rewiring extends Use {
  readonly value: Value;
}

function makeTwoStage({ mixers, ffns, parts }: Window, stream: ResidualStream, rewriter: Rewriter): void {
  const input = inputOf(parts[0] as LayerSum);
  // What all attentions give together is what the FFN after the last of them reads.
  const lastMixer = mixers.at(-1);
  const next = lastMixer && parts[parts.indexOf(lastMixer) + 1];
  const sum = next ? inputOf(next) : input;
  const edges: Rewiring[] = [];
  for (const [list, base] of [[mixers, input] as const, [ffns, sum] as const]) {
    for (const [i, part] of list.entries()) {
      edges.push(...readsOf(part, stream).map((place) => ({ ...place, value: base })));
      const before = list[i - 1];
      edges.push({ ...part.root, value: before ? outputOf(before) : base });
    }
  }
  const [first, ...rest] = parts as [LayerSum, ...LayerSum[]];
  // A window that begins with an FFN moves that one, too: its skip norm becomes one of what all attentions give together.
  // It is the last to be split, because until then it gives the input of the others.
  const moves = sum !== input && !mixers.includes(first);
  const inner = [...rest.filter((part) => part !== next), ...(moves ? [first] : [])];
  const splits = inner.map((part) => ({ part, base: mixers.includes(part) ? input : sum }));
  rewire(edges.map(fitted(parts[0] as LayerSum, stream)), splits, stream, rewriter);
  // The attentions of later layers come before the first FFN now.
  if (sum !== input) rewriter.hoist(sum, rewriter.earliest(sum.uses.map((use) => use.node)));
}

function makeLiteral({ layers, parts }: Window, stream: ResidualStream, rewriter: Rewriter): void {
  const input = inputOf(parts[0] as LayerSum);
  const edges: Rewiring[] = [];
  const splits: { part: LayerSum; base: Value }[] = [];
  // The first sum may widen what it takes up.
  let total = (parts[0] as LayerSum).stage.root ?? input;
  for (const layer of layers) {
    const [first, ffn] = parts.filter((part) => part.layer === layer) as [LayerSum, LayerSum | undefined];
    edges.push(...readsOf(first, stream).map((place) => ({ ...place, value: input })));
    edges.push({ ...first.root, value: ffn ? input : total });
    if (first !== parts[0]) splits.push({ part: first, base: input });
    if (ffn) {
      let value = total;
      for (const { output } of first.branches) value = addBefore(ffn.root.node, value, output);
      edges.push({ ...ffn.root, value });
    }
    if (layer !== layers.at(-1)) total = outputOf(ffn ?? first);
  }
  rewire(edges.map(fitted(parts[0] as LayerSum, stream)), splits, stream, rewriter);
}

/** The input of the window in the element type that each reader takes: the first sum may widen it. */
function fitted({ stage, layer }: LayerSum, { types }: ResidualStream): (edge: Rewiring) => Rewiring {
  const input = inputOf({ stage, layer });
  return (edge) => {
    const old = edge.node.input(edge.index);
    const value = edge.value === input && old ? startAs(stage, types.get(old), types) : null;
    return value ? { ...edge, value } : edge;
  };
}

/**
 * Changes all edges at once, and only then erases what nothing reads any more: in between, sums that will be read again
 * are not. Skip norms at the start of the `splits` fall into a sum and a norm of the base.
 */
function rewire(
  edges: readonly Rewiring[],
  splits: readonly { readonly part: LayerSum; readonly base: Value }[],
  stream: ResidualStream,
  rewriter: Rewriter,
): void {
  const old = edges.map(({ node, index }) => node.input(index));
  for (const { node, index, value } of edges) node.setInput(index, value);
  for (const { part, base } of splits) {
    const { start } = part.stage;
    if ('opType' in start && !start.isRemoved) rewriter.splitSkipNorm(start, base, branchesInto(stream, start));
  }
  for (const value of old) if (value?.producer && !value.producer.isRemoved) rewriter.eraseProducer(value);
}

function inputOf({ layer, stage }: Pick<LayerSum, 'layer' | 'stage'>): Value {
  return valueAt(stage.start) ?? unread(layer.label);
}

function outputOf({ layer, stage }: LayerSum): Value {
  return valueAt(stage.end) ?? unread(layer.label);
}

function unread(label: string): never {
  throw new Error(`layer ${label} ends in a sum that nothing can read`);
}

/** Where the branches of a part read the residual stream, and where the shape of it is asked for. */
function readsOf({ stage, branches }: LayerSum, stream: ResidualStream): Use[] {
  const nodes = new Set(branches.flatMap((branch) => [...branch.nodes]));
  const places = streamReads(nodes, stage.start, stream);
  // The shape is that of the base: asking the base keeps attentions free of the FFNs before them.
  const queries = valueAt(stage.start)?.uses.filter(({ node }) => isShapeQuery(node)) ?? [];
  return [...places, ...queries];
}

function addBefore(before: Node, a: Value, b: Value): Value {
  const spec = { opType: 'Add', name: before.name && `${before.name}/parallel`, inputs: [a, b] };
  const node = before.graph.addNode({ ...spec, outputs: [{ name: `${b.name}/sum`, type: a.type }] }, { before });
  return node.output(0) as Value;
}
