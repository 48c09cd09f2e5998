/**
 * Makes the FFNs of a run parallel (arXiv 2503.18908, section 3; method.md, 1.2):
 *
 *     r1 = r0 + f0(n0(r0));  r2 = r1 + f1(n1(r1));  ...      becomes      r = r0 + f0(n0(r0)) + f1(n1(r0)) + ...
 *
 * This is the step that changes the function, so it asks first whether it is worth it: FFNs that concat-ffn could not make
 * one stay as they are, unless `parallel-only` asks for them, and so do FFNs with a reader of the stream between them. With `norm=last` every member reads the norm of the last one, as in the
 * paper's equation 5; by default each keeps its own.
 */
import type { Value } from '../../ir/core.js';
import { streamReads } from '../analysis/layers/layer.js';
import { branchesInto, type ResidualStream, startAs, valueAt } from '../analysis/layers/residual-stream.js';
import type { Member } from '../analysis/plans/ffn-merge.js';
import { DEFAULT_RUN_OPTIONS, planRuns } from '../analysis/plans/ffn-runs.js';
import type { FusedRun } from '../analysis/plans/fused-run.js';
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
    describe: (runs) => runs.map(({ layers }) => `the FFNs of ${layersText(layers)} read one input`),
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
      const first = run.members[0] as Member;
      for (const [i, member] of run.members.entries()) {
        const { start } = member.branch.stage;
        const dtype = stream.types.get(valueAt(start) ?? member.branch.output);
        const base = startAs(first.branch.stage, dtype, stream.types);
        if (!base) throw new Error('a run starts at a sum that nothing can read');
        if (i > 0) readFrom(member, run.members[i - 1] as Member, base, stream, rewriter);
      }
      if (options.norm === 'last') shareLastNorm(run.members, rewriter);
      const labels = run.members.map(({ layer }) => layer.label);
      passed(`${labels.length} FFNs of layers ${labels.join(', ')} now read one input`, labels[0]);
      const widths = run.members.map(({ branch }) => branch.ffn.width);
      fact({ layers: labels, widths, fusedWidth: run.fusedWidth });
      count('runs');
      count('members', labels.length);
    }
  },
});

/** Lets the member's norm read `base`; its place in the chain of sums stays. */
function readFrom({ branch }: Member, previous: Member, base: Value, stream: ResidualStream, rewriter: Rewriter): void {
  const { start } = branch.stage;
  for (const { node, index } of streamReads(branch.nodes, start, stream)) rewriter.replaceOperand(node, index, base);
  // Flattened again by a Reshape that undoes the one before it: the sum goes on from the previous sum.
  const end = valueAt(previous.branch.stage.end);
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
