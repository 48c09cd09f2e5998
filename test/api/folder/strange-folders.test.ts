/** Folders from strangers: names and links that lead out of them, and nothing is read or written there. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { modelFile } from '../../../api/folder/model-folder.js';
import { writeGenaiFolder } from '../../helpers/small-decoder.js';
import { skip, suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('strange folders');
const FUSE = ['--remove-attention', '1-3', '--no-verify'];

/** Changes the genai_config.json of a folder. */
function configure(
  folder: string,
  change: (model: { decoder: Record<string, unknown> } & Record<string, unknown>) => void,
): void {
  const path = join(folder, 'genai_config.json');
  const config = JSON.parse(readFileSync(path, 'utf8'));
  change(config.model);
  writeFileSync(path, JSON.stringify(config));
}

const LEADING_OUT = [
  '../../x/y.onnx',
  '..\\..\\x\\y.onnx',
  '/tmp/x.onnx',
  'C:\\x.onnx',
  'sub/../../y.onnx',
  '\\\\host\\x.onnx',
];

test('a config that names its model outside of the folder is refused, and nothing is written', () =>
  inWorkspace(async (parent) => {
    for (const name of LEADING_OUT) {
      const input = join(parent, 'in');
      writeGenaiFolder(input);
      configure(input, ({ decoder }) => {
        decoder['filename'] = name;
      });
      for (const argv of [
        [input, join(parent, 'out'), ...FUSE],
        ['inspect', input],
        ['print', input],
      ]) {
        const { code, stdout, stderr } = await runCli(...argv);
        assert.is(code, 1, `${name}: ${stderr}`);
        assert.match(
          stderr,
          /^onnx-fuse: OF_LEAVES_FOLDER .*genai_config\.json: '.*' is not used: its name leads out.*\n$/,
        );
        assert.is(stdout, '');
      }
      assert.equal(readdirSync(parent), ['in']);
      rmSync(input, { recursive: true });
    }
  }));

test('neither does a stage of a pipeline, an adapter or a vision model lie outside', () =>
  inWorkspace(async (parent) => {
    const input = join(parent, 'in');
    for (const name of LEADING_OUT) {
      for (const change of [
        { decoder: { pipeline: [{ first: { filename: 'model.onnx' }, second: { filename: name } }] } },
        { decoder: { pipeline: { only: { filename: name, inputs: ['past_key_values.0.key'] } } } },
        { vision: { filename: name } },
        { vision: { adapter_filename: name } },
      ]) {
        writeGenaiFolder(input);
        configure(input, (model) => {
          Object.assign(model, {
            ...change,
            decoder: { ...model.decoder, ...('decoder' in change ? change.decoder : {}) },
          });
        });
        const { code, stderr } = await runCli(input, join(parent, 'out'), ...FUSE);
        assert.is(code, 1, JSON.stringify(change));
        assert.match(stderr, /OF_LEAVES_FOLDER/);
        assert.equal(readdirSync(parent), ['in']);
        rmSync(input, { recursive: true });
      }
    }
  }));

test('a link that leads out of the folder is not followed, and is said to stay', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [join(parent, 'in'), join(parent, 'out')];
    writeGenaiFolder(input);
    writeFileSync(join(parent, 'secret.txt'), 'a secret');
    mkdirSync(join(parent, 'private'));
    writeFileSync(join(parent, 'private', 'key.txt'), 'a secret');
    writeFileSync(join(input, 'honest.txt'), 'not a secret');
    symlinkSync('../secret.txt', join(input, 'notes.txt'));
    symlinkSync('honest.txt', join(input, 'again.txt'));
    symlinkSync('nowhere', join(input, 'broken.txt'));
    symlinkSync('../private', join(input, 'folder.txt'));
    symlinkSync('../private', join(input, 'more'));
    configure(input, (model) => {
      model['extra'] = { tokenizer: 'more/key.txt' };
    });
    const { code, stdout, stderr } = await runCli(input, output, ...FUSE);
    assert.is(code, 0, stderr);
    assert.equal(readdirSync(output).sort(), [
      'again.txt',
      'genai_config.json',
      'honest.txt',
      'model.onnx',
      'model.onnx.data',
      'onnx-fuse.json',
    ]);
    assert.is(readFileSync(join(output, 'again.txt'), 'utf8'), 'not a secret');
    assert.match(
      stdout,
      /not copied: folder\.txt, more, more\/key\.txt, notes\.txt \(a link that leads out of the folder\)/,
    );
    assert.match(stdout, /not copied: broken\.txt \(a link to nothing\)/);
  }));

test('a model or a config that is a link out of the folder is refused', () =>
  inWorkspace(async (parent) => {
    const [input, elsewhere] = [join(parent, 'in'), join(parent, 'elsewhere')];
    for (const name of ['model.onnx', 'genai_config.json']) {
      writeGenaiFolder(input);
      mkdirSync(elsewhere);
      renameSync(join(input, name), join(elsewhere, name));
      symlinkSync(`../elsewhere/${name}`, join(input, name));
      const { code, stderr } = await runCli(input, join(parent, 'out'), ...FUSE);
      assert.is(code, 1);
      assert.match(stderr, /OF_LEAVES_FOLDER .*is not used: a link that leads out of the folder/);
      assert.equal(readdirSync(parent).sort(), ['elsewhere', 'in']);
      rmSync(input, { recursive: true });
      rmSync(elsewhere, { recursive: true });
    }
  }));

/** A snapshot in a Hugging Face cache: links to blobs, which have hashes for names. */
function writeCache(parent: string, name = 'models--a--b'): string {
  const [blobs, snapshot] = [join(parent, name, 'blobs'), join(parent, name, 'snapshots', 'c0ffee')];
  mkdirSync(blobs, { recursive: true });
  mkdirSync(join(snapshot, '..'), { recursive: true });
  writeGenaiFolder(snapshot);
  writeFileSync(join(snapshot, 'merges.txt'), 'a b');
  for (const [i, name] of readdirSync(snapshot).entries()) {
    renameSync(join(snapshot, name), join(blobs, `${i}`));
    symlinkSync(`../../blobs/${i}`, join(snapshot, name));
  }
  return snapshot;
}

test('a snapshot of a Hugging Face cache is a folder like any other, its data in the blobs are checked and fused', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [writeCache(parent), join(parent, 'out')];
    const folder = await runCli(input, output, '--remove-attention', '1-3');
    assert.is(folder.code, 0, folder.stderr);
    assert.match(folder.stdout, /algebra {2}pass/);
    assert.equal(readdirSync(output).sort(), [
      'genai_config.json',
      'merges.txt',
      'model.onnx',
      'model.onnx.data',
      'onnx-fuse.json',
    ]);
    const file = await runCli('verify', join(input, 'model.onnx'), output, '--quiet');
    assert.is(file.code, 0, file.stderr);
    // Only the cache's own blobs are meant: a link to anything else in the cache leads out.
    writeFileSync(join(parent, 'models--a--b', 'token.txt'), 'a secret');
    symlinkSync('../../token.txt', join(input, 'token.txt'));
    rmSync(output, { recursive: true });
    assert.is((await runCli(input, output, ...FUSE, '--quiet')).code, 0);
    assert.not(readdirSync(output).includes('token.txt'));
  }));

test('a copy of a cache under another name is one, too', () =>
  inWorkspace(async (parent) => {
    const input = writeCache(parent, 'copy');
    const { code, stderr } = await runCli(input, join(parent, 'out'), ...FUSE, '--quiet');
    assert.is(code, 0, stderr);
  }));

test('data that lie neither beside the model as it is named nor beside the real one are refused', () =>
  inWorkspace(async (parent) => {
    const input = writeCache(parent);
    const data = join(input, 'model.onnx.data');
    mkdirSync(join(parent, 'other'));
    writeFileSync(join(parent, 'other', 'data'), readFileSync(data));
    rmSync(data);
    symlinkSync(join(parent, 'other', 'data'), data);
    const { code, stderr } = await runCli(join(input, 'model.onnx'), join(parent, 'out.onnx'), ...FUSE);
    assert.is(code, 1);
    assert.match(stderr, /OF_EXTERNAL_ESCAPES .*'model\.onnx\.data' is outside the model's folder/);
    assert.not.match(stderr, /onnxruntime/);
  }));

test('a pipe in a folder is neither read nor copied', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [join(parent, 'in'), join(parent, 'out')];
    writeGenaiFolder(input);
    if (spawnSync('mkfifo', [join(input, 'notes.txt')]).status !== 0) skip('mkfifo makes no pipes here');
    const { code, stdout } = await runCli(input, output, ...FUSE);
    assert.is(code, 0);
    assert.match(stdout, /not copied: notes\.txt \(it is not a regular file\)/);
  }));

test('an output folder with a link in it is not ours to replace', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [join(parent, 'in'), join(parent, 'out')];
    writeGenaiFolder(input);
    assert.is((await runCli(input, output, ...FUSE, '--quiet')).code, 0);
    symlinkSync(input, join(output, 'link'));
    const { code, stderr } = await runCli(input, output, ...FUSE, '--quiet');
    assert.is(code, 2);
    assert.match(stderr, /holds link, which onnx-fuse did not write/);
  }));

test('a name without dots is a path in the folder, on any system', () => {
  assert.is(modelFile('some/model.onnx'), 'some/model.onnx');
});

test.run();
