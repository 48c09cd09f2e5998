/** Cases: the stream is read inside of a run, and members that are written in different ways. */
import * as assert from 'uvu/assert';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { caseFile, fuseCase, fusedRuns, inspectCase, mustFuse } from './cases.js';

const test = suite('cases: streams and merging');
const SOON = ['--keep-last', '0'];

/** Streams that somebody outside reads: what is not merged is not made parallel, and the reason is said. */
const REMOVED = ['--remove-attention', '1-3', ...SOON];
const STREAMS: readonly (readonly [file: string, ...flags: string[]])[] = [
  ['eagle_stories260K.onnx', ...REMOVED],
  ['aux_and_removed.onnx', ...SOON],
  ['mid_cast_out.onnx', ...SOON],
  ['genai-llama-fp32-aux/model.onnx', ...REMOVED],
  ['hidden-state-outputs.onnx', ...REMOVED],
  ['serial-odd-zero-points.onnx', ...SOON],
];

for (const [name, ...flags] of STREAMS) {
  test(`what is made parallel is merged, and what is not says why: ${name}`, () =>
    inWorkspace(async (folder) => {
      const { code, stderr, report } = await fuseCase(folder, caseFile('streams', name), ...flags);
      assert.is(code, 0, stderr);
      const facts = report?.facts as Record<string, { layers?: string[] }[]>;
      const parallel = (facts['parallelize-ffn'] ?? []).flatMap(({ layers }) => (layers ? [layers.join()] : []));
      const merged = fusedRuns(report as NonNullable<typeof report>).map((layers) => layers.join());
      assert.equal(merged, parallel);
      const inRuns = new Set(merged.flatMap((run) => run.split(',')));
      const reasons = new Map(report?.left.map(({ layer, reason }) => [layer, reason]));
      for (const { layer, ffn } of report?.original ?? []) {
        assert.ok(!ffn || inRuns.has(String(layer)) || reasons.has(String(layer)), `layer ${layer} has no reason`);
      }
      // The report is of what was written.
      if (merged.length > 0) assert.ok(report?.checks.algebra?.pass);
    }));
}

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
];

for (const [name, runs, ...flags] of MERGED) {
  test(`fuses: ${name}`, () =>
    inWorkspace(async (folder) => void (await mustFuse(folder, caseFile('merging', name), runs, ...flags))));
}

for (const name of ['clip_null.onnx', 'cast_scalar.onnx']) {
  test(`two functions are told apart, or each keeps its constants: ${name}`, () =>
    inWorkspace(async (folder) => {
      const { code, stderr, report } = await fuseCase(folder, caseFile('merging', name), ...SOON);
      assert.is(code, 0, stderr);
      if (fusedRuns(report as NonNullable<typeof report>).length > 0) assert.ok(report?.checks.algebra?.pass);
      else assert.ok(report && report.left.length > 0);
    }));
}

test('learned scalars inside of an activation: fused, or that is the reason', () =>
  inWorkspace(async (folder) => {
    const model = caseFile('merging', 'apertus-tf5-dyn23.onnx');
    const { code, stderr, report } = await fuseCase(folder, model, '--remove-attention', '1-2', ...SOON);
    assert.is(code, 0, stderr);
    if (fusedRuns(report as NonNullable<typeof report>).length > 0) assert.ok(report?.checks.algebra?.pass);
    else assert.match(report?.left.map(({ reason }) => reason).join('\n') ?? '', /scalar/);
  }));

test('the default domain by its long name is the default domain', async () => {
  assert.ok((await inspectCase(caseFile('merging', 'explicit-default-domain.onnx'))).layers.length > 0);
});

test.run();
