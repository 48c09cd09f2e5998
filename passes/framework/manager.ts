/**
 * Runs pipelines: each pass, then the verifier, which names the pass that broke the graph. "Changed" is read off the
 * graph's revision; no pass reports it.
 */
import type { Graph, Model, Node, Value } from '../../ir/core.js';
import { verifyModel } from '../../ir/verify.js';
import { passErrors } from '../analysis/errors.js';
import { findBlocks } from '../analysis/layers/blocks.js';
import { type Decoders, findDecoders } from '../analysis/layers/decoders.js';
import { type Blocks, branchesOf, type LayerOrigin } from '../analysis/layers/layer.js';
import { Rewriter } from '../rewrite/rewriter.js';
import type { Outcome } from './outcome.js';
import type { Pass, PassContext, Remark } from './pass.js';
import { optionsOf, type Step } from './pipeline.js';

export interface PassResult {
  readonly pass: string;
  readonly changed: boolean;
  readonly statistics: Readonly<Record<string, number>>;
  readonly seconds: number;
}

export interface PipelineResult {
  readonly changed: boolean;
  readonly steps: readonly PassResult[];
  readonly remarks: readonly Remark[];
  readonly outcome: Outcome;
  /** Layers before the first pass. Null for an empty pipeline. */
  readonly before: Blocks | null;
  /** Layers after the last pass. */
  readonly after: Blocks | null;
}

/** Runs `steps` on the model in place. Throws OF_INVALID_GRAPH when a pass breaks an invariant. */
export function runPipeline(model: Model, steps: readonly Step[]): PipelineResult {
  const { graph } = model;
  const remarks: Remark[] = [];
  const results: PassResult[] = [];
  const outcome = emptyOutcome();
  if (steps.length === 0) return { changed: false, steps: results, remarks, outcome, before: null, after: null };
  // What the file already violates is not a pass's fault.
  const known = new Set(verifyModel(model));
  let { decoders, analyses, main, before } = analyse(graph);
  const defaults = graph.inputs.filter((value) => value.initializer).length;
  if (defaults > 0) {
    const message = `${defaults} initializers are also graph inputs: their defaults are taken as constants`;
    remarks.push({ kind: 'analysis', pass: 'manager', layer: null, message });
  }
  const { numbering } = before;
  if (numbering) {
    const message = `layers are numbered by position: ${numbering}`;
    remarks.push({ kind: 'analysis', pass: 'manager', layer: null, message });
  }
  const start = graph.revision;
  for (const step of steps) {
    const { pass } = step;
    const revision = graph.revision;
    const began = performance.now();
    const statistics: Record<string, number> = {};
    for (const name of Object.keys(pass.statistics)) statistics[name] = 0;
    const run = (on: Graph, analysis: LayerAnalysis, into: Outcome, said: Remark[]): void =>
      pass.run({
        model,
        graph: on,
        options: optionsOf(step) as PassContext<Pass['options']>['options'],
        rewriter: new Rewriter(on),
        outcome: into,
        blocks: () => analysis.blocks(),
        passed: (message, layer) => said.push(remark('passed', pass, message, layer)),
        missed: (message, layer) => said.push(remark('missed', pass, message, layer)),
        count: (name, by = 1) => {
          if (statistics[name] === undefined) throw new RangeError(`pass ${pass.id} declares no statistic '${name}'`);
          if (into === outcome) statistics[name] += by;
        },
      });
    if (pass.scope === 'decoder') {
      const outputs = decoders.graphs.map((decoder) => [...decoder.outputs]);
      const copies = decoders.graphs.map((_, i) => (i === 0 ? outcome : structuredClone(outcome)));
      const first = copies.map(() => [] as Remark[]);
      // What the others do is the same over again; it is not reported twice.
      const others = [...decoders.graphs].reverse();
      for (const decoder of others) {
        const i = decoders.graphs.indexOf(decoder);
        run(decoder, analyses.get(decoder) as LayerAnalysis, copies[i] as Outcome, first[i] as Remark[]);
      }
      remarks.push(...(first[0] as Remark[]));
      if (decoders.choice) settleBranches(decoders, outputs, copies, pass);
    } else run(graph, main, outcome, remarks);
    const changed = graph.revision !== revision;
    if (changed) {
      const broken = verifyModel(model).filter((violation) => !known.has(violation));
      if (broken.length > 0) throw passErrors.invalidGraph(`pass ${pass.id}`, broken.slice(0, 3).join('; '));
    }
    // What layers there are, and their numbers, is only known now.
    if (changed && pass.isPreparation) ({ decoders, analyses, main, before } = analyse(graph));
    results.push({ pass: pass.id, changed, statistics, seconds: (performance.now() - began) / 1000 });
  }
  return { changed: graph.revision !== start, steps: results, remarks, outcome, before, after: main.blocks() };
}

/** The decoders of a model with their layers; `main` is the analysis of the first. */
function analyse(graph: Graph) {
  const decoders = findDecoders(graph);
  const analyses = new Map(decoders.graphs.map((decoder) => [decoder, new LayerAnalysis(decoder)]));
  const main = analyses.get(decoders.graphs[0] as Graph) as LayerAnalysis;
  return { decoders, analyses, main, before: main.blocks() };
}

/** The layers of one graph: computed anew only after a change, numbered as they were at first. */
class LayerAnalysis {
  #revision: number;
  #blocks: Blocks;
  readonly #origin: LayerOrigin;
  constructor(readonly graph: Graph) {
    this.#revision = graph.revision;
    this.#blocks = findBlocks(graph);
    this.#origin = originOf(this.#blocks);
  }
  blocks(): Blocks {
    if (this.#revision !== this.graph.revision) {
      this.#revision = this.graph.revision;
      this.#blocks = findBlocks(this.graph, this.#origin);
    }
    return this.#blocks;
  }
}

/** An If gives what both branches give: outputs that a pass took from both go from the If and from the model too. */
function settleBranches(
  { graphs, choice }: Decoders,
  before: readonly (readonly Value[])[],
  outcomes: readonly Outcome[],
  pass: Pass,
): void {
  const gone = graphs.map((graph, i) => {
    const left = new Set(graph.outputs);
    return (before[i] as readonly Value[]).flatMap((value, index) => (left.has(value) ? [] : [index]));
  });
  const summary = (outcome: Outcome): string =>
    JSON.stringify([
      outcome.removedAttention.map(({ layer }) => layer),
      outcome.parallelRuns,
      outcome.fusedRuns,
      outcome.requantized,
    ]);
  const first = outcomes[0] as Outcome;
  if (
    gone.some((indices) => indices.join() !== gone[0]?.join()) ||
    outcomes.some((o) => summary(o) !== summary(first))
  ) {
    throw passErrors.unlikeBranches(pass.id);
  }
  const node = choice as Node;
  for (const index of [...(gone[0] ?? [])].reverse()) {
    const value = node.output(index);
    if (value?.isGraphOutput) node.graph.removeOutput(value);
    node.graph.removeResult(node, index);
  }
}

function remark(kind: Remark['kind'], pass: Pass, message: string, layer?: string | number): Remark {
  return { kind, pass: pass.id, layer: layer === undefined ? null : String(layer), message };
}

/** The layer of every node inside a branch, so that numbers survive rewriting. */
function originOf(blocks: Blocks): LayerOrigin {
  const origin = new Map<Node, number>();
  for (const layer of blocks.layers) {
    for (const { nodes } of branchesOf(layer)) for (const node of nodes) origin.set(node, layer.index);
  }
  return origin;
}

function emptyOutcome(): Outcome {
  return {
    removedAttention: [],
    removedFfn: [],
    renamedCaches: [],
    parallelRuns: [],
    fusedRuns: [],
    requantized: [],
    parallelBlocks: [],
    mergedAttention: [],
    shards: null,
  };
}
