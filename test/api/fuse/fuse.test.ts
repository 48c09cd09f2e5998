/** The command on our own trained model: what it writes, prints and reports. */
import { copyFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { packageVersion } from '../../../api/basics/package-version.js';
import type { Report } from '../../../api/fuse/report.js';
import { transform } from '../../../api/fuse/transform.js';
import type { Inspection } from '../../../api/index.js';
import { fuse } from '../../../api/index.js';
import { openModel, saveModel, type Value } from '../../../ir/index.js';
import { valueAt } from '../../../passes/analysis/layers/residual-stream.js';
import {
  concatFfn,
  factsOf,
  layersOf,
  parallelizeFfn,
  parsePipeline,
  registry,
  removeAttention,
  runPipeline,
} from '../../../passes/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { writeSmallDecoder } from '../../helpers/small-decoder.js';
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
    assert.equal(factsOf(report, concatFfn), [{ layers: ['3', '4', '5'], widths: [352, 352, 352], fusedWidth: 1056 }]);
    const removed = factsOf(report, removeAttention);
    assert.equal(
      removed.map(({ layer }) => layer),
      [3, 4, 5, 6],
    );
    assert.equal(removed[0]?.kvInputs, ['past_key_values.3.key', 'past_key_values.3.value']);
    assert.equal(removed[0]?.kvOutputs, ['present.3.key', 'present.3.value']);
    const { algebra, drift } = report.checks;
    assert.ok(algebra?.pass && algebra.maxRelative <= 2e-3 && algebra.tolerance === 4.4e-3);
    assert.ok(drift && (drift.kl ?? 0) > 0 && (drift.top1 ?? 1) < 1);
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
    assert.match(stdout, /^the FFNs of layers 3-5 became one: 3 x 352 -> 1056$/m);
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
      factsOf(exact.report, concatFfn).map((run) => run.layers.join()),
      ['2,3,4', '6,7,8,9'],
    );
    const capped = await fuseReport(folder, '--remove-attention', '2-9', '--max-width', '1100', '--no-verify');
    assert.equal(
      factsOf(capped.report, concatFfn).map((run) => run.fusedWidth),
      [1056, 1056],
    );
    const led = await fuseReport(folder, '--remove-attention', '3-6', '--lead', '--keep-last', '0', '--no-verify');
    assert.equal(
      factsOf(led.report, concatFfn).map((run) => run.layers.join()),
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

fusing('keeps what it was given: names, metadata, versions; and says in the metadata what was done', () =>
  inWorkspace(async (folder) => {
    const { report } = await fuseReport(folder, '--remove-attention', '3-6', '--no-verify');
    const [before, after] = [openModel(TALES12), openModel(join(folder, 'out.onnx'))];
    assert.is(after.irVersion, before.irVersion);
    assert.equal(
      after.opsets.map(({ domain, version }) => [domain, version]),
      before.opsets.map(({ domain, version }) => [domain, version]),
    );
    assert.is(after.producerName, before.producerName);
    const stamps = [
      ['onnx-fuse.version', report.versions['onnx-fuse']],
      ['onnx-fuse.pipeline', report.pipeline],
    ];
    assert.equal(after.metadata, [...before.metadata, ...stamps]);
    const kept = new Map([...before.graph.nodes()].map((node) => [node.name, node]));
    for (const node of after.graph.nodes()) assert.equal(node.metadata, kept.get(node.name)?.metadata ?? [], node.name);
  }),
);

fusing('another run on an output replaces the version and adds its pipeline; an unchanged copy keeps every byte', () =>
  inWorkspace(async (folder) => {
    const [first, second, copy] = ['first.onnx', 'second.onnx', 'copy.onnx'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const quick = { verify: false } as const;
    await fuse({ ...quick, input: TALES12, output: first, pipeline: 'remove-attention{layers=3}' });
    const old = openModel(first);
    old.metadata = old.metadata.map(([key, value]) => [key, key === 'onnx-fuse.version' ? '0.0.1' : value]);
    old.metadata = [...old.metadata, ['author', 'somebody']];
    const aged = join(folder, 'aged.onnx');
    await saveModel(old, aged);
    await fuse({ ...quick, input: aged, output: second, pipeline: 'remove-ffn{layers=4},drop-dead' });
    assert.equal(
      openModel(second).metadata.filter(([key]) => key === 'author' || key.startsWith('onnx-fuse.')),
      [
        ['author', 'somebody'],
        ['onnx-fuse.version', await packageVersion()],
        ['onnx-fuse.pipeline', 'remove-attention{layers=3}; remove-ffn{layers=4},drop-dead'],
      ],
    );
    for (const pipeline of [undefined, '', 'drop-dead']) {
      await fuse({ ...quick, input: second, output: copy, pipeline });
      assert.ok(readFileSync(copy).equals(readFileSync(second)), `a run of '${pipeline}' changed the file`);
    }
  }),
);

fusing('where nothing merges, report and block_configs describe the copy that was written, not what was tried', () =>
  inWorkspace(async (folder) => {
    // FFNs with no attention between them, and the stream after each of them is an output of the model.
    const input = join(folder, 'in.onnx');
    const model = openModel(TALES12);
    runPipeline(model, parsePipeline('remove-attention{layers=3-6}', registry));
    for (const { index, ffn } of layersOf(model).layers) {
      if (ffn && index >= 3 && index <= 5) model.graph.addOutput(valueAt(ffn.stage.end) as Value);
    }
    await saveModel(model, input);
    const blocks = join(folder, 'blocks.json');
    const argv = ['--block-configs', blocks, '--report', join(folder, 'report.json'), '--no-verify'];
    const { code, stdout, stderr } = await runCli(input, join(folder, 'out.onnx'), ...argv);
    assert.is(code, 0, stderr);
    const report = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as Report;
    assert.ok(readFileSync(join(folder, 'out.onnx')).equals(readFileSync(input)), 'the output is no copy');
    assert.equal([report.pipeline, report.facts, report.steps, report.done], ['', {}, [], []]);
    assert.match(stdout, /^nothing was fused: the output is a copy/);
    const { onnx_fuse, block_configs } = JSON.parse(readFileSync(blocks, 'utf8'));
    assert.equal([onnx_fuse.pipeline, onnx_fuse.parallel_ffn], ['', []]);
    assert.not(block_configs.some((block: object) => 'parallel_blocks' in block));
  }),
);

fusing('a pipeline of which only auxiliary passes did something leaves neither a changed model nor facts of it', () => {
  const removed = openModel(TALES12);
  runPipeline(removed, parsePipeline('remove-attention{layers=3-6}', registry));
  const steps = parsePipeline('parallelize-ffn,drop-dead', registry);
  const nodes = removed.graph.nodeCount;
  const kept = transform(TALES12, removed, steps, false);
  assert.is(factsOf(kept.result, parallelizeFfn).length, 1);
  assert.equal([kept.model, kept.steps], [removed, steps]);
  const dropped = transform(TALES12, removed, parsePipeline('drop-dead', registry), true);
  assert.equal([dropped.steps, dropped.result.facts, dropped.result.steps], [[], {}, []]);
  assert.is(dropped.model.graph.nodeCount, openModel(TALES12).graph.nodeCount);
  assert.ok(nodes < dropped.model.graph.nodeCount, 'the model is opened anew');
});

fusing('a model without logits has no figures of next tokens', () =>
  inWorkspace(async (folder) => {
    const model = openModel(writeSmallDecoder(folder));
    const logits = model.graph.outputs.find(({ name }) => name === 'logits') as Value;
    const hidden = logits.producer?.input(0) as Value;
    model.graph.removeOutput(logits);
    model.graph.addOutput(hidden);
    const input = join(folder, 'headless.onnx');
    await saveModel(model, input);
    const report = join(folder, 'report.json');
    const argv = [input, join(folder, 'out.onnx'), '--remove-attention', '1-3', '--report', report];
    const { code, stdout, stderr } = await runCli(...argv);
    assert.is(code, 0, stderr);
    assert.match(stdout, /no logits: KL and top-1 agreement not measured, cosine 0\.\d+/);
    assert.not.match(stdout, /KL \d|100\.0 %|\d positions/);
    const { drift } = (JSON.parse(readFileSync(report, 'utf8')) as Report).checks;
    assert.equal([drift?.kl, drift?.maxKl, drift?.top1, drift?.positions], [null, null, null, 0]);
    assert.match((await runCli('verify', input, input)).stdout, /^no logits: KL and top-1 agreement not measured$/m);
  }),
);

fusing.run();
