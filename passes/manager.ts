/**
 * Runs pipelines: each pass, then the verifier, which names the pass that broke the graph. "Changed" is read off the
 * graph's revision; no pass reports it.
 */
import type { Model, Node } from '../ir/core.js';
import { errors } from '../ir/diagnostic.js';
import { verifyModel } from '../ir/verify.js';
import { type Blocks, findBlocks, type LayerOrigin } from './analysis/blocks.js';
import type { Outcome, Pass, PassContext, Remark } from './pass.js';
import { optionsOf, type Step } from './pipeline.js';
import { Rewriter } from './rewriter.js';

export interface StepResult {
  readonly pass: string;
  readonly changed: boolean;
  readonly statistics: Readonly<Record<string, number>>;
  readonly seconds: number;
}

export interface PipelineResult {
  readonly changed: boolean;
  readonly steps: readonly StepResult[];
  readonly remarks: readonly Remark[];
  readonly outcome: Outcome;
  /** Layers before the first pass. Null for an empty pipeline. */
  readonly before: Blocks | null;
  /** Layers after the last pass. */
  readonly after: Blocks | null;
}

/** Runs `steps` on the model in place. Throws OF_INVALID_GRAPH when a pass breaks an invariant. */
export function runPipeline(model: Model, steps: readonly Step[]): PipelineResult {
  const graph = model.graph;
  const remarks: Remark[] = [];
  const results: StepResult[] = [];
  const outcome: Outcome = {
    removedAttention: [],
    removedFfn: [],
    renamedCaches: [],
    parallelRuns: [],
    fusedRuns: [],
  };
  if (steps.length === 0) return { changed: false, steps: results, remarks, outcome, before: null, after: null };
  // What the file already violates is not a pass's fault.
  const known = new Set(verifyModel(model));
  const before = findBlocks(graph);
  const origin = originOf(before);
  let cached = { revision: graph.revision, blocks: before };
  const blocks = (): Blocks => {
    if (cached.revision !== graph.revision) cached = { revision: graph.revision, blocks: findBlocks(graph, origin) };
    return cached.blocks;
  };
  const start = graph.revision;
  for (const step of steps) {
    const { pass } = step;
    const revision = graph.revision;
    const began = performance.now();
    const statistics: Record<string, number> = {};
    for (const name of Object.keys(pass.statistics)) statistics[name] = 0;
    const context: PassContext<Pass['options']> = {
      model,
      graph,
      options: optionsOf(step) as PassContext<Pass['options']>['options'],
      rewriter: new Rewriter(graph),
      outcome,
      blocks,
      passed: (message, layer) => remarks.push(remark('passed', pass, message, layer)),
      missed: (message, layer) => remarks.push(remark('missed', pass, message, layer)),
      count: (name, by = 1) => {
        if (statistics[name] === undefined) throw new RangeError(`pass ${pass.id} declares no statistic '${name}'`);
        statistics[name] += by;
      },
    };
    pass.run(context);
    const changed = graph.revision !== revision;
    if (changed) {
      const broken = verifyModel(model).filter((violation) => !known.has(violation));
      if (broken.length > 0) throw errors.invalidGraph(`pass ${pass.id}`, broken.slice(0, 3).join('; '));
    }
    results.push({ pass: pass.id, changed, statistics, seconds: (performance.now() - began) / 1000 });
  }
  return { changed: graph.revision !== start, steps: results, remarks, outcome, before, after: blocks() };
}

function remark(kind: Remark['kind'], pass: Pass, message: string, layer?: string | number): Remark {
  return { kind, pass: pass.id, layer: layer === undefined ? null : String(layer), message };
}

/** The layer of every node inside a branch, so that numbers survive rewriting. */
function originOf(blocks: Blocks): LayerOrigin {
  const origin = new Map<Node, number>();
  for (const layer of blocks.layers) {
    for (const branch of [layer.attention, layer.ffn, ...layer.others]) {
      for (const node of branch?.nodes ?? []) origin.set(node, layer.index);
    }
  }
  return origin;
}
