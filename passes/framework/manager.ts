/**
 * Runs pipelines: each pass, then the verifier, which names the pass that broke the graph. "Changed" is read off the
 * graph's revision; no pass reports it. What passes say they did is collected without being looked into.
 */

import type { Graph, Model, Node, Value } from '../../ir/core.js';
import { tensorType } from '../../ir/type.js';
import { newViolations, verifyModel } from '../../ir/verify.js';
import { passErrors } from '../analysis/errors.js';
import { findBlocks } from '../analysis/layers/blocks.js';
import { type Decoders, findDecoders } from '../analysis/layers/decoders.js';
import { type Blocks, branchesOf } from '../analysis/layers/layer.js';
import { Rewriter } from '../rewrite/rewriter.js';
import { type FactsByPass, linesOf } from './facts.js';
import type { Pass, PassContext, Remark } from './pass.js';
import { optionsOf, type Step } from './pipeline.js';
import { StepLog } from './step-log.js';

/** What one step of a pipeline did. */
export interface PassResult {
  readonly pass: string;
  readonly changed: boolean;
  readonly statistics: Readonly<Record<string, number>>;
  readonly facts: readonly unknown[];
  /** What it did, for a person. */
  readonly lines: readonly string[];
  readonly seconds: number;
}

/** What a pipeline did to a model. */
export interface PipelineResult {
  readonly changed: boolean;
  readonly steps: readonly PassResult[];
  readonly remarks: readonly Remark[];
  /** Of the remarks, what was asked for a layer by number and is left undone. */
  readonly refused: readonly Remark[];
  /** Of the remarks, reasons for leaving something as it is that hold at the end: for each layer the last one. */
  readonly left: readonly Remark[];
  /** What the passes did; `factsOf` reads it. */
  readonly facts: FactsByPass;
  /** Layers before the first pass. Null for an empty pipeline. */
  readonly before: Blocks | null;
  /** Layers after the last pass. */
  readonly after: Blocks | null;
}

/** Runs `steps` on the model in place. Throws OF_INVALID_GRAPH when a pass breaks an invariant. */
export function runPipeline(model: Model, steps: readonly Step[]): PipelineResult {
  if (steps.length === 0) {
    return { changed: false, steps: [], remarks: [], refused: [], left: [], facts: {}, before: null, after: null };
  }
  const run = new PipelineRun(model);
  for (const step of steps) run.take(step);
  return run.result();
}

class PipelineRun {
  /** What the file already violates is not a pass's fault. */
  readonly #known: readonly string[];
  /** Initializers that a caller could override. */
  readonly #defaults: number;
  readonly #start: number;
  readonly #steps: PassResult[] = [];
  readonly #remarks: Remark[] = [];
  readonly #left = new Map<string, Remark>();
  #layers: ModelLayers;

  constructor(readonly model: Model) {
    const { graph } = model;
    this.#known = verifyModel(model);
    this.#defaults = graph.inputs.filter((value) => value.initializer).length;
    this.#start = graph.revision;
    this.#layers = new ModelLayers(graph);
  }

  take(step: Step): void {
    const { pass } = step;
    const { graph } = this.model;
    const revision = graph.revision;
    const began = performance.now();
    const log = pass.scope === 'decoder' ? this.#runOnDecoders(step) : this.#runOn(step, this.#layers.main, graph);
    const changed = graph.revision !== revision;
    if (changed && this.model.irVersion < OPTIONAL_INPUTS) listInitializers(graph);
    if (changed) this.#verify(pass);
    // What layers there are, and their numbers, is only known now.
    if (changed && pass.isPreparation) this.#layers = new ModelLayers(graph);
    const seconds = (performance.now() - began) / 1000;
    const { facts, statistics, remarks } = log;
    const lines = linesOf({ pass, facts, statistics, remarks });
    this.#steps.push({ pass: pass.id, changed, statistics, facts, lines, seconds });
    this.#remarks.push(...remarks);
    log.settle(this.#left);
  }

  result(): PipelineResult {
    const { main } = this.#layers;
    const facts: Record<string, readonly unknown[]> = {};
    for (const step of this.#steps) {
      if (step.facts.length > 0) facts[step.pass] = [...(facts[step.pass] ?? []), ...step.facts];
    }
    return {
      changed: this.model.graph.revision !== this.#start,
      steps: this.#steps,
      remarks: [...this.#notes(), ...this.#remarks],
      refused: this.#remarks.filter(({ kind }) => kind === 'refused'),
      left: [...this.#left.values()],
      facts,
      before: main.original,
      after: main.blocks(),
    };
  }

  /** What a person should know about how the file was read. */
  #notes(): Remark[] {
    const note = (message: string): Remark => ({ kind: 'analysis', pass: 'manager', layer: null, message });
    const { doubt } = this.#layers.main.original;
    return [
      ...(this.#defaults === 1
        ? [note('1 initializer is also a graph input: its default is taken as a constant')]
        : this.#defaults > 1
          ? [note(`${this.#defaults} initializers are also graph inputs: their defaults are taken as constants`)]
          : []),
      ...(doubt ? [note(`layers are numbered by position: ${doubt}`)] : []),
    ];
  }

  #runOn(step: Step, layers: GraphLayers, graph: Graph): StepLog {
    const log = new StepLog(step.pass);
    step.pass.run({
      model: this.model,
      graph,
      options: optionsOf(step) as PassContext<Pass['options']>['options'],
      rewriter: new Rewriter(graph),
      original: layers.original,
      blocks: () => layers.blocks(),
      belongs: (node, layer) => layers.belongs(node, layer),
      passed: (message, layer) => log.remark('passed', message, layer),
      missed: (message, layer) => log.remark('missed', message, layer),
      refused: (message, layer) => log.remark('refused', message, layer),
      count: (name, by = 1) => log.count(name, by),
      fact: (fact) => log.fact(fact),
    });
    return log;
  }

  /** Runs a pass on every decoder. What the others do is the same over again: the first one's log stands for all. */
  #runOnDecoders(step: Step): StepLog {
    const { decoders } = this.#layers;
    const outputs = decoders.graphs.map((decoder) => [...decoder.outputs]);
    // The one that reads caches comes last.
    const order = [...decoders.graphs].reverse();
    const logs = order.map((decoder) => this.#runOn(step, this.#layers.of(decoder), decoder)).reverse();
    if (decoders.choice) settleBranches(decoders, outputs, logs, step.pass);
    return logs[0] as StepLog;
  }

  #verify(pass: Pass): void {
    const broken = newViolations(this.model, this.#known);
    if (broken.length > 0) throw passErrors.invalidGraph(`pass ${pass.id}`, broken.slice(0, 3).join('; '));
  }
}

/** The IR version from which an initializer need not be a graph input as well. */
const OPTIONAL_INPUTS = 4;

/** Makes graph inputs of the initializers that passes made, as files of old versions have it. */
function listInitializers(graph: Graph): void {
  for (const value of [...graph.initializers]) {
    const { initializer } = value;
    if (initializer && !value.isInput) graph.addInput(value.name, tensorType(initializer.dtype, initializer.dims));
  }
}

/** The decoders of a model with their layers. */
class ModelLayers {
  readonly decoders: Decoders;
  readonly #graphs: ReadonlyMap<Graph, GraphLayers>;
  constructor(graph: Graph) {
    this.decoders = findDecoders(graph);
    this.#graphs = new Map(this.decoders.graphs.map((decoder) => [decoder, new GraphLayers(decoder)]));
  }
  of(decoder: Graph): GraphLayers {
    return this.#graphs.get(decoder) as GraphLayers;
  }
  /** The layers of the first decoder. */
  get main(): GraphLayers {
    return this.of(this.decoders.graphs[0] as Graph);
  }
}

/** The layers of one graph: computed anew only after a change, numbered as they were at first. */
class GraphLayers {
  readonly original: Blocks;
  #revision: number;
  #blocks: Blocks;
  readonly #origin: Map<Node, number>;
  constructor(readonly graph: Graph) {
    this.#revision = graph.revision;
    this.original = findBlocks(graph);
    this.#blocks = this.original;
    this.#origin = originOf(this.original);
  }
  belongs(node: Node, layer: number): void {
    this.#origin.set(node, layer);
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
  logs: readonly StepLog[],
  pass: Pass,
): void {
  const gone = graphs.map((graph, i) => {
    const left = new Set(graph.outputs);
    return (before[i] as readonly Value[]).flatMap((value, index) => (left.has(value) ? [] : [index]));
  });
  const isUnlike = (texts: readonly string[]): boolean => texts.some((text) => text !== texts[0]);
  if (isUnlike(gone.map((indices) => indices.join())) || isUnlike(logs.map((log) => log.comparable()))) {
    throw passErrors.unlikeBranches(pass.id);
  }
  const node = choice as Node;
  for (const index of [...(gone[0] ?? [])].reverse()) {
    const value = node.output(index);
    while (value?.isGraphOutput) node.graph.removeOutput(value);
    node.graph.removeResult(node, index);
  }
}

/** The layer of every node inside a branch, so that numbers survive rewriting. */
function originOf(blocks: Blocks): Map<Node, number> {
  const origin = new Map<Node, number>();
  for (const layer of blocks.layers) {
    for (const { nodes } of branchesOf(layer)) for (const node of nodes) origin.set(node, layer.index);
  }
  return origin;
}
