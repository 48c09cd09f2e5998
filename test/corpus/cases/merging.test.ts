/** Cases: the stream is read inside of a run, and members that are written in different ways. */
import * as assert from 'uvu/assert';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { assertRefused, caseFile, fuseCase, fusedRuns, inspectCase, mustFuse } from './cases.js';

const test = suite('cases: streams and merging');
const SOON = ['--keep-last', '0'];

/** Streams that somebody outside reads: what is not merged is not made parallel, and the reason is said. */
const removed = (layers: string) => ['--remove-attention', layers, ...SOON];
/** File, runs that become one, the run that cannot be asked for, and why; flags. */
const STREAMS: readonly (readonly [
  file: string,
  fused: readonly string[],
  run: string,
  why: RegExp,
  flags: string[],
])[] = [
  ['eagle_stories260K.onnx', [], '1-4', /Concat 'eagle' reads .*between layers 1 and 2/, removed('1-4')],
  ['aux_and_removed.onnx', ['1,2,3'], '0-1', /MatMul '.*' reads 'add_9', .*between layers 0 and 1/, SOON],
  ['mid_cast_out.onnx', ['1,2'], '0-1', /Cast '.*' reads 'add_9', .*between layers 0 and 1/, SOON],
  ['genai-llama-fp32-aux/model.onnx', [], '1-3', /Concat '.*aux_hidden_states.*' reads/, removed('1-3')],
  ['hidden-state-outputs.onnx', [], '1-4', /between layers 1 and 2, is a graph output/, removed('1-4')],
  ['serial-odd-zero-points.onnx', [], '0-1', /its zero points do not end on a byte/, SOON],
];

for (const [name, expected, run, why, flags] of STREAMS) {
  test(`${name}: what is made parallel is merged, and what is not says why`, () =>
    inWorkspace(async (folder) => {
      const { code, stderr, report } = await fuseCase(folder, caseFile('streams', name), ...flags);
      assert.is(code, 0, stderr);
      const facts = report?.facts as Record<string, { layers?: string[] }[]>;
      const parallel = (facts['parallelize-ffn'] ?? []).flatMap(({ layers }) => (layers ? [layers.join()] : []));
      const merged = fusedRuns(report as NonNullable<typeof report>).map((layers) => layers.join());
      assert.equal(merged, parallel);
      assert.equal(merged, expected);
      assert.ok(
        report?.left.some(({ reason }) => why.test(reason)),
        JSON.stringify(report?.left),
      );
      const inRuns = new Set(merged.flatMap((run) => run.split(',')));
      const reasons = new Map(report?.left.map(({ layer, reason }) => [layer, reason]));
      for (const { layer, ffn } of report?.original ?? []) {
        assert.ok(!ffn || inRuns.has(String(layer)) || reasons.has(String(layer)), `layer ${layer} has no reason`);
      }
      // The report is of what was written: the input as it came, or a model that holds what it should.
      if (report?.pipeline === '') assert.is(report.checks.skipped, 'the model is an unchanged copy');
      else assert.ok(report?.checks.algebra?.pass);
    }));

  test(`${name}: a run that is asked for is fused as asked, or refused with the reason`, () =>
    inWorkspace(async (folder) => {
      const removal = flags.includes('--remove-attention') ? flags.slice(0, 2) : [];
      const refused = await fuseCase(folder, caseFile('streams', name), ...removal, '--runs', run);
      assertRefused(refused, why);
      assert.is(refused.report, null);
    }));
}

test('eagle_stories260K: the change is that of the removal alone', () =>
  inWorkspace(async (folder) => {
    const { report } = await fuseCase(folder, caseFile('streams', 'eagle_stories260K.onnx'), ...removed('1-4'));
    const kl = report?.checks.drift?.kl ?? 0;
    assert.ok(kl > 0.9 && kl < 1.2, `${kl}`);
  }));

/** File, runs that become one, flags. */
const MERGED: readonly (readonly [file: string, runs: number, ...flags: string[]])[] = [
  ['bias_rank.onnx', 1, ...SOON],
  ['vec_rank.onnx', 1, ...SOON],
  ['Add_gate_up_N_1x1xN.onnx', 1, '--remove-attention', '0-1', ...SOON],
  ['norm_last_gemm_matmul_1408.onnx', 1, '--remove-attention', '0,1', ...SOON, '--lead', '--norm', 'last'],
  ['invalid_graph_1467.onnx', 2, '--remove-attention', '0,5', ...SOON, '--norm', 'last'],
  ['explicit-default-domain.onnx', 1, '--remove-attention', '1-2', ...SOON],
  ['smoothquant-each.onnx', 1, '--remove-attention', '1-2', ...SOON],
  ['gpt_bigcode-tf5-ts17-ortall.onnx', 1, '--remove-attention', '1-2', ...SOON],
  ['fusedgemm-opt.onnx', 1, '--remove-attention', '1-2', ...SOON],
  ['apertus-tf5-dyn23.onnx', 1, '--remove-attention', '1-2', ...SOON],
  // Of no row, but there.
  ['gemm_mix_fold.onnx', 1, ...SOON],
  ['helium-tf5-dyn20-kv.onnx', 1, '--remove-attention', '1-2', ...SOON],
];

for (const [name, runs, ...flags] of MERGED) {
  test(`${name}: fused`, () =>
    inWorkspace(async (folder) => void (await mustFuse(folder, caseFile('merging', name), runs, ...flags))));
}

test('clip_null: an operand that is left out is not one that is given', () =>
  inWorkspace(async (folder) => {
    const { code, stderr, report } = await fuseCase(folder, caseFile('merging', 'clip_null.onnx'), ...SOON);
    assert.is(code, 0, stderr);
    assert.equal(fusedRuns(report as NonNullable<typeof report>), []);
    const reasons = report?.left.map(({ reason }) => reason).join('\n') ?? '';
    assert.match(reasons, /activation Clip\(\$0,0\.3\d*\) instead of activation Clip\(\$0,-,0\.3\d*\)/);
  }));

test('cast_scalar: a scalar behind a Cast to an integer is the integer', () =>
  inWorkspace(async (folder) => void (await mustFuse(folder, caseFile('merging', 'cast_scalar.onnx'), 1, ...SOON))));

test('explicit-default-domain: its layers are those of any other model', async () => {
  const { layers } = await inspectCase(caseFile('merging', 'explicit-default-domain.onnx'));
  assert.equal(
    layers.map(({ index, attention, ffn }) => [index, attention.present, ffn.kind]),
    [0, 1, 2, 3, 4].map((index) => [index, true, 'SwiGLU']),
  );
});

test.run();
