/** The command on our own trained model: what it writes, prints and reports. */
import { copyFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import type { Inspection } from '../../../api/index.js';
import { openModel } from '../../../ir/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const fusing = suite('fuse');
const sha256 = /^[0-9a-f]{64}$/;

async function fuseReport(folder: string, ...argv: string[]): Promise<{ report: Report; stdout: string }> {
  const reportFile = join(folder, 'report.json');
  const { code, stdout, stderr } = await runCli(TALES12, join(folder, 'out.onnx'), '--report', reportFile, ...argv);
  assert.is(code, 0, stderr);
  return { report: JSON.parse(readFileSync(reportFile, 'utf8')) as Report, stdout };
}

fusing('removes, fuses, checks and reports', () =>
  inWorkspace(async (folder) => {
    const { report, stdout } = await fuseReport(folder, '--remove-attention', '3-6');
    assert.equal(report.runs, [{ layers: ['3', '4', '5'], widths: [352, 352, 352], fusedWidth: 1056 }]);
    assert.equal(
      report.removedAttention.map(({ layer }) => layer),
      [3, 4, 5, 6],
    );
    assert.equal(report.removedAttention[0]?.kvInputs, ['past_key_values.3.key', 'past_key_values.3.value']);
    assert.equal(report.removedAttention[0]?.kvOutputs, ['present.3.key', 'present.3.value']);
    const { algebra, drift } = report.checks;
    assert.ok(algebra?.pass && algebra.maxRelative <= 2e-3 && algebra.tolerance === 2e-3);
    assert.ok(drift && drift.kl > 0 && drift.top1 < 1);
    assert.is(report.left.length, 9, 'every layer that is in no run has a reason');
    assert.match(report.left.find(({ layer }) => layer === '6')?.reason ?? '', /last of the run/);
    assert.match(report.input[0]?.sha256 ?? '', sha256);
    assert.match(report.output[0]?.sha256 ?? '', sha256);
    assert.is(report.output[0]?.bytes, readFileSync(join(folder, 'out.onnx')).length);
    assert.is(report.output[0]?.path, join(folder, 'out.onnx'));
    // Four of twelve attentions: a third of the cache.
    assert.is((report.kvBytesPerToken.before ?? 0) * 8, (report.kvBytesPerToken.after ?? 0) * 12);
    // hidden 128: q and o are 128 x 128, k and v 128 x 64, one norm of 128; gammas of two members became one of ones.
    assert.is(report.parameters.before - report.parameters.after, 4 * (2 * 128 * 128 + 2 * 128 * 64 + 128) + 2 * 128);
    assert.match(stdout, /3-5 +3 +3 x 352 +1056/);
    assert.match(stdout, /algebra +.*pass/);
    assert.equal(readdirSync(folder).sort(), ['out.onnx', 'report.json'], 'no temporary file is left');
  }),
);

fusing('writes the same bytes for the same input and options', () =>
  inWorkspace(async (folder) => {
    const [a, b] = [join(folder, 'a.onnx'), join(folder, 'b.onnx')];
    for (const output of [a, b]) {
      assert.is((await runCli(TALES12, output, '--remove-attention', '2-7', '--no-verify', '--quiet')).code, 0);
    }
    assert.ok(readFileSync(a).equals(readFileSync(b)));
  }),
);

fusing('copies a model in which nothing fuses, byte for byte, and says why', () =>
  inWorkspace(async (folder) => {
    const { report, stdout } = await fuseReport(folder);
    assert.ok(readFileSync(join(folder, 'out.onnx')).equals(readFileSync(TALES12)));
    assert.is(report.pipeline, '');
    assert.is(report.left.length, 12);
    assert.match(stdout, /nothing was fused/);
    assert.match(stdout, /--remove-attention/);
    const strict = await runCli(TALES12, join(folder, 'strict.onnx'), '--require-fusion', '--quiet');
    assert.is(strict.code, 1);
    assert.match(strict.stderr, /OF_NOTHING_FUSED/);
    assert.not(existsSync(join(folder, 'strict.onnx')));
  }),
);

fusing('writes nothing on a dry run', () =>
  inWorkspace(async (folder) => {
    const { code, stdout } = await runCli(TALES12, join(folder, 'out.onnx'), '--remove-attention', '3-6', '--dry-run');
    assert.is(code, 0);
    assert.match(stdout, /1056/);
    assert.equal(readdirSync(folder), []);
  }),
);

fusing('the empty pipeline copies, into a data file when asked, and back', () =>
  inWorkspace(async (folder) => {
    const [out, back] = [join(folder, 'ext.onnx'), join(folder, 'back.onnx')];
    assert.is((await runCli(TALES12, out, '--pipeline', '', '--external', '--quiet')).code, 0);
    assert.ok(existsSync(`${out}.data`));
    assert.is((await runCli(out, back, '--pipeline', '', '--no-external', '--quiet')).code, 0);
    assert.not(existsSync(`${back}.data`));
    assert.is((await runCli('verify', TALES12, back, '--tolerance', '0', '--quiet')).code, 0);
  }),
);

fusing('explicit runs are fused exactly as given, and split by --max-width', () =>
  inWorkspace(async (folder) => {
    const exact = await fuseReport(folder, '--remove-attention', '2-9', '--runs', '2-4,6-9', '--no-verify');
    assert.equal(
      exact.report.runs.map((run) => run.layers.join()),
      ['2,3,4', '6,7,8,9'],
    );
    const capped = await fuseReport(folder, '--remove-attention', '2-9', '--max-width', '1100', '--no-verify');
    assert.equal(
      capped.report.runs.map((run) => run.fusedWidth),
      [1056, 1056],
    );
    const led = await fuseReport(folder, '--remove-attention', '3-6', '--lead', '--keep-last', '0', '--no-verify');
    assert.equal(
      led.report.runs.map((run) => run.layers.join()),
      ['2,3,4,5,6'],
    );
  }),
);

fusing('--norm last computes something else than folding, and both pass the algebra check', () =>
  inWorkspace(async (folder) => {
    const fold = await fuseReport(folder, '--remove-attention', '3-6');
    copyFileSync(join(folder, 'out.onnx'), join(folder, 'fold.onnx'));
    const last = await fuseReport(folder, '--remove-attention', '3-6', '--norm', 'last');
    assert.ok(fold.report.checks.algebra?.pass && last.report.checks.algebra?.pass);
    const judged = await runCli(
      'verify',
      join(folder, 'fold.onnx'),
      join(folder, 'out.onnx'),
      '--tolerance',
      '1e-2',
      '--quiet',
    );
    assert.is(judged.code, 1, 'the two norms differ by more than rounding');
  }),
);

fusing('numbers layers as in the original when a fused model is inspected', () =>
  inWorkspace(async (folder) => {
    await fuseReport(folder, '--remove-attention', '3-6', '--no-verify');
    const { stdout } = await runCli('inspect', join(folder, 'out.onnx'), '--json');
    const { layers } = JSON.parse(stdout) as Inspection;
    assert.equal(
      layers.map((layer) => layer.index),
      [0, 1, 2, 3, 6, 7, 8, 9, 10, 11],
    );
    assert.is(layers[3]?.ffn.width, 1056);
    assert.match(layers[3]?.name ?? '', /3-5$/);
  }),
);

fusing('lets the model speak before and after', () =>
  inWorkspace(async (folder) => {
    const { stdout } = await runCli(
      TALES12,
      join(folder, 'out.onnx'),
      '--remove-attention',
      '4-5',
      '--prompt',
      'Once upon a time',
      '--tokens',
      '20',
    );
    assert.match(stdout, /before: Once upon a time.{20}/s);
    assert.match(stdout, /after: {2}Once upon a time.{20}/s);
  }),
);

fusing('keeps what it was given: names, metadata, versions', () =>
  inWorkspace(async (folder) => {
    await fuseReport(folder, '--remove-attention', '3-6', '--no-verify');
    const [before, after] = [openModel(TALES12), openModel(join(folder, 'out.onnx'))];
    assert.is(after.irVersion, before.irVersion);
    assert.equal(
      after.opsets.map(({ domain, version }) => [domain, version]),
      before.opsets.map(({ domain, version }) => [domain, version]),
    );
    assert.is(after.producerName, before.producerName);
    assert.equal(after.metadata, before.metadata);
    const kept = new Map([...before.graph.nodes()].map((node) => [node.name, node]));
    for (const node of after.graph.nodes()) assert.equal(node.metadata, kept.get(node.name)?.metadata ?? [], node.name);
  }),
);

fusing.run();
