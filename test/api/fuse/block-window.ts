/** A window of whole blocks is made parallel and merged, and the result is run with onnxruntime against the parallel, unmerged graph. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import { type Model, openModel } from '../../../ir/index.js';
import { concatAttention, concatFfn, factsOf, layersOf } from '../../../passes/index.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

/** Operators that attend; each written-out attention has one Softmax. */
export function attentions(model: Model): number {
  return [...model.graph.nodes()].filter(({ opType }) => /Attention$|^Softmax$/.test(opType)).length;
}

/** Runs the command on `input` and gives its report and the model that it wrote. */
export async function fuseWindow(folder: string, input: string, ...flags: string[]): Promise<[Report, Model]> {
  const [output, file] = [join(folder, 'out.onnx'), join(folder, 'report.json')];
  const { code, stderr } = await runCli(input, output, ...flags, '--report', file, '--quiet');
  assert.is(code, 0, stderr);
  return [JSON.parse(readFileSync(file, 'utf8')) as Report, openModel(output)];
}

/** The blocks of a window (`1-4`) become one, with the query heads of each member (`8+8+8+8`). */
export function checkWindow(input: string, window: string, heads: string): Promise<void> {
  return inWorkspace(async (folder) => {
    const [report, after] = await fuseWindow(folder, input, '--parallelize-blocks', window);
    const before = openModel(input);
    const [first, last] = window.split('-').map(Number) as [number, number];
    const members = last - first + 1;

    const algebra = report.checks.algebra;
    assert.ok(algebra?.pass, JSON.stringify(report.checks));
    assert.ok(report.checks.drift && report.checks.drift.cosine < 1, 'the function has changed');
    assert.equal(
      factsOf(report, concatAttention).map((merged) => [merged.layers.length, merged.heads.join('+')]),
      [[members, heads]],
    );
    assert.is(attentions(after), attentions(before) - members + 1);
    const [run] = factsOf(report, concatFfn);
    if (run) assert.is(run.layers.length, members);

    // One cache of each kind is left of the window's, with the heads of all.
    const caches = layersOf(before).layers[first]?.attention?.attention.kvInputs ?? [];
    assert.is(after.graph.inputs.length, before.graph.inputs.length - caches.length * (members - 1));
    assert.is(after.graph.outputs.length, before.graph.outputs.length - caches.length * (members - 1));
    assert.equal(report.kvBytesPerToken.after, report.kvBytesPerToken.before);
  });
}
