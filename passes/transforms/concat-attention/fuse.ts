/**
 * Turns the first of several attentions, the frame, into all of them: it gets the weights, counts, shapes and constants
 * of all, and the others are taken out of the sum. What has to change was worked out before (analysis/attention-merge.ts).
 */
import type { Node, Value } from '../../../ir/core.js';
import { tensorType } from '../../../ir/type.js';
import type { Weight } from '../../../ir/weight.js';
import type { HeadEdit } from '../../analysis/heads/edits.js';
import type { ParallelAttention } from '../../analysis/heads/merge/match.js';
import { type MergedAttentions, normReaders } from '../../analysis/heads/merge/weights.js';
import type { AttentionMember, HeadLinear } from '../../analysis/heads/region.js';
import { type Parts, resizedType, type Spread, sizesOf } from '../../analysis/heads/spread.js';
import { isShapeQuery, isSumUpTo, type ResidualStream } from '../../analysis/layers/residual-stream.js';
import { attentionInputName, fusedName } from '../../analysis/layers/weight-names.js';
import type { Linear } from '../../analysis/matrices/linear.js';
import type { Matrix } from '../../analysis/matrices/stored-matrices.js';
import { filled } from '../../analysis/matrices/vectors.js';
import type { NormReader } from '../../analysis/plans/norm-plan.js';
import { clearFolded } from '../../rewrite/fold-norm.js';
import { eraseUnreadReaders } from '../../rewrite/readers.js';
import type { Rewriter } from '../../rewrite/rewriter.js';
import { resize, SizePatcher } from '../../rewrite/size-patcher.js';

/** Attentions that became one, with what became of their caches. */
export interface MergedAttention {
  readonly layers: readonly string[];
  /** Query heads and key-value heads of each member; empty where the graph does not say. */
  readonly heads: readonly number[];
  readonly kvHeads: readonly number[];
  /** Graph inputs and outputs that hold the members' caches one after another along `axis`, the first of them by name. */
  readonly caches: readonly { readonly members: readonly string[]; readonly axis: number }[];
}

/** Attentions that can become one, with all their merged constants. */
export interface AttentionPlan extends ParallelAttention {
  readonly merged: MergedAttentions;
}

/** Makes the attentions one; with `keepsCaches` each of them keeps its caches at the graph's border. */
export function fuseAttentions(
  plan: AttentionPlan,
  rewriter: Rewriter,
  stream: ResidualStream,
  options: { readonly opset: number; readonly keepsCaches: boolean },
): MergedAttention {
  return new Fusion(plan, rewriter, options.opset).apply(stream, options.keepsCaches);
}

class Fusion {
  readonly #labels: readonly string[];
  readonly #prefix: string;
  readonly #sizes: SizePatcher;

  constructor(
    readonly plan: AttentionPlan,
    readonly rewriter: Rewriter,
    readonly opset: number,
  ) {
    this.#labels = plan.members.map(({ label }) => label);
    this.#prefix = fusedName(this.#labels, 'attention');
    this.#sizes = new SizePatcher(rewriter, plan.region.dimensions, this.#prefix);
  }

  apply(stream: ResidualStream, keepsCaches: boolean): MergedAttention {
    const { region, members, presents } = this.plan;
    const caches = [...region.caches.values(), ...presents];
    const axes = caches.map(([frame]) => region.spreads.get(frame as Value)?.axis ?? 1);
    const names = caches.map((values) => values.map((value) => value.name));
    for (const value of region.counterparts.flatMap((values) => [...values.keys()])) {
      eraseUnreadReaders(value, this.rewriter);
    }
    this.#redirectShapes();
    for (const edit of region.edits) this.#edit(edit);
    for (const [i, linear] of region.linears.entries()) this.#installInput(linear, i);
    this.#installOutput();
    const [frame] = normReaders(this.plan) as [NormReader];
    clearFolded(frame, this.plan.merged, this.rewriter, (part) => `${this.#prefix}.${part}`);
    const interfaces = new Set<Value>([...region.caches.keys(), ...presents.map(([frame]) => frame as Value)]);
    for (const [value, spread] of region.spreads) {
      if (!keepsCaches || !interfaces.has(value)) resize(value, spread);
    }
    this.#takeOut(stream, keepsCaches);
    const kvHeads =
      region.kvHeads.length > 0 ? region.kvHeads : (region.spreads.get(presents[0]?.[0] as Value)?.parts[0] ?? []);
    return {
      layers: members.map(({ label }) => label),
      heads: region.heads,
      kvHeads,
      caches: keepsCaches ? [] : names.map((own, i) => ({ members: own, axis: axes[i] as number })),
    };
  }

  /** What asked a member that goes for a shape asks the frame. */
  #redirectShapes(): void {
    const { region } = this.plan;
    for (const [m, values] of region.counterparts.entries()) {
      if (m === 0) continue;
      for (const [value, frame] of values) {
        for (const { node, index } of value.uses) {
          if (isShapeQuery(node)) node.setInput(index, frame);
        }
      }
    }
  }

  #edit(edit: HeadEdit): void {
    const { node } = edit;
    if (edit.kind === 'attribute') {
      node.setAttribute(edit.name, edit.attribute);
      return;
    }
    if (edit.kind === 'element') {
      const old = node.input(edit.index) as Value;
      this.rewriter.replaceOperand(node, edit.index, this.#sizes.withElement(old, edit.position, edit.value));
      return;
    }
    if (edit.kind === 'ones') {
      const ones = this.rewriter.addWeight(`${this.#prefix}.ones`, filled(edit.like, 1));
      this.rewriter.replaceOperand(node, edit.index, ones);
      return;
    }
    if (edit.kind === 'sliced') throw new RangeError('nothing is sliced where attentions become one');
    const weight = this.plan.merged.constants.get(edit) as Weight;
    if (edit.kind === 'scaled') {
      this.#scale(node, weight);
      return;
    }
    this.rewriter.replaceOperand(node, edit.index, this.rewriter.addWeight(`${this.#prefix}.constant`, weight));
  }

  /** Multiplies the result of a node by a constant, for all its readers. */
  #scale(node: Node, weight: Weight): void {
    const result = node.output(0) as Value;
    const readers = result.uses;
    const factor = this.rewriter.addWeight(`${this.#prefix}.head_scale`, weight);
    const name = node.name && `${node.name}/scale`;
    const made = node.graph.addNode(
      { opType: 'Mul', name, inputs: [result, factor], outputs: [{ name: result.name, type: result.type }] },
      { after: node },
    );
    const scaled = made.output(0) as Value;
    for (const { node: reader, index } of readers) reader.setInput(index, scaled);
    resize(scaled, this.plan.region.spreads.get(result) as Spread);
  }

  #installInput(input: HeadLinear, i: number): void {
    const { merged, region } = this.plan;
    const [linear] = input.linears as [Linear];
    const name = `${this.#prefix}.${attentionInputName(region.linears.length, i)}`;
    const spread = region.spreads.get(linear.output);
    const made = merged.inputs[i];
    const result = made
      ? this.rewriter.installLinear(linear, made.matrix, made.bias, name)
      : this.#sideBySide(input, name);
    if (spread) {
      resize(linear.output, spread);
      if (result !== linear.output) resize(result, spread);
    }
  }

  /** Projections of their own: their results, part by part, for the frame to read. */
  #sideBySide({ linears, parts }: HeadLinear, name: string): Value {
    const [frame] = linears as [Linear];
    const readers = frame.output.uses;
    const anchor = this.rewriter.earliest(readers.map((use) => use.node));
    for (const { output } of linears) this.rewriter.hoist(output, anchor);
    const pieces = linears.map(({ output }, m) => this.#split(output, parts, m, anchor, name));
    const made = anchor.graph.addNode(
      {
        opType: 'Concat',
        name,
        inputs: parts.flatMap((_, p) => pieces.map((own) => own[p] as Value)),
        outputs: [{ name, type: frame.output.type }],
        attributes: { axis: { kind: 'int', value: -1n } },
      },
      { before: anchor },
    );
    const result = made.output(0) as Value;
    for (const { node, index } of readers) node.setInput(index, result);
    return result;
  }

  #split(value: Value, parts: Parts, m: number, before: Node, name: string): readonly Value[] {
    if (parts.length === 1) return [value];
    const sizes = parts.map((part) => part[m] as number);
    const outputs = parts.map(() => `${name}.part`);
    return this.rewriter.addSplit(value, { axis: -1, sizes, outputs, name, opset: this.opset }, { before });
  }

  #installOutput(): void {
    const { merged, outputs } = this.plan;
    const [{ linear, bias }] = outputs as [ParallelAttention['outputs'][number]];
    const isInside = bias !== null && bias.node === linear.node;
    this.rewriter.installLinear(
      linear,
      merged.output as Matrix,
      isInside ? merged.outputBias : null,
      `${this.#prefix}.o`,
    );
    if (bias && !isInside && merged.outputBias) {
      const weight = this.rewriter.addWeight(`${this.#prefix}.o.bias`, merged.outputBias);
      this.rewriter.replaceOperand(bias.node, bias.index, weight);
    }
  }

  /** Takes all members but the frame out of the sum, with their caches. */
  #takeOut(stream: ResidualStream, keepsCaches: boolean): void {
    const { plan, rewriter } = this;
    const { graph } = rewriter;
    const [frame, ...others] = plan.members as [AttentionMember, ...AttentionMember[]];
    const { start, end } = frame.branch.stage;
    const isSum = isSumUpTo(end, start, stream.position);
    if (keepsCaches) this.#bridge();
    else for (const values of plan.presents) for (const value of values.slice(1)) graph.removeOutput(value);
    for (const { branch } of others) {
      rewriter.dropTerm(branch.output, isSum);
      rewriter.eraseProducer(branch.output);
      for (const node of branch.attention.side) rewriter.eraseIfDead(node);
    }
    if (keepsCaches) return;
    for (const values of plan.region.caches.values()) for (const value of values.slice(1)) rewriter.removeInput(value);
  }

  /** Joins the members' caches where the frame reads its own, and splits what it writes. */
  #bridge(): void {
    const { region, presents } = this.plan;
    const { graph } = this.rewriter;
    const axisOf = (frame: Value): number => region.spreads.get(frame)?.axis ?? 1;
    for (const [frame, values] of region.caches) {
      const readers = frame.uses.filter(({ node }) => region.nodes[0]?.has(node));
      const name = `${this.#prefix}.past`;
      const outputs = [{ name, type: resizedType(frame.type, region.spreads.get(frame) as Spread) }];
      const spec = {
        opType: 'Concat',
        name,
        inputs: values,
        outputs,
        attributes: { axis: { kind: 'int', value: BigInt(axisOf(frame)) } },
      } as const;
      const joined = graph.addNode(spec, { before: this.rewriter.earliest(readers.map((use) => use.node)) });
      for (const { node, index } of readers) node.setInput(index, joined.output(0));
    }
    for (const values of presents) {
      const [frame] = values as [Value];
      const readers = frame.uses;
      const sizes = region.spreads.get(frame)?.parts[0] ?? [];
      const name = `${this.#prefix}.present`;
      const outputs = values.map(() => name);
      const split = { axis: axisOf(frame), sizes, outputs, name, opset: this.opset };
      const pieces = this.rewriter.addSplit(frame, split, { after: frame.producer as Node });
      for (const [m, value] of values.entries()) graph.takeOver(value, pieces[m] as Value);
      for (const { node, index } of [...readers, { node: pieces[0]?.producer as Node, index: 0 }]) {
        node.setInput(index, frame);
      }
      this.#describePresent(frame);
    }
  }

  /**
   * States the shape of a present that is no output any more. Without it onnxruntime takes it for as long as the past,
   * which is no input any more, and lets GroupQueryAttention write the one over the other.
   */
  #describePresent(frame: Value): void {
    const { region } = this.plan;
    const spread = region.spreads.get(frame) as Spread;
    const type = resizedType(frame.type, spread);
    if (type?.kind !== 'tensor') return;
    const shape = (type.shape ?? spread.dims.map((dim, i) => (i === spread.axis ? sizesOf(spread).later : dim))).map(
      (dim, i) => (i === spread.axis + 1 && typeof dim !== 'number' ? `${this.#prefix}.total` : dim),
    );
    frame.type = tensorType(type.dtype, shape);
    frame.graph.valueInfo.add(frame);
  }
}
