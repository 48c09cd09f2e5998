/**
 * Makes the FFNs of a run parallel (arXiv 2503.18908, section 3; method.md, 1.2):
 *
 *     r1 = r0 + f0(n0(r0));  r2 = r1 + f1(n1(r1));  ...      becomes      r = r0 + f0(n0(r0)) + f1(n1(r0)) + ...
 *
 * This is the step that changes the function, so it asks first whether it is worth it: FFNs that concat-ffn could not make
 * one stay as they are, unless `parallel-only` asks for them, and so do FFNs with a reader of the stream between them. With `norm=last` every member reads the norm of the last one, as in the
 * paper's equation 5; by default each keeps its own. A linear
 * between two FFNs of a run that was asked for (in the place of an attention, say) reads the input of the run, too:
 *
 *     r = r0 + f0(n0(r0)) + L1(n1(r0)) + f1(m1(r0)) + ...
 *
 * That before the first FFN comes before the run. Runs that are found here stop at linears, as at attentions.
 */
import type { Node, Value } from '../../ir/core.js';
import { type FfnBranch, type LinearBranch, streamReads } from '../analysis/layers/layer.js';
import { branchesInto, type ResidualStream, type Stage, startAs, valueAt } from '../analysis/layers/residual-stream.js';
import type { Member } from '../analysis/plans/ffn-merge.js';
import { type FfnRun, planRuns } from '../analysis/plans/ffn-runs.js';
import type { FusedRun } from '../analysis/plans/fused-run.js';
import { DEFAULT_RUN_OPTIONS } from '../analysis/plans/run-options.js';
import { isPossible } from '../framework/asked-layers.js';
import { factsAs, layersText } from '../framework/facts.js';
import { choiceOption, flagOption, integerOption, printRun, runsOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';
import type { Rewriter } from '../rewrite/rewriter.js';

export const parallelizeFfn = definePass({
  id: 'parallelize-ffn',
  scope: 'decoder',
  summary: 'let the FFNs of each attention-free run read the input of the run',
  effect: 'changes-function',
  options: {
    'keep-last': integerOption('FFNs at the end of each run that stay as they are', DEFAULT_RUN_OPTIONS.keepLast),
    'max-width': integerOption('widest fused FFN; longer runs are split; 0 is no limit', DEFAULT_RUN_OPTIONS.maxWidth),
    runs: runsOption('runs to fuse exactly as given, original layer numbers: 42-50,53-69'),
    lead: flagOption('also take the FFN of the layer just before a run, whose attention stays'),
    norm: choiceOption('norm of the fused FFN', ['own', 'last'], 'own'),
    'parallel-only': flagOption('also FFNs that cannot be made one: they read one input and stay as many'),
    'keep-going': flagOption('say which of the runs given cannot be fused, and go on with the rest'),
  },
  statistics: { runs: 'runs made parallel', members: 'FFNs in them' },
  /** FFNs that read one input now, whether or not they become one. */
  facts: factsAs<FusedRun>({
    describe: (runs) =>
      runs.map(({ layers, linears }) => {
        const beside = linears ? `, with the linears before the FFNs of ${layersText(linears)},` : '';
        return `the FFNs of ${layersText(layers)}${beside} read one input`;
      }),
  }),
  run({ options, rewriter, blocks, passed, missed, refused, count, fact }) {
    const settings = {
      keepLast: options['keep-last'],
      maxWidth: options['max-width'],
      lead: options.lead,
      sharesLastNorm: options.norm === 'last',
      parallelOnly: options['parallel-only'],
    };
    const runs = options.runs.filter((run) => {
      const plan = (): unknown => planRuns(blocks(), { ...settings, runs: [run] });
      return isPossible(plan, options['keep-going'], (reason) => refused(reason, printRun(run)));
    });
    // None of the runs is left, which is something else than none being given.
    if (options.runs.length > runs.length && runs.length === 0) return;
    const plan = planRuns(blocks(), { ...settings, runs });
    const { stream } = blocks();
    for (const { layer, reason } of plan.left) missed(reason, layer.label);
    for (const run of plan.runs) {
      makeParallel(run, stream, rewriter);
      if (options.norm === 'last') shareLastNorm(run.members, rewriter);
      const labels = run.members.map(({ layer }) => layer.label);
      const linears = run.members.flatMap(({ layer }, i) => (run.linears[i]?.length ? [layer.label] : []));
      const beside = linears.length > 0 ? `, and so do the linears before the FFNs of ${linears.join(', ')}` : '';
      passed(`${labels.length} FFNs of layers ${labels.join(', ')} now read one input${beside}`, labels[0]);
      const widths = run.members.map(({ branch }) => branch.ffn.width);
      fact({ layers: labels, widths, fusedWidth: run.fusedWidth, ...(linears.length > 0 ? { linears } : {}) });
      count('runs');
      count('members', labels.length);
    }
  },
});

/** Every FFN of the run, and every linear between two of them, reads the input of the first FFN. */
function makeParallel({ members, linears }: FfnRun, stream: ResidualStream, rewriter: Rewriter): void {
  const [first] = members as readonly [Member];
  let previous: Stage = first.branch.stage;
  for (const [i, { branch }] of members.entries()) {
    if (i === 0) continue;
    const own: readonly (FfnBranch | LinearBranch)[] = [...(linears[i] ?? []), branch];
    for (const stage of new Set(own.map((each) => each.stage))) {
      const dtype = stream.types.get(valueAt(stage.start) ?? branch.output);
      const base = startAs(first.branch.stage, dtype, stream.types);
      if (!base) throw new Error('a run starts at a sum that nothing can read');
      const nodes = own.flatMap((each) => (each.stage === stage ? [...each.nodes] : []));
      readFrom(new Set(nodes), stage, previous, base, stream, rewriter);
      previous = stage;
    }
  }
}

/** Lets the norms of a stage's branches read `base`; their place in the chain of sums stays. */
function readFrom(
  nodes: ReadonlySet<Node>,
  { start }: Stage,
  previous: Stage,
  base: Value,
  stream: ResidualStream,
  rewriter: Rewriter,
): void {
  for (const { node, index } of streamReads(nodes, start, stream)) rewriter.replaceOperand(node, index, base);
  // Flattened again by a Reshape that undoes the one before it: the sum goes on from the previous sum.
  const end = valueAt(previous.end);
  if (!('opType' in start) && end && start !== end && start.producer?.op === 'Reshape') {
    rewriter.replaceValue(start, end);
    rewriter.eraseProducer(start);
  }
  if ('opType' in start) rewriter.splitSkipNorm(start, base, branchesInto(stream, start));
}

/** Every member's linears, or the factors before them, read the norm of the last member (the paper's equation 5). */
function shareLastNorm(members: readonly Member[], rewriter: Rewriter): void {
  const places = members.slice(0, -1).flatMap(({ ffn }) => ffn.readings.map(({ reads }) => reads));
  const [last] = (members.at(-1) as Member).ffn.readings.map(({ reads }) => reads.node.input(reads.index));
  if (!last) throw new Error('an FFN that reads nothing');
  rewriter.hoist(last, rewriter.earliest(places.map(({ node }) => node)));
  for (const { node, index } of places) rewriter.replaceOperand(node, index, last);
}
