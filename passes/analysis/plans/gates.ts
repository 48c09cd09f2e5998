/**
 * Gates on a residual stream: which contribution each sum takes up, and what the branches of each sum read.
 *
 * With r_0 the embedding and c_a what branch a adds, sum k of a pre-norm decoder reads r_0 + c_0 + ... + c_(k-1). A gate on
 * c_a takes branch a away; a gate on c_a in what sum k reads takes away that one dependence. Gates of 0 and 1 spell every
 * plan: removal, FFNs of a run that read its input, whole blocks that read one input.
 */
import { type Node, Value } from '../../../ir/core.js';
import { isCopy } from '../layers/blocks.js';
import { type Blocks, type Branch, branchesOf, type Layer } from '../layers/layer.js';
import { isSkipNorm, type Stage, valueAt, widens } from '../layers/residual-stream.js';
import { describe, Refusal } from '../refusal.js';
import { rootOf } from './block-windows.js';

/** Names of what the pass adds to the graph. */
export const GATES = {
  contributions: 'onnx_fuse.contribution_gates',
  inputs: 'onnx_fuse.input_gates',
  stream: 'onnx_fuse.stream',
  contribution: (layer: number, role: Branch['role'], place: number): string =>
    `onnx_fuse.contribution.${layer}.${role}${place > 0 ? `.${place}` : ''}`,
} as const;

/** One branch: what it adds to the stream can be taken away. */
export interface GatedBranch {
  readonly layer: Layer;
  readonly branch: Branch;
  /** Graph output that holds what it adds (times its gate). */
  readonly output: string;
}

/** One sum of the stream; its branches read one value. */
export interface GatedSum {
  readonly stage: Stage;
  /** Indices into `branches`. */
  readonly branches: readonly number[];
  /** Its branches read the start of `base` plus what the sums `earlier` add, in this order, each term times its gate. */
  readonly base: Stage;
  readonly earlier: readonly number[];
}

/** Where an instrumented model gets its gates. */
export interface GatePlan {
  readonly branches: readonly GatedBranch[];
  readonly sums: readonly GatedSum[];
  /** Gate p of the inputs: what sum `sum` reads of branch `branch`. */
  readonly pairs: readonly { readonly sum: number; readonly branch: number }[];
}

/**
 * Plans gates for all branches. `window`: how many sums back inputs have gates (0: all); `reverse`: runs of attention-free
 * layers whose FFNs are applied in reverse order (an ablation of arXiv 2503.18908). Returns the reason where there can be none.
 */
export function planGates(
  { stream, layers, reason }: Blocks,
  window: number,
  reverse: readonly (readonly number[])[] = [],
): GatePlan | Refusal {
  if (reason) return new Refusal(reason);
  const branches: GatedBranch[] = [];
  const sums: Sum[] = [];
  const owners = new Map<Value, { layer: Layer; branch: Branch }>();
  for (const layer of layers) {
    for (const branch of branchesOf(layer)) owners.set(branch.output, { layer, branch });
  }
  const names = new Map<string, number>();
  let segment = 0;
  for (const stage of stream.stages) {
    if (!stage.isResidual) {
      // Something happens to the stream: what was added before it cannot be told apart behind it.
      if (!isCopy(stage, stream)) segment++;
      continue;
    }
    const own: number[] = [];
    for (const value of stage.branches) {
      const owner = owners.get(value);
      if (!owner) return new Refusal(`'${value.name}' is added to the residual stream and belongs to no layer`);
      if (owner.layer.fixed) return new Refusal(`layer ${owner.layer.label}: ${owner.layer.fixed}`);
      const outer = [...owner.branch.nodes].find(({ subgraphs }) => subgraphs.length > 0);
      if (outer) return new Refusal(`what graphs inside ${describe(outer)} read of the stream can have no gate`);
      const key = `${owner.layer.index} ${owner.branch.role}`;
      const place = names.get(key) ?? 0;
      names.set(key, place + 1);
      own.push(branches.length);
      branches.push({ ...owner, output: GATES.contribution(owner.layer.index, owner.branch.role, place) });
    }
    if (!rootOf(stage.end, stage.start, stream)) return new Refusal('where a sum takes up the stream was not found');
    if (sums.length > 0 && widens(stage, stream.types)) {
      return new Refusal('a sum that is not the first widens the residual stream: gates have one element type');
    }
    const all = sums.flatMap((sum, i) => (sum.segment === segment ? [i] : []));
    const earlier = window > 0 ? all.slice(-window) : all;
    sums.push({ stage, branches: own, earlier, base: sums[earlier[0] ?? -1]?.stage ?? stage, segment });
  }
  for (const run of reverse) {
    const problem = reverseRun(run, sums, branches);
    if (problem) return problem;
  }
  const start = sums[0]?.stage.start;
  if (!start || !valueAt(start)) return new Refusal('where its residual stream starts is no value of the graph');
  const pairs = sums.flatMap(({ earlier }, sum) =>
    earlier.flatMap((at) => (sums[at]?.branches ?? []).map((branch) => ({ sum, branch }))),
  );
  return { branches, sums, pairs };
}

/** A sum in the making. */
interface Sum {
  readonly stage: Stage;
  readonly branches: readonly number[];
  base: Stage;
  earlier: readonly number[];
  /** Sums of one segment follow each other with nothing but copies in between. */
  readonly segment: number;
}

/** Reverses the FFNs of a run; returns the reason where that cannot be. */
function reverseRun(run: readonly number[], sums: Sum[], branches: readonly GatedBranch[]): Refusal | null {
  const members = sums.flatMap((sum, i) => {
    const layer = branches[sum.branches[0] ?? -1]?.layer;
    return layer && run.includes(layer.index) ? [i] : [];
  });
  const [first, last] = [members[0] ?? 0, members.at(-1) ?? 0];
  const areFfns = members.every((i) => sums[i]?.branches.every((b) => branches[b]?.branch.role === 'ffn'));
  if (!areFfns) return new Refusal(`the run ${run.join(', ')} cannot be reversed: it has an attention`);
  if (
    members.length !== run.length ||
    last - first !== members.length - 1 ||
    sums[first]?.segment !== sums[last]?.segment
  ) {
    return new Refusal(`the run ${run.join(', ')} cannot be reversed: it is no stretch of consecutive FFNs`);
  }
  const { earlier, base } = sums[first] as Sum;
  for (const i of members) {
    const sum = sums[i] as Sum;
    sum.earlier = [...earlier, ...members.filter((j) => j > i).reverse()];
    sum.base = base;
  }
  return null;
}

/** The skip norm at whose sum a stage starts; null where the stream is a plain value there. */
export function skipNormAt(stage: Stage): Node | null {
  return !(stage.start instanceof Value) && isSkipNorm(stage.start) ? stage.start : null;
}
