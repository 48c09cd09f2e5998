/** What happens when attentions leave the graph, whatever is put in their place. */
import type { Graph, Node, Value } from '../../ir/core.js';
import { alsoRead, readerThatStays } from '../analysis/layers/attention.js';
import { type AttentionBranch, type Blocks, type Layer, linearIn, requireLayer } from '../analysis/layers/layer.js';
import { isIntact, readsOnlyShape, statisticsOf } from '../analysis/layers/residual-stream.js';
import { ABSENT, AskedLayers, type AskedOptions } from '../framework/asked-layers.js';
import type { PassContext } from '../framework/pass.js';
import { eraseDeadReaders } from '../rewrite/readers.js';
import type { Rewriter } from '../rewrite/rewriter.js';
import { type StandIn, takeOut } from './branch.js';

/** An attention that went. */
export interface RemovedAttention {
  /** Original number. */
  readonly layer: number;
  /** Graph inputs and outputs that went with it. */
  readonly kvInputs: readonly string[];
  readonly kvOutputs: readonly string[];
}

/** The same with what it was: an operator, or `decomposed`. */
export interface TakenAttention extends RemovedAttention {
  readonly kind: string;
}

/**
 * Takes the attentions of `layers`, which `removableAttentions` gave, out of the graph with their KV caches, and puts what
 * `standIn` says in their place. Exporters read the past length off one layer's cache input; when that layer goes, the
 * reading moves to the cache of a layer that stays.
 */
export function takeOutAttentions(
  { graph, rewriter, blocks }: { readonly graph: Graph; readonly rewriter: Rewriter; readonly blocks: () => Blocks },
  layers: readonly Layer[],
  standIn: (branch: AttentionBranch, layer: Layer, blocks: Blocks) => StandIn | null,
): TakenAttention[] {
  const gone = new Set(layers.map(({ index }) => index));
  // One analysis serves for all: it is made anew only where an earlier removal took an end of the stage.
  let current = blocks();
  const kept = current.layers.filter((layer) => layer.attention && !gone.has(layer.index));
  const removed: { branch: AttentionBranch; index: number }[] = [];
  for (const layer of layers) {
    const { index } = layer;
    let branch = layer.attention;
    if (branch && !isIntact(branch.stage)) {
      current = blocks();
      branch = current.layers.find((candidate) => candidate.index === index)?.attention ?? null;
    }
    if (!branch) throw new Error(`the attention of layer ${index} is no branch any more`);
    const { nodes, stage, output, attention } = branch;
    const substitute = standIn(branch, layer, current);
    for (const value of attention.kvOutputs) if (value.isGraphOutput) graph.removeOutput(value);
    takeOut({ stage, output, nodes: [...nodes, ...attention.side] }, current.stream, substitute, rewriter);
    removed.push({ branch, index });
  }
  // Inputs come last: what reads the shape of one layer's cache may have died with another layer.
  return removed.map(({ branch, index }) => {
    const { kind, kvInputs, kvOutputs } = branch.attention;
    for (const value of kvInputs) {
      // It went with an earlier layer whose cache this one read, too.
      if (!value.isInput) continue;
      redirectShape(value, branch, kept);
      eraseDeadReaders(value, rewriter);
      rewriter.removeInput(value);
    }
    const names = (values: readonly Value[]): string[] => values.map(({ name }) => name);
    return { layer: index, kind, kvInputs: names(kvInputs), kvOutputs: names(kvOutputs) };
  });
}

/** The layers whose attention can go, all of them together. Throws where one cannot, or says so with `keep-going`. */
export function removableAttentions(
  layers: readonly number[],
  options: AskedOptions,
  blocks: Blocks,
  refused: PassContext<unknown>['refused'],
): Layer[] {
  const asked = new AskedLayers(options, 'attention', refused);
  const present = asked.check(layers, (index) => {
    const layer = requireLayer(blocks.layers, index);
    return layer.attention ? null : whyNoAttention(layer);
  });
  // What one attention is in the way of may go with it: those that stay are in the way of others.
  for (let wanted = present.map((index) => requireLayer(blocks.layers, index)); ; ) {
    // Without what another branch reads, too, such as a norm that an FFN shares.
    const dying = new Set(wanted.flatMap(({ attention }) => [...(attention?.attention.side ?? [])]));
    const kept = blocks.layers.filter((layer) => layer.attention && !wanted.includes(layer));
    const reasons = wanted.map((layer) => obstacleTo(layer, dying, kept, blocks));
    if (reasons.every((reason) => reason === null)) return wanted;
    asked.refuse(wanted.flatMap(({ index }, i) => (reasons[i] ? [{ index, reason: reasons[i] }] : [])));
    wanted = wanted.filter((_, i) => !reasons[i]);
  }
}

function whyNoAttention(layer: Layer): string {
  if (layer.unread) return `it was not recognised: ${layer.unread}`;
  if (linearIn(layer, 'attention')) return 'a linear stands in its place';
  const mixer = layer.others.find((branch) => branch.mixesTokens);
  return mixer ? `it has none that is known as one (${mixer.reason})` : ABSENT;
}

/** Why the attention of a layer cannot go together with `dying`; null when it can. */
function obstacleTo(layer: Layer, dying: ReadonlySet<Node>, kept: readonly Layer[], { stream }: Blocks): string | null {
  const branch = layer.attention as AttentionBranch;
  const obstacle = branch.attention.obstacles.find(({ reader }) => !reader || !dying.has(reader));
  if (obstacle) return obstacle.reason;
  const reason = layer.fixed ?? statisticsOf(branch.stage.end);
  if (reason) return reason;
  for (const value of branch.attention.kvOutputs) {
    // In a branch of a merged decoder: the If gives it.
    const given = value.graph.parentNode?.output(value.graph.outputs.indexOf(value)) ?? null;
    const [reader] = given?.uses ?? [];
    if (given && reader) return alsoRead(given, reader.node);
  }
  for (const value of branch.attention.kvInputs) {
    const reader = readerThatStays(value, dying, substituteFor(value, branch, kept) !== null, stream);
    if (reader) return alsoRead(value, reader);
  }
  return null;
}

/** Where only the shape of a dying cache input is read, the same cache of a kept layer gives the same shape. */
function redirectShape(value: Value, branch: AttentionBranch, kept: readonly Layer[]): void {
  const { uses } = value;
  if (uses.length === 0) return;
  const substitute = substituteFor(value, branch, kept);
  if (!substitute) return;
  for (const use of uses) if (readsOnlyShape(use.node)) use.node.setInput(use.index, substitute);
}

function substituteFor(value: Value, branch: AttentionBranch, kept: readonly Layer[]): Value | null {
  const place = branch.attention.kvInputs.indexOf(value);
  for (const layer of kept) {
    const candidates = layer.attention?.attention.kvInputs ?? [];
    const candidate = candidates[place];
    if (candidates.length === branch.attention.kvInputs.length && candidate && haveOneShape(value, candidate)) {
      return candidate;
    }
  }
  return null;
}

/** Same rank and the same fixed sizes; symbols may differ, exporters number them per input. */
function haveOneShape(a: Value, b: Value): boolean {
  const [left, right] = [a.shape, b.shape];
  if (!left || !right || left.length !== right.length) return false;
  return left.every((dim, i) => typeof dim !== 'number' || typeof right[i] !== 'number' || dim === right[i]);
}
