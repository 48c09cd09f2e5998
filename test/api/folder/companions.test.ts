/** What comes along with a model, and that everything else is named with the reason why it stays. */
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { readAdapter } from '../../../api/folder/adapter.js';
import { openModel, parseModel, saveModel } from '../../../ir/index.js';
import { adapterBytes, addLora } from '../../helpers/lora.js';
import { writeGenaiFolder, writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('companions');
const FUSE = ['--remove-attention', '1-3', '--no-verify'];

const json = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'));

test('every file that is not copied is listed with a reason', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [join(parent, 'in'), join(parent, 'out')];
    writeGenaiFolder(input);
    for (const name of [
      'tokenizer.json',
      'a.safetensors',
      'a.safetensors.index.json',
      'draft.onnx',
      'draft.onnx.data',
      'odd.xyz',
    ])
      writeFileSync(join(input, name), '{}');
    mkdirSync(join(input, '.git', 'objects'), { recursive: true });
    for (const name of ['HEAD', 'objects/1', 'objects/2']) writeFileSync(join(input, '.git', name), '');
    const report = join(parent, 'report.json');
    const { code, stdout, stderr } = await runCli(input, output, ...FUSE, '--report', report);
    assert.is(code, 0, stderr);
    assert.match(stdout, /folder .*out, copied genai_config\.json, tokenizer\.json\n/);
    assert.match(stdout, /not copied: a\.safetensors, a\.safetensors\.index\.json \(weights of another framework\)/);
    assert.equal(json(report).folder.left, [
      { file: '.git/', reason: '3 files that nothing names' },
      { file: 'a.safetensors', reason: 'weights of another framework' },
      { file: 'a.safetensors.index.json', reason: 'weights of another framework' },
      { file: 'draft.onnx', reason: 'a model that no config names' },
      { file: 'draft.onnx.data', reason: 'data of a model that is not copied' },
      { file: 'odd.xyz', reason: 'nothing that is copied names it' },
    ]);
  }));

const CONTEXT = `<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
head (float[b,s,96] logits) => (float[b,s,96] logits2) {
  logits2 = com.microsoft.EPContext <embed_mode: int = 0, ep_cache_context: string = "NAME", main_context: int = 1> (logits)
}`;

test('the models of a pipeline come along, with what their compiled nodes name', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [join(parent, 'in'), join(parent, 'out')];
    const stage = {
      filename: 'model.onnx',
      inputs: [0, 1, 2, 3, 4].flatMap((i) => [`past_key_values.${i}.key`, `past_key_values.${i}.value`]),
      outputs: ['logits'],
    };
    writeGenaiFolder(input, 'skip', { pipeline: [{ body: stage, head: { filename: 'npu/head.onnx' } }] });
    mkdirSync(join(input, 'npu'));
    await saveModel(parseModel(CONTEXT.replace('NAME', 'head.bin')), join(input, 'npu', 'head.onnx'));
    writeFileSync(join(input, 'npu', 'head.bin'), 'compiled');
    writeFileSync(join(input, 'npu', 'tail.bin'), 'compiled');
    const { code, stdout, stderr } = await runCli(input, output, ...FUSE);
    assert.is(code, 0, stderr);
    assert.equal(readdirSync(join(output, 'npu')).sort(), ['head.bin', 'head.onnx']);
    assert.match(stdout, /not copied: npu\/tail\.bin/);

    await saveModel(parseModel(CONTEXT.replace('NAME', '../../secret.bin')), join(input, 'npu', 'head.onnx'));
    writeFileSync(join(parent, 'secret.bin'), 'a secret');
    const again = await runCli(input, output, ...FUSE);
    assert.is(again.code, 0, again.stderr);
    assert.match(again.stdout, /not copied: \.\.\/\.\.\/secret\.bin \(its name leads out of the folder\)/);
    assert.equal(readdirSync(parent).sort(), ['in', 'out', 'secret.bin']);
  }));

async function loraFolder(input: string): Promise<string[]> {
  writeGenaiFolder(input);
  const model = openModel(join(input, 'model.onnx'));
  const names = addLora(model);
  const made = join(input, 'made');
  mkdirSync(made);
  await saveModel(model, join(made, 'model.onnx'));
  for (const name of readdirSync(made)) renameSync(join(made, name), join(input, name));
  return names;
}

test('an adapter comes along without the parameters of attentions that are gone', () =>
  inWorkspace(async (parent) => {
    const [input, output] = [join(parent, 'in'), join(parent, 'out')];
    const names = await loraFolder(input);
    writeFileSync(join(input, 'style.onnx_adapter'), adapterBytes(names));
    writeFileSync(join(input, 'whole.onnx_adapter'), adapterBytes(names.slice(0, 2)));
    writeFileSync(join(input, 'gone.onnx_adapter'), adapterBytes(names.filter((name) => name.includes('layers.2.'))));
    writeFileSync(join(input, 'other.onnx_adapter'), adapterBytes(['model.layers.9.lora']));
    writeFileSync(join(input, 'noise.onnx_adapter'), 'no adapter at all');
    writeFileSync(join(input, 'cut.onnx_adapter'), adapterBytes(names).subarray(0, 100));
    const { code, stdout, stderr } = await runCli(input, output, ...FUSE);
    assert.is(code, 0, stderr);
    const carried = readAdapter(join(output, 'style.onnx_adapter'))?.parameters.map(({ name }) => name);
    assert.equal(
      carried,
      names.filter((name) => /layers\.[04]\./.test(name)),
    );
    assert.match(stdout, /note: style\.onnx_adapter: 6 of its parameters went with what was removed/);
    assert.ok(readFileSync(join(output, 'whole.onnx_adapter')).equals(readFileSync(join(input, 'whole.onnx_adapter'))));
    assert.match(stdout, /not copied: gone\.onnx_adapter \(all of its parameters went with what was removed\)/);
    assert.match(stdout, /not copied: other\.onnx_adapter \(its 'model\.layers\.9\.lora' is no input of the model\)/);
    assert.match(stdout, /not copied: cut\.onnx_adapter, noise\.onnx_adapter \(not an adapter that can be read\)/);
    const inputs = new Set(openModel(join(output, 'model.onnx')).graph.inputs.map(({ name }) => name));
    assert.ok(carried?.every((name) => inputs.has(name)));
  }));

const HF = { model_type: 'llama', num_hidden_layers: 5 };

test('transformers.js finds the data files that were written, and how many there are', () =>
  inWorkspace(async (parent) => {
    const input = join(parent, 'in');
    mkdirSync(join(input, 'onnx'), { recursive: true });
    const model = openModel(writeSmallDecoder(parent));
    await saveModel(model, join(input, 'onnx', 'model.onnx'), { dataNames: 'underscore' });
    const formats: [said: unknown, sharded: unknown, whole: unknown][] = [
      [
        { 'model.onnx': 1, 'model_q4.onnx': 2 },
        { 'model.onnx': 'N', 'model_q4.onnx': 2 },
        { 'model.onnx': 1, 'model_q4.onnx': 2 },
      ],
      [{ model: true }, { model: 'N' }, { model: true }],
      [true, 'N', true],
      [undefined, 'N', 1],
    ];
    for (const [i, [said, sharded, whole]] of formats.entries()) {
      const settings = said === undefined ? {} : { use_external_data_format: said };
      writeFileSync(join(input, 'config.json'), JSON.stringify({ ...HF, 'transformers.js_config': settings }, null, 2));
      for (const limit of [['--max-shard-size', '50KB'], []]) {
        const output = join(parent, `out${i}${limit.length}`);
        const { code, stderr } = await runCli(input, output, ...FUSE, ...limit, '--quiet');
        assert.is(code, 0, stderr);
        const data = readdirSync(join(output, 'onnx')).filter((name) => name.includes('data'));
        const expected = data.map((_, k) => `model.onnx_data${k === 0 ? '' : `_${k}`}`);
        assert.equal(data.sort(), expected.sort());
        assert.ok(limit.length === 0 ? data.length === 1 : data.length > 2, `${data}`);
        const found = json(output, 'config.json')['transformers.js_config'].use_external_data_format;
        const wanted = JSON.parse(JSON.stringify(limit.length ? sharded : whole).replace('"N"', String(data.length)));
        assert.equal(found, wanted);
      }
    }
  }));

test('every command that wants a model takes a folder', () =>
  inWorkspace(async (parent) => {
    const [input, file] = [join(parent, 'in'), join(parent, 'in', 'model.onnx')];
    writeGenaiFolder(input);
    const same = async (...argv: string[]): Promise<void> => {
      const [folder, alone] = [
        await runCli(...argv.map((word) => (word === 'MODEL' ? input : word))),
        await runCli(...argv.map((word) => (word === 'MODEL' ? file : word))),
      ];
      assert.is(folder.code, 0, folder.stderr);
      // What to type next is said for what was given.
      const next = alone.stdout.replace(`onnx-fuse ${file} out.onnx --plan`, 'onnx-fuse in out --plan');
      assert.is(folder.stdout.replaceAll(input, 'in'), next.replaceAll(file, 'in').replaceAll(input, 'in'));
    };
    await same('inspect', 'MODEL');
    await same('print', 'MODEL');
    await same('verify', 'MODEL', 'MODEL');
    const golden = join(parent, 'golden');
    assert.is((await runCli('golden', input, golden, '--accept')).code, 0);
    assert.is((await runCli('golden', file, golden)).code, 0);
    const ids = join(parent, 'ids.jsonl');
    writeFileSync(
      ids,
      Array.from({ length: 4 }, (_, i) => `[${Array.from({ length: 24 }, (_, k) => (7 * k + i) % 96)}]`).join('\n'),
    );
    const plan = [
      'plan',
      'MODEL',
      '--data',
      ids,
      '--max-kl',
      '9',
      '--max-evaluations',
      '4',
      '--device',
      'h100x8',
      '--quiet',
    ];
    await same(...plan, '-o', join(parent, 'plan.json'));
    const bench = ['--prompt', '4', '--decode', '1', '--rounds', '1', '--quiet'];
    assert.is((await runCli('bench', input, input, ...bench)).code, 0);
    assert.is((await runCli('shard', input, join(parent, 'ranks'), '--tp', '2', '--quiet')).code, 0);
    assert.is((await runCli('verify', input, join(parent, 'ranks'), '--quiet')).code, 0);
    const annotate = ['--tp', '2', '--collectives', 'annotate', '--no-verify', '--quiet'];
    assert.is((await runCli('shard', input, join(parent, 'annotated.onnx'), ...annotate)).code, 0);
  }));

test.run();
