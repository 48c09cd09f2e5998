/**
 * The main job on real exporter output: every file that INDEX.md marks for issue 1 is inspected, loses the attention of a
 * stretch of layers, has the FFNs of that stretch fused into one, and the result is run with onnxruntime.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import type { Inspection } from '../../../api/index.js';
import { type Model, openModel } from '../../../ir/index.js';
import { isLinearOperator } from '../../../passes/analysis/matrices/linear.js';
import { concatFfn, factsOf, layersOf } from '../../../passes/index.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { findCorpus, indexedModels } from '../folder.js';

const real = suite('corpus: the main job');

/** The tolerances of the issue, relative to the output's norm. */
const TOLERANCE: Readonly<Record<string, number>> = { float: 1e-5, float16: 2e-3 };

function linearCount(model: Model): number {
  return [...model.graph.nodes()].filter((node) => isLinearOperator(node)).length;
}

const corpus = findCorpus();
const files = indexedModels(corpus).filter((model) => model.issue === '1');

for (const { file } of files) {
  const input = join(corpus, file);

  real(`inspects every layer of ${file}`, async () => {
    const { code, stdout } = await runCli('inspect', input, '--json');
    assert.is(code, 0);
    const { layers } = JSON.parse(stdout) as Inspection;
    assert.ok(layers.length >= 2);
    for (const [i, layer] of layers.entries()) {
      assert.is(layer.index, i);
      assert.match(layer.name, new RegExp(`layers[._]${i}$`));
      assert.ok(layer.attention.present && layer.attention.removable, `layer ${i}: ${layer.attention.reason}`);
      for (const name of layer.attention.kvInputs) assert.match(name, new RegExp(`\\b${i}\\b`));
      assert.is(layer.ffn.kind, 'SwiGLU');
      assert.ok(layer.ffn.fusable);
    }
    const kvCounts = new Set(layers.map((layer) => layer.attention.kvInputs.length));
    const hasCache = openModel(input).graph.inputs.some((value) => value.name.includes('past'));
    assert.equal([...kvCounts], [hasCache ? 2 : 0]);
  });

  real(`fuses a stretch of ${file} into one wide FFN that agrees with the parallel ones`, () =>
    inWorkspace(async (folder) => {
      const before = openModel(input);
      const { layers } = layersOf(before);
      // All but the first layer, at most four; a two-layer model gives both.
      const first = layers.length > 2 ? 1 : 0;
      const last = Math.min(layers.length - 1, first + 3);
      const [output, reportFile] = [join(folder, 'out.onnx'), join(folder, 'report.json')];
      const chosen = ['--remove-attention', `${first}-${last}`, '--keep-last', '0'];
      const { code, stderr } = await runCli(input, output, ...chosen, '--report', reportFile, '--quiet');
      assert.is(code, 0, stderr);
      const report = JSON.parse(readFileSync(reportFile, 'utf8')) as Report;

      const members = layers.slice(first, last + 1);
      const fusedWidth = members.reduce((sum, layer) => sum + (layer.ffn?.ffn.width ?? 0), 0);
      assert.equal(
        factsOf(report, concatFfn).map((run) => [run.layers.join(), run.fusedWidth]),
        [[members.map((layer) => layer.label).join(), fusedWidth]],
      );
      const algebra = report.checks.algebra;
      assert.ok(algebra?.pass, `algebra: ${JSON.stringify(report.checks)}`);
      const least = TOLERANCE[algebra.precision] ?? Number.NaN;
      // It grows with the depth of the model.
      assert.ok(algebra.tolerance >= least && algebra.tolerance < 3 * least, String(algebra.tolerance));
      assert.ok(report.checks.drift && (report.checks.drift.kl ?? 0) > 0);

      // Exactly one wide FFN: its three matrices, and the members' others gone with the removed attentions'.
      const after = openModel(output);
      const wide = layersOf(after).layers.filter((layer) => layer.ffn?.ffn.width === fusedWidth);
      assert.is(wide.length, 1);
      const removed = members
        .flatMap((layer) => [...(layer.attention?.nodes ?? [])])
        .filter((node) => isLinearOperator(node));
      assert.is(linearCount(after), linearCount(before) - removed.length - 3 * (members.length - 1));
      const caches = members.flatMap((layer) => layer.attention?.attention.kvInputs ?? []).map((value) => value.name);
      assert.not(after.graph.inputs.some((value) => caches.includes(value.name)));
      assert.is(after.graph.inputs.length, before.graph.inputs.length - caches.length);
      assert.is(after.graph.outputs.length, before.graph.outputs.length - caches.length);
    }),
  );
}

real('knows the files it is about', () => {
  assert.ok(files.length >= 22, `only ${files.length} files of issue 1 in INDEX.md`);
});

real.run();
