/** Config files and presets: what they say, what wins, and what is refused. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import { mergeFlags } from '../../../api/settings/flag-values.js';
import { type Flag, FUSE_FLAGS } from '../../../api/settings/flags.js';
import { nearest } from '../../../passes/framework/nearest.js';
import { BIN, TALES12 } from '../../helpers/paths.js';
import { planFor } from '../../helpers/plan-example.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('config');

/** Writes a config file and runs a dry fusion with it. */
async function fuseWith(
  folder: string,
  config: unknown,
  ...argv: string[]
): Promise<{ code: number; stderr: string; report: Report }> {
  const file = join(folder, typeof config === 'string' ? 'onnx-fuse.config.mjs' : 'onnx-fuse.config.json');
  writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config));
  const reportFile = join(folder, 'report.json');
  writeFileSync(reportFile, '{}');
  const common = [TALES12, join(folder, 'out.onnx'), '--dry-run', '--quiet', '--report', reportFile, '--config', file];
  const { code, stderr } = await runCli(...common, ...argv);
  return { code, stderr, report: JSON.parse(readFileSync(reportFile, 'utf8')) as Report };
}

/** The error of a fusion that a config file makes impossible: one line. */
async function refused(config: unknown, ...argv: string[]): Promise<string> {
  return inWorkspace(async (folder) => {
    const { code, stderr } = await fuseWith(folder, config, ...argv);
    assert.is(code, 2, stderr);
    assert.is(stderr.trimEnd().split('\n').length, 1, stderr);
    return stderr;
  });
}

test('its keys are the flags', () =>
  inWorkspace(async (folder) => {
    const { code, stderr, report } = await fuseWith(folder, {
      'remove-attention': '3-6',
      'keep-last': 0,
      norm: 'last',
      external: true,
      verify: false,
    });
    assert.is(code, 0, stderr);
    assert.is(
      report.pipeline,
      'inline-functions,remove-attention{layers=3-6},parallelize-ffn{keep-last=0 norm=last},concat-ffn,drop-dead',
    );
    assert.is(report.options['external'], true);
    assert.is(report.options['verify'], false);
  }));

test('flags of the command line win over the preset, and that over the file', () =>
  inWorkspace(async (folder) => {
    const config = {
      'remove-attention': '3-6',
      'keep-last': 1,
      'max-width': 704,
      presets: { wide: { 'keep-last': 0, 'max-width': 2000 } },
    };
    const file = await fuseWith(folder, config);
    assert.match(file.report.pipeline, /parallelize-ffn\{keep-last=1 max-width=704\}/);
    const preset = await fuseWith(folder, config, '--preset', 'wide');
    assert.match(preset.report.pipeline, /parallelize-ffn\{keep-last=0 max-width=2000\}/);
    const flags = await fuseWith(folder, config, '--preset', 'wide', '--keep-last', '2');
    assert.match(flags.report.pipeline, /parallelize-ffn\{keep-last=2 max-width=2000\}/);
    const negated = await fuseWith(folder, { ...config, force: true }, '--no-force');
    assert.is(negated.report.options['force'], false);
  }));

test('lists and pipelines may be written as arrays', () =>
  inWorkspace(async (folder) => {
    const config = { 'remove-attention': [3, '4-5', 6], runs: [[4, 3], '5+6'] };
    const runs = await fuseWith(folder, config);
    assert.match(runs.report.pipeline, /layers=3-6\},parallelize-ffn\{runs=3-4,5-6\}/, runs.stderr);
    const none = await fuseWith(folder, config, '--runs', 'none', '--remove-attention', 'none');
    assert.is(none.report.pipeline, '');
    const layers = await fuseWith(folder, { 'remove-attention': [3, '5-6'] });
    assert.match(layers.report.pipeline, /layers=3,5-6\}/);
    const one = await fuseWith(folder, { 'remove-attention': 4 });
    assert.match(one.report.pipeline, /layers=4\}/);
    const pipeline = await fuseWith(folder, { pipeline: ['remove-attention{layers=2}', 'drop-dead'] });
    assert.is(pipeline.report.pipeline, 'remove-attention{layers=2},drop-dead');
  }));

test('an .mjs file exports config, or a default', async () => {
  await inWorkspace(async (folder) => {
    const named = await fuseWith(folder, `export const config = { 'remove-attention': [4, 5].join() };`);
    assert.match(named.report.pipeline, /layers=4-5\}/, named.stderr);
  });
  await inWorkspace(async (folder) => {
    const other = await fuseWith(folder, `const config = { 'keep-last': 3 };\nexport { config as default };`);
    assert.is(other.report.options['keepLast'], 3, other.stderr);
  });
});

test('a pipeline and the flags that make one up replace each other', () =>
  inWorkspace(async (folder) => {
    const shaped = await fuseWith(folder, { 'keep-last': 2 }, '--pipeline', 'drop-dead');
    assert.is(shaped.report.pipeline, 'drop-dead');
    const piped = await fuseWith(folder, { pipeline: 'drop-dead' }, '--keep-last', '2');
    assert.equal([piped.report.options['keepLast'], piped.report.options['pipeline']], [2, undefined]);
    assert.equal(mergeFlags({ 'keep-last': 2, force: true }, { pipeline: '' }), { force: true, pipeline: '' });
  }));

test('a plan and the flags that say what a plan says replace each other', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'plan.json');
    writeFileSync(path, JSON.stringify(planFor(TALES12, { removeAttention: [3, 4, 5], runs: [[3, 4]] })));
    const planned = await fuseWith(folder, { plan: path });
    assert.match(planned.report.pipeline, /layers=3-5\},parallelize-ffn\{runs=3-4\}/, planned.stderr);
    const given = await fuseWith(folder, { plan: path }, '--remove-attention', '2,3');
    assert.is(
      given.report.pipeline,
      'inline-functions,remove-attention{layers=2-3},parallelize-ffn,concat-ffn,drop-dead',
    );
    // A preset over the file beside it is the same, and so is a plan of the command line over layers of the file.
    const preset = await fuseWith(
      folder,
      { plan: path, presets: { few: { 'remove-attention': 2 } } },
      '--preset',
      'few',
    );
    assert.match(preset.report.pipeline, /^inline-functions,remove-attention\{layers=2\},parallelize-ffn,/);
    const over = await fuseWith(folder, { 'remove-attention': [2], 'keep-last': 0, force: true }, '--plan', path);
    assert.is(over.report.pipeline, planned.report.pipeline);
    assert.is(over.report.options['force'], true);
    assert.match(await refused({ plan: path, runs: '3-4' }), /OF_CONFIG .*'runs' has no effect beside 'plan'/);
  }));

test('both in one place are refused', async () => {
  assert.match(
    await refused({ pipeline: 'drop-dead', 'keep-last': 2 }),
    /OF_CONFIG .*'keep-last' has no effect beside/,
  );
  const { code, stderr } = await runCli(TALES12, 'out.onnx', '--pipeline', 'drop-dead', '--lead');
  assert.is(code, 2);
  assert.match(stderr, /OF_USAGE --lead: it has no effect beside --pipeline/);
});

test('an unknown key is refused with the nearest known one', async () => {
  assert.match(await refused({ keepLast: 1 }), /OF_CONFIG .*there is no key 'keepLast'; did you mean 'keep-last'\?/);
  assert.match(await refused({ removeatention: '3' }), /did you mean 'remove-attention'\?/);
  assert.match(await refused({ plugin: [] }), /did you mean 'plugins'\?/);
  assert.match(
    await refused({ presets: { a: { vreify: true } } }),
    /preset a: there is no key 'vreify'; did you mean 'verify'/,
  );
  assert.match(await refused({ presets: { a: { plugins: [] } } }), /there is no key 'plugins'/);
  assert.match(await refused({ somethingElseEntirely: 1 }), /choose of .*remove-attention, /);
  assert.match(await refused({ constructor: 1 }), /there is no key 'constructor'/);
});

test('a value of the wrong kind is refused', async () => {
  assert.match(await refused({ 'keep-last': '1' }), /keep-last: expected a number, found "1"/);
  assert.match(await refused({ verify: 'no' }), /verify: expected a boolean, found "no"/);
  assert.match(await refused({ pipeline: { a: 1 } }), /pipeline: expected a string, found \{"a":1\}/);
  assert.match(await refused({ runs: [3, 4] }), /runs: expected a list of layer numbers, found 3/);
  assert.match(await refused({ runs: '3-' }), /runs: expected layer numbers like .*, found '3-'/);
  assert.match(
    await refused({ 'remove-attention': [3, null] }),
    /remove-attention: expected layer numbers, found null/,
  );
  assert.match(await refused({ 'remove-attention': true }), /remove-attention: expected layer numbers, found true/);
  assert.match(await refused({ norm: 'first' }), /norm: expected one of fold, last, found 'first'/);
  assert.match(await refused({ plugins: './a.mjs' }), /plugins: expected a list of paths/);
  assert.match(await refused([1]), /expected an object, found \[1\]/);
  assert.match(await refused({ presets: { a: 3 } }), /preset a: expected an object, found 3/);
});

test('a preset that is not there is refused', async () => {
  assert.match(
    await refused({ presets: { small: {} } }, '--preset', 'smal'),
    /no preset 'smal'; did you mean 'small'\?/,
  );
  assert.match(await refused({}, '--preset', 'small'), /no preset 'small'; there are none/);
  assert.match(await refused({ presets: {} }, '--preset', 'constructor'), /no preset 'constructor'/);
  const { code, stderr } = await runCli(TALES12, 'out.onnx', '--preset', 'small');
  assert.is(code, 2);
  assert.match(stderr, /OF_USAGE --preset: .*name one with --config/);
});

test('a file that cannot be read is refused in one line', async () => {
  assert.match(await refused(`export const confg = {};`), /exports no config; write export const config/);
  assert.match(await refused(`export const config = {`), /OF_CONFIG .*cannot be loaded: /);
  assert.match(await refused(`throw new Error('not today');`), /cannot be loaded: not today/);
  await inWorkspace(async (folder) => {
    const missing = await runCli(TALES12, 'out.onnx', '--config', join(folder, 'none.json'));
    assert.match(missing.stderr, /OF_NO_SUCH_FILE/);
    writeFileSync(join(folder, 'bad.json'), '{ "a": ');
    assert.match(
      (await runCli(TALES12, 'out.onnx', '--config', join(folder, 'bad.json'))).stderr,
      /OF_CONFIG .*no JSON/,
    );
    writeFileSync(join(folder, 'config.yaml'), 'a: 1');
    const yaml = await runCli(TALES12, 'out.onnx', '--config', join(folder, 'config.yaml'));
    assert.match(yaml.stderr, /OF_CONFIG .*write it as \.json, or as \.mjs/);
  });
});

test('a config file that nobody named is not read', () =>
  inWorkspace((folder) => {
    for (const name of ['onnx-fuse.config.json', 'onnx-fuse.config.mjs']) {
      writeFileSync(join(folder, name), 'this would be an error');
    }
    const { status, stderr } = spawnSync(process.execPath, [BIN, TALES12, 'out.onnx', '--dry-run', '--quiet'], {
      cwd: folder,
      encoding: 'utf8',
    });
    assert.equal({ status, stderr }, { status: 0, stderr: '' });
  }));

test('of a flag that is given twice, the last one counts', async () => {
  await inWorkspace(async (folder) => {
    const { report } = await fuseWith(folder, {}, '--keep-last', '4', '--keep-last', '2');
    assert.is(report.options['keepLast'], 2);
  });
});

test('every flag has help, and a default of its own type', () => {
  for (const [name, { type, describe, fallback }] of Object.entries<Flag>(FUSE_FLAGS)) {
    assert.match(name, /^[a-z]+(-[a-z]+)*$/);
    assert.ok(describe.length > 0, name);
    if (fallback !== undefined) assert.is(typeof fallback, type, name);
  }
});

test('nearest finds typing errors and other spellings, and nothing far off', () => {
  const known = ['keep-last', 'max-width', 'norm'];
  assert.is(nearest('keep_last', known), 'keep-last');
  assert.is(nearest('maxwdth', known), 'max-width');
  assert.is(nearest('nrom', known), 'norm');
  assert.is(nearest('keep', known), 'keep-last', 'a beginning is a hint');
  assert.is(nearest('temperature', known), null);
  assert.is(nearest('in', ['env']), null, 'short words are near to everything');
  assert.is(nearest('x', []), null);
});

test.run();
