/** `onnx-fuse golden`: regression tests for models of users. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { goldenDiff, goldenText } from '../../api/index.js';
import { openModel, openModelBytes, parseModel, readWeight, saveModel } from '../../ir/index.js';
import { parsePipeline, registry, runPipeline } from '../../passes/index.js';
import { TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const test = suite('golden command');

test('it records with --accept, and compares without', () =>
  inWorkspace(async (folder) => {
    const file = join(folder, 'tales.golden');
    const missing = await runCli('golden', TALES12, file);
    assert.is(missing.code, 1);
    assert.match(missing.stderr, /OF_GOLDEN .*no such file to compare with; .*onnx-fuse golden \S+ \S+ --accept\n$/);
    assert.not(existsSync(file), 'nothing is recorded unless asked for');
    assert.is((await runCli('golden', TALES12, file, '--accept')).code, 0);
    const same = await runCli('golden', TALES12, file);
    assert.equal(same, { code: 0, stdout: `${TALES12} is as recorded in ${file}\n`, stderr: '' });
  }));

test('a change is shown as a unified diff, with the command that accepts it', () =>
  inWorkspace(async (folder) => {
    const [file, fused] = [join(folder, 'it is.golden'), join(folder, 'fused.onnx')];
    await runCli('golden', TALES12, file, '--accept');
    await runCli(TALES12, fused, '--pipeline', 'remove-attention{layers=11}', '--no-verify', '--quiet');
    const { code, stdout, stderr } = await runCli('golden', fused, file);
    assert.is(code, 1);
    assert.match(stdout, /^--- expected\n\+\+\+ found\n@@ /);
    assert.match(stdout, /^-.*past_key_values\.11\.key/m);
    assert.is(stderr.trimEnd().split('\n').length, 1);
    const command = `onnx-fuse golden ${fused} '${file}' --accept`;
    assert.ok(stderr.trimEnd().endsWith(command), stderr);
    assert.is((await runCli('golden', fused, file, '--accept')).code, 0);
    assert.is((await runCli('golden', fused, file)).code, 0);
  }));

test('another version that writes the same model is no difference', () =>
  inWorkspace(async (folder) => {
    const [file, fused] = [join(folder, 'tales.golden'), join(folder, 'fused.onnx')];
    await runCli(TALES12, fused, '--pipeline', 'remove-attention{layers=11}', '--no-verify', '--quiet');
    await runCli('golden', fused, file, '--accept');
    const model = openModel(fused);
    model.metadata = model.metadata.map(([key, value]) => [key, key === 'onnx-fuse.version' ? '0.0.1' : value]);
    await saveModel(model, join(folder, 'older.onnx'));
    assert.is((await runCli('golden', join(folder, 'older.onnx'), file)).code, 0);
    model.metadata = model.metadata.map(([key, value]) => [key, key === 'onnx-fuse.pipeline' ? 'other' : value]);
    await saveModel(model, join(folder, 'other.onnx'));
    assert.is((await runCli('golden', join(folder, 'other.onnx'), file)).code, 1);
  }));

test('one changed bit of one weight is one changed line', () =>
  inWorkspace((folder) => {
    const bytes = new Uint8Array(readFileSync(TALES12));
    const model = openModel(TALES12);
    const weight = model.graph.value('m.model.layers.5.mlp.up_proj.weight')?.initializer?.weight ?? largest(TALES12);
    assert.ok(weight?.op === 'source');
    const at = weight.offset + 1000;
    bytes[at] = (bytes[at] as number) ^ 1;
    writeFileSync(join(folder, 'bit.onnx'), bytes);
    const [before, after] = [goldenText(model), goldenText(openModel(join(folder, 'bit.onnx')))];
    const lines = (goldenDiff(before, after) ?? '').split('\n').filter((line) => /^[-+] /.test(line));
    assert.is(lines.length, 2);
    for (const line of lines) assert.match(line, /^[-+] +float16\[\d+,\d+\] .* = \["sha256": "[0-9a-f]{64}"\],?$/);
  }));

function largest(path: string) {
  const weights = openModel(path).graph.initializers.map((value) => value.initializer?.weight ?? null);
  return weights.sort((a, b) => (b?.byteLength ?? 0) - (a?.byteLength ?? 0))[0];
}

test('the hash is the SHA-256 of the elements', () => {
  const model = openModel(TALES12);
  const text = goldenText(model);
  for (const { initializer, name } of model.graph.initializers.slice(0, 5)) {
    assert.ok(initializer?.weight);
    const hash = createHash('sha256').update(readWeight(initializer.weight)).digest('hex');
    const line = text.split('\n').find((each) => each.includes(`${name}`) && each.includes('sha256'));
    assert.ok(line?.includes(`["sha256": "${hash}"]`), `${name}: ${line}`);
  }
});

test('the text depends neither on the path nor on where the weights lie', () =>
  inWorkspace(async (folder) => {
    const expected = goldenText(openModel(TALES12));
    mkdirSync(join(folder, 'deeper'));
    const [outside, inside] = [join(folder, 'deeper', 'out.onnx'), join(folder, 'back.onnx')];
    await saveModel(openModel(TALES12), outside, { external: true });
    assert.ok(existsSync(`${outside}.data`));
    assert.is(goldenText(openModel(outside)), expected);
    await saveModel(openModel(outside), inside, { external: false });
    assert.is(goldenText(openModel(inside)), expected);
    assert.is(goldenText(openModelBytes(new Uint8Array(readFileSync(TALES12)), folder)), expected);
  }));

test('a model in memory has the text of the file it becomes', () =>
  inWorkspace(async (folder) => {
    const model = openModel(TALES12);
    const pipeline = 'remove-attention{layers=3-6},parallelize-ffn,concat-ffn,drop-dead';
    runPipeline(model, parsePipeline(pipeline, registry));
    const text = goldenText(model);
    await saveModel(model, join(folder, 'fused.onnx'), { external: true });
    assert.is(goldenText(openModel(join(folder, 'fused.onnx'))), text);
  }));

const TYPED = (data: string, doc: string) => `<
  ir_version: 10,
  opset_import: ["" : 21]
>
${doc}main (float[2] x) => (float[2] y) <
  float[2] small = {1.5, 2.0},
${data}  float[20] large = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0}
> {
  a = Constant <value: tensor = float[20] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0}> ()
  y = Add (x, small)
}
`;

test('small tensors are shown, large ones hashed, constants of nodes too; how they are stored does not matter', () => {
  const raw = goldenText(parseModel(TYPED('', '')));
  assert.match(raw, /float\[2\] small = \{1\.5, 2\}/);
  const hashes = [...raw.matchAll(/"sha256": "([0-9a-f]{64})"/g)].map((match) => match[1]);
  assert.is(hashes.length, 2);
  assert.is(hashes[0], hashes[1], 'the initializer and the constant hold the same');
  assert.is(goldenText(parseModel(TYPED('  #@ storage typed\n', ''))), raw);
  assert.is(goldenText(parseModel(TYPED('', '#@ doc "exported on Monday"\n'))), raw, 'documentation computes nothing');
  assert.is.not(goldenText(parseModel(TYPED('', '').replace('20.0}>', '21.0}>'))), raw);
  assert.is.not(goldenText(parseModel(TYPED('', '').replace('1.5', '1.25'))), raw);
});

test('line ends that git has changed do not matter', () =>
  inWorkspace(async (folder) => {
    const file = join(folder, 'crlf.golden');
    writeFileSync(file, goldenText(openModel(TALES12)).replaceAll('\n', '\r\n'));
    assert.is((await runCli('golden', TALES12, file)).code, 0);
  }));

test('a long diff is cut, and says so', () => {
  const lines = (word: string) => Array.from({ length: 600 }, (_, i) => `${word} ${i}\n`).join('');
  const diff = goldenDiff(lines('old'), lines('new'))?.split('\n') ?? [];
  assert.is(diff.length, 501);
  assert.match(diff.at(-1) ?? '', /^\.\.\. and \d+ more lines$/);
  assert.is(goldenDiff('same\n', 'same\n'), null);
});

test('what cannot be read or written is refused in one line', () =>
  inWorkspace(async (folder) => {
    const folderAsFile = await runCli('golden', TALES12, folder);
    assert.is(folderAsFile.code, 1);
    assert.match(folderAsFile.stderr, /OF_READ/);
    const nowhere = await runCli('golden', TALES12, join(folder, 'no', 'such', 'file'), '--accept');
    assert.is(nowhere.code, 2);
    assert.match(nowhere.stderr, /OF_USAGE .*the output folder does not exist/);
    const noModel = await runCli('golden', join(folder, 'none.onnx'), join(folder, 'x.golden'), '--accept');
    assert.is(noModel.code, 2);
    assert.match(noModel.stderr, /OF_NO_SUCH_FILE/);
    assert.equal(readdirSync(folder), []);
  }));

test.run();
