/**
 * Puts gates on the residual stream, so that one session evaluates every plan (analysis/gates.ts says what gates mean):
 *
 *     r1 = r0 + a(r0);  r2 = r1 + f(r1);  ...
 *
 * becomes, with gates g_a, g_f on contributions and G on what is read of them,
 *
 *     A = g_a * a(r0);  r1 = r0 + A;  F = g_f * f(r0 + G_fa * A);  r2 = r1 + F;  ...
 *
 * Gates are two graph inputs, float vectors: `onnx_fuse.contribution_gates`, one per branch in the order of the stream, and
 * `onnx_fuse.input_gates`, one per pair of a sum and an earlier branch. Inputs are rebuilt by the sums that the model has, with
 * the same operands in the same order, so all gates at 1 give the same bits, and a gate of 0 gives what the rewritten graph
 * computes: nothing is subtracted. What branches add and the start of the stream become graph outputs, which cost nothing unless
 * somebody asks for them. The pass costs two small nodes per pair and token; `window` bounds the pairs.
 *
 * Not possible: FFNs that read attentions of later layers (parallelize-blocks in its two-stage form), one norm for several
 * FFNs (norm=last), and gates across something that happens to the whole stream (a norm on it, a Reshape): there, inputs have
 * gates only on what was added since.
 */

import type { Graph, Node, Value } from '../../ir/core.js';
import { type DataType, dataTypeCode, tensorType } from '../../ir/type.js';
import { counted } from '../../ir/visible.js';
import { streamReads } from '../analysis/layers/layer.js';
import {
  biasOperand,
  isSame,
  isSkipNorm,
  isSumUpTo,
  privateOrigin,
  type ResidualStream,
  type Stage,
  shiftedBy,
  startAs,
  sumOperands,
  valueAt,
} from '../analysis/layers/residual-stream.js';
import { standardOpset } from '../analysis/opset.js';
import { GATES, type GatedSum, type GatePlan, planGates, skipNormAt } from '../analysis/plans/gates.js';
import { Refusal } from '../analysis/refusal.js';
import { constantOf } from '../analysis/values/constants.js';
import { integerOption, runsOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';
import type { Rewriter } from '../rewrite/rewriter.js';

export const instrument = definePass({
  id: 'instrument',
  summary:
    'put gates on every branch and on what it reads, to evaluate plans without building them; exact at gates of 1',
  effect: 'exact',
  options: {
    window: integerOption('how many sums back what a branch reads has gates; 0 is all', 0),
    reverse: {
      ...runsOption('runs whose FFNs are applied in reverse order: 6-9'),
      effect: 'changes-function',
    },
  },
  statistics: { branches: 'branches with a gate', pairs: 'gates on what sums read' },
  run({ graph, options, rewriter, blocks, passed, missed, count, model }) {
    if (graph.value(GATES.contributions)) {
      missed('the model has gates already');
      return;
    }
    const { stream } = blocks();
    if (stream.graph !== graph) {
      missed('no gates: the decoder lies inside an If');
      return;
    }
    const plan = planGates(blocks(), options.window, options.reverse);
    if (plan instanceof Refusal) {
      missed(`the model gets no gates: ${plan.message}`);
      return;
    }
    const opset = standardOpset(model);
    new Instrumenter(graph, rewriter, stream, plan, opset).run();
    passed(
      `${counted(plan.branches.length, 'branch', { many: 'branches' })} and ${plan.pairs.length} of their dependencies have gates`,
    );
    count('branches', plan.branches.length);
    count('pairs', plan.pairs.length);
  },
});

class Instrumenter {
  /** Per branch: what it adds, times its gate. */
  readonly #gated: Value[] = [];
  #pairGates: readonly Value[] = [];
  /** Element type of the stream: all terms of its sums have it, though not of every one it is known. */
  readonly dtype: DataType;

  constructor(
    readonly graph: Graph,
    readonly rewriter: Rewriter,
    readonly stream: ResidualStream,
    readonly plan: GatePlan,
    readonly opset: number,
  ) {
    // The first sum may widen what it takes up: what counts is what it gives.
    const points = plan.sums.flatMap(({ stage }) => [valueAt(stage.end), ...stage.branches]);
    const found = points
      .map((value) => value && stream.types.get(value))
      .filter((dtype) => dtype !== undefined && dtype !== null);
    const half = found.find((dtype) => dtype !== 'float');
    this.dtype = half ?? 'float';
  }

  run(): void {
    const { plan, stream, graph } = this;
    const start = startAs((plan.sums[0] as GatedSum).stage, this.dtype, stream.types);
    const gates = this.#gateInput(GATES.contributions, plan.branches.length);
    this.#pairGates = this.#gateInput(GATES.inputs, plan.pairs.length);
    if (start) graph.addOutput(this.#named('Identity', [start], GATES.stream, start.producer));
    const isSum = new Map(
      plan.sums.map(({ stage }) => [stage, isSumUpTo(stage.end, stage.start, stream.position)] as const),
    );
    for (const [i, { branch, output }] of plan.branches.entries()) {
      const term = branch.output;
      const readers = term.uses.filter(({ node }) => isSum.get(branch.stage)?.(node));
      const { end } = branch.stage;
      const bias = biasWith(term, branch.stage);
      const gate = gates[i] as Value;
      if ('opType' in end && bias) {
        // A skip norm adds the bias of the projection: it comes and goes with the branch.
        const gated = this.#node('Mul', [term, gate], `${output}.term`, end);
        const gatedBias = this.#node('Mul', [bias, gate], `${output}.bias`, end);
        for (const use of readers) use.node.setInput(use.index, gated);
        end.setInput(biasOperand(end), gatedBias);
        graph.addOutput(this.#named('Add', [gated, gatedBias], output, gatedBias.producer));
        this.#gated.push(gated);
      } else {
        const gated = this.#named('Mul', [term, gate], output, term.producer);
        for (const use of readers) use.node.setInput(use.index, gated);
        graph.addOutput(gated);
        this.#gated.push(gated);
      }
    }
    // The last ones first: where a run is reversed, what its first FFN reads needs what its last one gives.
    for (const sum of [...plan.sums.entries()].reverse()) this.#gateReads(...sum);
  }

  /** A graph input of `count` gates; returns them one by one, [1] in the type of the stream. */
  #gateInput(name: string, count: number): readonly Value[] {
    if (count === 0) return [];
    const { graph, opset } = this;
    const [first] = graph.nodes();
    if (!first) throw new Error('branches without nodes');
    let gates = graph.addInput(name, tensorType('float', [count]));
    const { dtype } = this;
    if (dtype !== 'float') {
      const to = { kind: 'int', value: BigInt(dataTypeCode(dtype)) } as const;
      const spec = { opType: 'Cast', name, inputs: [gates], attributes: { to } };
      gates = graph
        .addNode({ ...spec, outputs: [{ name: `${name}.cast`, type: tensorType(dtype, [count]) }] }, { before: first })
        .output(0) as Value;
    }
    if (count === 1) return [gates];
    const outputs = Array.from({ length: count }, (_, i) => ({ name: `${name}.${i}`, type: tensorType(dtype, [1]) }));
    const sizes = new Array<number>(count).fill(1);
    return this.rewriter.addSplit(gates, { axis: 0, sizes, outputs, name, opset }, { before: first });
  }

  /** Lets the branches of a sum read what gates leave of the earlier contributions. */
  #gateReads(index: number, { stage, branches, base, earlier }: GatedSum): void {
    if (earlier.length === 0 && base === stage) return;
    const { plan, stream, graph, rewriter } = this;
    const skip = skipNormAt(stage);
    const nodes = new Set(branches.flatMap((at) => [...(plan.branches[at]?.branch.nodes ?? [])]));
    const places = streamReads(nodes, stage.start, stream);
    const normed = skip?.output(0) ?? null;
    const readers = [...places.map(({ node }) => node), ...(normed?.uses.map(({ node }) => node) ?? [])];
    if (readers.length === 0) return;
    const anchor = rewriter.earliest(readers);
    let value = valueAt(base.start) as Value;
    let last: Node | null = null;
    for (const at of earlier) {
      const from = plan.sums[at] as GatedSum;
      const terms = new Map(
        from.branches.flatMap((branch): [Value, Value][] => {
          // Where a run is reversed, it is computed later than here.
          rewriter.hoist(this.#gated[branch] as Value, anchor);
          const pair = plan.pairs.findIndex((each) => each.sum === index && each.branch === branch);
          const gate = this.#pairGates[pair] as Value;
          const gated = this.#gated[branch] as Value;
          const bias = biasWith(gated, from.stage);
          const parts = [gated, ...(bias ? [bias] : [])];
          return parts.map((part) => [part, this.#node('Mul', [part, gate], `${GATES.inputs}/${index}`, anchor)]);
        }),
      );
      last = this.#rebuild(valueAt(from.stage.end)?.producer ?? null, from, value, terms, anchor);
      value = (isSkipNorm(last) ? last.output(3) : last.output(0)) as Value;
    }
    for (const place of places) place.node.setInput(place.index, value);
    if (skip && normed) {
      // The same operator on the same operands where it can be; where the order was changed, the norm alone.
      const isLast = last !== null && isSkipNorm(last) && plan.sums[earlier.at(-1) ?? -1]?.stage.end === skip;
      const result = isLast ? (last?.output(0) as Value) : rewriter.addPlainNorm(skip, value);
      for (const use of normed.uses) use.node.setInput(use.index, result);
      if (!isLast && result.producer) graph.moveNode(result.producer, anchor);
    }
  }

  /** The nodes of a sum once more, over `start` and gated terms: the same operators and operands, so the same rounding. */
  #rebuild(node: Node | null, sum: GatedSum, start: Value, terms: ReadonlyMap<Value, Value>, anchor: Node): Node {
    if (!node) throw new Error('a sum without a node');
    const { stream, graph } = this;
    const operand = (value: Value): Value => {
      const term = terms.get(value);
      // A bias that stands in the place of a branch is added as it is.
      if (constantOf(value)) return value;
      if (term) return term;
      if (isSame(value, sum.stage.start, stream.types)) return start;
      // A Cast that widens the start is part of the sum; only the first one has it, and its start is never rebuilt.
      if (value === sum.stage.root) return value;
      const inner = privateOrigin(value, stream.types)?.producer ?? null;
      return this.#rebuild(inner, sum, start, terms, anchor).output(0) as Value;
    };
    const isSkip = isSkipNorm(node);
    const result = node.output(0);
    if (!isSkip && (!result || (sumOperands(result).length === 0 && !shiftedBy(result)))) {
      throw new Error(`'${node.name}' is no sum`);
    }
    const isTerm = (i: number): boolean => !isSkip || i < 2 || i === biasOperand(node);
    const inputs = node.inputs.map((value, i) => (value && isTerm(i) ? operand(value) : value));
    const outputs = node.outputs.map((value) => value && { name: `${GATES.inputs}.${value.name}`, type: value.type });
    const spec = { opType: node.opType, domain: node.domain, name: node.name && `${node.name}/gated`, inputs, outputs };
    return graph.addNode({ ...spec, attributes: Object.fromEntries(node.attributes) }, { before: anchor });
  }

  #node(opType: string, inputs: readonly Value[], name: string, before: Node): Value {
    const spec = { opType, name, inputs, outputs: [{ name, type: (inputs[0] as Value).type }] };
    return this.graph.addNode(spec, { before }).output(0) as Value;
  }

  /** A graph output under exactly this name, computed after `after`. */
  #named(opType: string, inputs: readonly Value[], name: string, after: Node | null): Value {
    const [first] = this.graph.nodes();
    const spec = { opType, name, inputs, outputs: [{ name, type: tensorType(this.dtype, null) }] };
    const at = after ? { after } : first ? { before: first } : {};
    return this.graph.addNode(spec, at).output(0) as Value;
  }
}

/** The bias that a skip norm adds with a term: that of the projection before it, and of no other term of the same sum. */
function biasWith(term: Value, { end, branches }: Stage): Value | null {
  const isOwn = 'opType' in end && (branches.length === 1 || term.uses.some(({ node }) => node === end));
  return isOwn ? end.input(biasOperand(end)) : null;
}
