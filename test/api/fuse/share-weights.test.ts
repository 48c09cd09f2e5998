/** Outputs that share weights with their input: what is written, what loads them, and what happens when the input changes. */
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { fuse, open, save, verify } from '../../../api/index.js';
import { goldenText } from '../../../api/inspect/golden.js';
import { openModel, SHARES_KEY } from '../../../ir/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('shared weights');

/** tales12 with its weights in a data file. */
async function original(folder: string): Promise<string> {
  const path = join(folder, 'in.onnx');
  await save(open(TALES12), path, { external: true });
  return path;
}

/** Everything in a folder, with the time of its last change. */
function contentOf(folder: string): Map<string, string> {
  const names = readdirSync(folder).sort();
  return new Map(
    names.map((name) => {
      const path = join(folder, name);
      return [name, `${statSync(path).mtimeMs} ${readFileSync(path, 'base64')}`];
    }),
  );
}

test('only what is new is written; onnxruntime, verify and another run read the rest where it lies', () =>
  inWorkspace(async (folder) => {
    const input = await original(folder);
    const before = contentOf(folder);
    const output = join(folder, 'out.onnx');
    const report = await fuse({ input, output, removeAttention: [3, 4, 5, 6], shareWeights: true });
    // Checked by onnxruntime before it was moved to its place.
    assert.ok(report.checks.algebra?.pass, report.checks.skipped ?? 'the algebra check');
    assert.equal(
      report.shared.map(({ file, samples }) => [file, samples]),
      [['in.onnx.data', 0]],
    );
    assert.equal(readdirSync(folder).sort(), ['in.onnx', 'in.onnx.data', 'out.onnx', 'out.onnx.data']);
    for (const [name, content] of before) assert.is(contentOf(folder).get(name), content, `${name} was touched`);
    // Three FFNs are one: gate, up and down of three layers are new, and the header.
    const ffn = 3 * 3 * 128 * 352 * 2;
    assert.is(statSync(`${output}.data`).size >= ffn && statSync(`${output}.data`).size < 1.1 * ffn, true);
    assert.is(report.bytesWritten, statSync(output).size + statSync(`${output}.data`).size);
    const whole = join(folder, 'whole.onnx');
    await fuse({ input, output: whole, removeAttention: [3, 4, 5, 6], verify: false });
    assert.is((await verify(whole, output)).worst.relative, 0);
    // Of three models: the second shares with the first, the third with both.
    const third = join(folder, 'third.onnx');
    const again = await fuse({ input: output, output: third, removeAttention: [8], shareWeights: true });
    assert.equal(again.shared.map(({ file }) => file).sort(), ['in.onnx.data', 'out.onnx.data']);
    assert.not(existsSync(`${third}.data`), 'nothing is new');
  }));

test('weights inside of a model file are shared where they lie', () =>
  inWorkspace(async (folder) => {
    const input = join(folder, 'in.onnx');
    copyFileSync(TALES12, input);
    const output = join(folder, 'out.onnx');
    const report = await fuse({ input, output, removeAttention: [3], shareWeights: true });
    assert.equal(
      report.shared.map(({ file }) => file),
      ['in.onnx'],
    );
    assert.ok(report.checks.algebra?.pass);
    assert.ok(report.bytesWritten < statSync(input).size / 3, `${report.bytesWritten} bytes`);
    assert.is(readFileSync(input).equals(readFileSync(TALES12)), true);
  }));

test('the same input gives the same bytes, whatever the time of its last change', () =>
  inWorkspace(async (folder) => {
    const input = await original(folder);
    const output = join(folder, 'out.onnx');
    const request = { input, output, removeAttention: [3, 4, 5], shareWeights: true, verify: false };
    await fuse(request);
    const first = readFileSync(output);
    utimesSync(`${input}.data`, 1e9, 1e9);
    await fuse(request);
    assert.ok(readFileSync(output).equals(first));
  }));

test('pack makes a copy that needs no other file, and says nothing of sharing', () =>
  inWorkspace(async (folder) => {
    const input = await original(folder);
    const [output, packed] = [join(folder, 'out.onnx'), join(folder, 'packed.onnx')];
    await fuse({ input, output, removeAttention: [3, 4, 5], shareWeights: true, verify: false });
    const shared = openModel(output);
    assert.ok(shared.metadata.some(([key]) => key === SHARES_KEY));
    const text = goldenText(shared);
    const { code, stdout, stderr } = await runCli('pack', output, packed, '--quiet');
    assert.equal({ code, stdout, stderr }, { code: 0, stdout: '', stderr: '' });
    rmSync(input);
    rmSync(`${input}.data`);
    const { metadata } = openModel(packed);
    assert.equal(
      metadata.map(([key]) => key),
      ['onnx-fuse.version', 'onnx-fuse.pipeline'],
    );
    // The graph and the hashes of all weights: what differs are lines about sharing and about the places of data.
    const linesOf = (printed: string): string[] => printed.split('\n').filter((line) => !line.includes('shares'));
    const packedLines = new Set(linesOf(goldenText(openModel(packed))));
    const missing = linesOf(text).filter((line) => !packedLines.has(line) && /sha256|= \w+ ?[<(]/.test(line));
    assert.equal(missing, []);
  }));

test('a changed, shortened or missing original is an error, and a new run over it is refused', () =>
  inWorkspace(async (folder) => {
    const input = await original(folder);
    const data = `${input}.data`;
    const output = join(folder, 'out.onnx');
    await fuse({ input, output, removeAttention: [3, 4], shareWeights: true, verify: false });
    const bytes = readFileSync(data);
    const flipped = Buffer.from(bytes);
    flipped[1000] = (flipped[1000] as number) ^ 1;
    writeFileSync(data, flipped);
    assert.throws(() => openModel(output), /^OF_SHARED_CHANGED .*in\.onnx\.data.*found sha256/);
    const next = await runCli(output, join(folder, 'next.onnx'), '--no-verify');
    assert.is(next.code, 1);
    assert.match(next.stderr, /^onnx-fuse: OF_SHARED_CHANGED .*; put the file back/);
    assert.not(existsSync(join(folder, 'next.onnx')));
    writeFileSync(data, bytes);
    assert.is(openModel(output).graph.nodeCount > 0, true, 'what was put back is right again');
    appendFileSync(data, 'x');
    assert.throws(() => openModel(output), /^OF_SHARED_CHANGED .*found \d+ bytes, expected \d+ bytes/);
    renameSync(data, join(folder, 'elsewhere'));
    assert.throws(() => openModel(output), /^OF_EXTERNAL_MISSING/);
  }));

test('large files are known by samples of them', () =>
  inWorkspace(async (folder) => {
    const input = await original(folder);
    // Behind the weights nothing is read, but the file is larger than what is hashed whole.
    appendFileSync(`${input}.data`, Buffer.alloc(20 * 1024 * 1024, 7));
    const output = join(folder, 'out.onnx');
    const { shared } = await fuse({ input, output, removeAttention: [3], shareWeights: true, verify: false });
    assert.is(shared[0]?.samples, 256);
    const bytes = readFileSync(`${input}.data`);
    bytes[bytes.length - 1] = 8;
    writeFileSync(`${input}.data`, bytes);
    assert.throws(() => openModel(output), /^OF_SHARED_CHANGED/);
  }));

test('what cannot be shared is refused before anything is written', () =>
  inWorkspace(async (folder) => {
    const input = await original(folder);
    const refused: [string[], RegExp][] = [
      [[join(folder, 'other', 'out.onnx')], /OF_USAGE .*can be shared only with a file beside it/],
      [[join(folder, 'out.onnx'), '--no-external'], /OF_USAGE --share-weights: .*keep one/],
      [[`${input}`], /OF_OUTPUT_IS_INPUT/],
    ];
    const before = contentOf(folder);
    for (const [argv, line] of refused) {
      mkdirSync(join(folder, 'other'));
      const { code, stderr } = await runCli(input, ...argv, '--remove-attention', '3', '--share-weights', '--quiet');
      assert.is(code, 2, stderr);
      assert.match(stderr, line);
      assert.equal(readdirSync(join(folder, 'other')), []);
      rmSync(join(folder, 'other'), { recursive: true });
      assert.equal(contentOf(folder), before);
    }
  }));

test('metadata of strangers open no file and break nothing', () =>
  inWorkspace(async (folder) => {
    const input = await original(folder);
    const output = join(folder, 'out.onnx');
    await fuse({ input, output, removeAttention: [3], shareWeights: true, verify: false });
    const bytes = readFileSync(output, 'latin1');
    const at = bytes.indexOf('[{"file":"in.onnx.data"', bytes.indexOf(SHARES_KEY));
    assert.ok(at > 0);
    const { nodeCount } = openModel(output).graph;
    // Of the same length, so that the message around it stays one.
    for (const text of [
      '{{"file":"in.onnx.data"',
      '[[[[[[[[[[[[[[[[[[[[[[[',
      '[{"file":"/etc/passwd0"',
      '[null,1,{"":""},{"":1,"',
    ]) {
      assert.is(text.length, '[{"file":"in.onnx.data"'.length);
      const changed = bytes.slice(0, at) + text + bytes.slice(at + text.length);
      writeFileSync(output, changed, 'latin1');
      assert.is(openModel(output).graph.nodeCount, nodeCount, text);
      assert.is(
        openModel(output)
          .metadata.find(([key]) => key === SHARES_KEY)?.[1]
          .startsWith(text),
        true,
      );
    }
  }));

test('a second model lies in the folder of the first, with a config of its own', () =>
  inWorkspace(async (parent) => {
    const folder = join(parent, 'in');
    mkdirSync(folder);
    await original(folder);
    const decoder = { filename: 'in.onnx', num_hidden_layers: 12, session_options: { provider_options: [] } };
    writeFileSync(join(folder, 'genai_config.json'), JSON.stringify({ model: { type: 'llama', decoder } }));
    const before = contentOf(folder);
    const words = ['--share-weights', '--remove-attention', '3,4', '--no-verify'];
    const { code, stdout, stderr } = await runCli(folder, join(folder, 'small.onnx'), ...words);
    assert.is(code, 0, stderr);
    assert.match(stdout, /shares the weights of in\.onnx\.data \(.*\): where that is moved, changed or removed/);
    assert.match(stdout, /onnx-fuse pack small\.onnx whole\.onnx/);
    assert.match(stdout, /config\.overlay/);
    const config = JSON.parse(readFileSync(join(folder, 'small.genai_config.json'), 'utf8'));
    assert.is(config.model.decoder.filename, 'small.onnx');
    for (const [name, content] of before) assert.is(contentOf(folder).get(name), content, `${name} was touched`);
    const away = await runCli(folder, join(parent, 'out'), ...words);
    assert.is(away.code, 2);
    assert.match(away.stderr, /OF_USAGE .*only with a file beside the model/);
  }));

test.run();
