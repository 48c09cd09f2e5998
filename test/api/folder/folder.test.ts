/** Folders: what appears in the output, what is refused, and that it appears whole or not at all. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { goldenText } from '../../../api/inspect/golden.js';
import { openModel, saveModel } from '../../../ir/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const folders = suite('folders');
const QUICK = ['--no-verify', '--quiet'];

const GENAI = {
  model: {
    type: 'llama',
    decoder: { filename: 'model.onnx', num_hidden_layers: 12, session_options: { provider_options: [] } },
    vocab_size: 256,
  },
};

/** A model folder with all sorts of things in it. */
function modelFolder(parent: string, files: Readonly<Record<string, string>> = {}): string {
  const folder = join(parent, 'in');
  mkdirSync(folder);
  copyFileSync(TALES12, join(folder, 'model.onnx'));
  const all = {
    'genai_config.json': JSON.stringify(GENAI, null, 4),
    'config.json': JSON.stringify({ num_hidden_layers: 12, hidden_size: 128 }, null, 2),
    'tokenizer.json': '{}',
    'tokenizer.model': 'x',
    'chat_template.jinja': '{{ messages }}',
    'merges.txt': 'a b',
    LICENSE: 'MIT',
    'model.safetensors': 'weights of another framework',
    'model.safetensors.index.json': '{}',
    ...files,
  };
  for (const [name, text] of Object.entries(all)) writeFileSync(join(folder, name), text);
  return folder;
}

const json = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'));

folders('a folder comes out with its model fused, its configs rewritten and its tokenizer copied', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [modelFolder(parent), join(parent, 'out')];
    const before = new Map(readdirSync(input).map((name) => [name, readFileSync(join(input, name))]));
    const { code, stdout, stderr } = await runCli(input, output, '--remove-attention', '3-6', '--no-verify');
    assert.is(code, 0, stderr);
    assert.match(
      stdout,
      /folder .*out, rewrote config\.json, copied LICENSE, chat_template\.jinja, genai_config\.json, merges\.txt, tokenizer\.json, tokenizer\.model\n {2}not copied: model\.safetensors, model\.safetensors\.index\.json \(weights of another framework\)/,
    );
    assert.match(stdout, /have gaps/);
    assert.equal(readdirSync(output).sort(), [
      'LICENSE',
      'chat_template.jinja',
      'config.json',
      'genai_config.json',
      'merges.txt',
      'model.onnx',
      'onnx-fuse.json',
      'tokenizer.json',
      'tokenizer.model',
    ]);
    assert.is(json(output, 'config.json').block_configs.length, 12);
    assert.ok(readFileSync(join(output, 'genai_config.json')).equals(before.get('genai_config.json') as Buffer));
    for (const [name, bytes] of before) assert.ok(readFileSync(join(input, name)).equals(bytes), `${name} was touched`);
    assert.equal(readdirSync(parent).sort(), ['in', 'out'], 'no temporary folder is left');
    const alone = join(parent, 'alone.onnx');
    assert.is((await runCli(TALES12, alone, '--remove-attention', '3-6', ...QUICK)).code, 0);
    assert.ok(readFileSync(join(output, 'model.onnx')).equals(readFileSync(alone)));
  }),
);

folders('numbers from 0 change the configs, and block_configs are in onnx-fuse.json alone', () =>
  inWorkspace(async (parent) => {
    const [input, output, blocks] = [modelFolder(parent), join(parent, 'out'), join(parent, 'blocks.json')];
    const argv = ['--remove-attention', '3-6', '--kv-naming', 'compact', '--block-configs', blocks, ...QUICK];
    assert.is((await runCli(input, output, ...argv)).code, 0);
    assert.is(json(output, 'genai_config.json').model.decoder.num_hidden_layers, 8);
    assert.equal(json(output, 'config.json'), { num_hidden_layers: 8, hidden_size: 128 });
    const own = json(output, 'onnx-fuse.json');
    assert.is(own.block_configs.length, 12);
    assert.is(own.onnx_fuse.kv_naming, 'compact');
    assert.equal(json(blocks).block_configs, own.block_configs);
    // What was written chooses the same layers again.
    const again = join(parent, 'again.onnx');
    assert.is((await runCli(TALES12, again, '--remove-attention', blocks, '--kv-naming', 'compact', ...QUICK)).code, 0);
    // The two say in their metadata how they were asked for.
    const bare = (file: string): string => {
      const model = openModel(file);
      model.metadata = [];
      return goldenText(model);
    };
    assert.is(bare(again), bare(join(output, 'model.onnx')));
  }),
);

folders('a folder in which nothing is done comes out as it went in', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [modelFolder(parent), join(parent, 'out')];
    assert.is((await runCli(input, output, ...QUICK)).code, 0);
    for (const name of ['model.onnx', 'config.json', 'genai_config.json']) {
      assert.ok(readFileSync(join(output, name)).equals(readFileSync(join(input, name))), name);
    }
    const blocks = join(parent, 'blocks.json');
    const dry = ['--remove-attention', '3', '--dry-run', '--block-configs', blocks];
    assert.is((await runCli(input, output, ...dry, ...QUICK)).code, 0);
    assert.not(existsSync(blocks), 'a dry run wrote a file');
  }),
);

folders('only models that the config names are copied, with their data', () =>
  inWorkspace(async (parent) => {
    const named = {
      ...GENAI,
      model: { ...GENAI.model, vision: { filename: 'vision.onnx', config_filename: 'sub/v.yaml' } },
    };
    const input = modelFolder(parent, { 'genai_config.json': JSON.stringify(named) });
    for (const name of ['vision.onnx', 'other.onnx'])
      await saveModel(openModel(TALES12), join(input, name), { external: true });
    mkdirSync(join(input, 'sub'));
    writeFileSync(join(input, 'sub', 'v.yaml'), 'x: 1');
    assert.is((await runCli(input, join(parent, 'out'), '--remove-attention', '3', ...QUICK)).code, 0);
    const files = readdirSync(join(parent, 'out'), { recursive: true }).map(String);
    for (const name of ['vision.onnx', 'vision.onnx.data', join('sub', 'v.yaml')])
      assert.ok(files.includes(name), name);
    assert.not(files.some((name) => name.startsWith('other') || name.includes('safetensors')));
  }),
);

folders('the model is found by genai_config.json, by its name, in onnx/, or because it is the only one', () =>
  inWorkspace(async (parent) => {
    const cases: [name: string, files: string[], config: string | null, found: string | RegExp][] = [
      ['named', ['a.onnx', 'b.onnx'], 'b.onnx', 'b.onnx'],
      ['model', ['a.onnx', 'model.onnx'], null, 'model.onnx'],
      ['sub', ['a.onnx', 'onnx/model.onnx'], null, 'onnx/model.onnx'],
      ['only', ['a.onnx'], null, 'a.onnx'],
      ['two', ['a.onnx', 'b.onnx'], null, /holds 2 models: a\.onnx, b\.onnx/],
      ['none', [], null, /holds no \.onnx file/],
    ];
    for (const [name, files, config, found] of cases) {
      const [input, output] = [join(parent, name), join(parent, `${name}-out`)];
      mkdirSync(join(input, 'onnx'), { recursive: true });
      for (const file of files) copyFileSync(TALES12, join(input, file));
      if (config)
        writeFileSync(join(input, 'genai_config.json'), JSON.stringify({ model: { decoder: { filename: config } } }));
      const { code, stderr } = await runCli(input, output, '--remove-attention', '3', ...QUICK);
      if (found instanceof RegExp) {
        assert.is(code, 2);
        assert.match(stderr, found);
      } else assert.ok(existsSync(join(output, found)), stderr);
    }
  }),
);

folders('an output of ours is replaced, anything else is not touched', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [modelFolder(parent), join(parent, 'out')];
    mkdirSync(output);
    const run = (layers: string, to = output) => runCli(input, to, '--remove-attention', layers, ...QUICK);
    assert.is((await run('3')).code, 0, 'an empty folder is fine');
    assert.is((await run('4')).code, 0);
    assert.equal(json(output, 'onnx-fuse.json').onnx_fuse.removed_attention, [4]);
    writeFileSync(join(output, 'notes.md'), 'mine');
    const refused = await run('5');
    assert.is(refused.code, 2);
    assert.match(refused.stderr, /holds notes\.md, which onnx-fuse did not write/);
    assert.equal(json(output, 'onnx-fuse.json').onnx_fuse.removed_attention, [4]);
    symlinkSync(input, join(parent, 'link'));
    for (const to of [input, join(input, 'sub'), join(parent, 'link'), parent]) {
      const { code, stderr } = await run('5', to);
      assert.is(code, 2, to);
      assert.match(stderr, /OF_OUTPUT_IS_INPUT/);
    }
    assert.is((await run('5', join(parent, 'no', 'where'))).code, 2);
    assert.is((await run('5', join(input, 'config.json'))).code, 2);
  }),
);

folders('nothing appears when something goes wrong, or on a dry run', () =>
  inWorkspace(async (parent) => {
    const input = modelFolder(parent, {
      'genai_config.json': JSON.stringify(GENAI).replace('"filename"', '"pipeline":[],"filename"'),
    });
    const output = join(parent, 'out');
    const refused: [string[], RegExp][] = [
      [['--remove-attention', '99'], /OF_NO_SUCH_LAYER/],
      [['--remove-attention', '0-11'], /cannot run without any/],
      [['--remove-attention', '3', '--kv-naming', 'preserve'], /--kv-naming compact/],
    ];
    for (const [argv, why] of refused) {
      const { code, stderr } = await runCli(input, output, ...argv, ...QUICK);
      assert.ok(code > 0);
      assert.match(stderr, why);
      assert.equal(readdirSync(parent), ['in'], argv.join(' '));
    }
    assert.is((await runCli(input, output, '--remove-attention', '3', '--dry-run', '--quiet')).code, 0);
    assert.equal(readdirSync(parent), ['in']);
    writeFileSync(join(input, 'config.json'), '{ broken');
    const broken = await runCli(input, output, '--remove-attention', '3', ...QUICK);
    assert.is(broken.code, 2);
    assert.match(broken.stderr, /config\.json: it is not JSON: line 1/);
    assert.equal(readdirSync(parent), ['in']);
  }),
);

folders('a folder that was made by us can be fused again, counting the original layers', () =>
  inWorkspace(async (parent) => {
    const [input, first, second] = [modelFolder(parent), join(parent, 'first'), join(parent, 'second')];
    assert.is((await runCli(input, first, '--remove-attention', '3-5', '--kv-naming', 'compact', ...QUICK)).code, 0);
    const again = await runCli(first, second, '--remove-attention', '8', '--kv-naming', 'compact', ...QUICK);
    assert.is(again.code, 0, again.stderr);
    const own = json(second, 'onnx-fuse.json');
    assert.equal(own.onnx_fuse.removed_attention, [3, 4, 5, 8]);
    assert.equal([own.num_hidden_layers, own.block_configs.length], [12, 12]);
    assert.is(json(second, 'genai_config.json').model.decoder.num_hidden_layers, 8);
    const names = openModel(join(second, 'model.onnx')).graph.inputs.map((value) => value.name);
    const keys = names.filter((name) => name.endsWith('.key'));
    assert.equal(
      keys,
      Array.from({ length: 8 }, (_, i) => `past_key_values.${i}.key`),
    );
  }),
);

folders.run();
